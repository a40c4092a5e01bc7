/**
 * Uploads that could go on, if only the file were here: it was too large for the browser to keep, or the browser
 * was killed while it made the copy. People are told what to do; the upload goes on when they do it.
 */
import type { DeleteUpload } from './deletion.ts'
import { announce, byId, formatSize, isRecord, make, storedList } from './dom.ts'

export interface WaitingUpload {
  /** Made of name, type, size and time of change: the same file gets the same id. */
  id: string
  name: string
  sizeBytes: number
  /** Where the upload goes on; null when it was not yet created. */
  uploadUrl: string | null
}

const stored = storedList<WaitingUpload>('tidemark:waiting', isWaitingUpload)

export class WaitingList {
  readonly #onChosen: (files: File[]) => void
  readonly #deleteUpload: DeleteUpload
  #uploads = stored.read()

  constructor(onChosen: (files: File[]) => void, deleteUpload: DeleteUpload) {
    this.#onChosen = onChosen
    this.#deleteUpload = deleteUpload
  }

  start(): void {
    const input = byId<HTMLInputElement>('waiting-input')
    input.addEventListener('change', () => {
      this.#onChosen([...(input.files ?? [])])
      input.value = ''
    })
    this.#render()
  }

  add(uploads: WaitingUpload[]): void {
    if (uploads.length === 0) return
    const others = stored.read().filter(({ id }) => !uploads.some((upload) => upload.id === id))
    this.#keep([...uploads, ...others])
    announce('Choose the same file again and the upload goes on where it stopped.')
  }

  /** The upload that waited for this file, if one did; it waits no more. */
  take(id: string): WaitingUpload | undefined {
    const waiting = stored.read()
    const found = waiting.find((upload) => upload.id === id)
    if (found !== undefined) this.#keep(waiting.filter((upload) => upload !== found))
    return found
  }

  #keep(uploads: WaitingUpload[]): void {
    this.#uploads = uploads
    stored.write(uploads)
    this.#render()
  }

  #render(): void {
    byId('waiting').hidden = this.#uploads.length === 0
    byId('waiting-list').replaceChildren(...this.#uploads.map((upload) => this.#row(upload)))
  }

  #row({ id, name, sizeBytes }: WaitingUpload): HTMLElement {
    const forget = make(
      'button',
      { type: 'button', class: 'button', 'aria-label': `Forget ${name}` },
      'Forget',
    )
    forget.addEventListener('click', () => {
      const forgotten = this.take(id)
      if (forgotten?.uploadUrl) this.#deleteUpload(forgotten.uploadUrl)
    })
    const text = make(
      'div',
      { class: 'row-text' },
      make('span', { class: 'row-name' }, name),
      make('span', { class: 'quiet' }, formatSize(sizeBytes)),
    )
    return make('li', { class: 'row' }, text, forget)
  }
}

function isWaitingUpload(value: unknown): value is WaitingUpload {
  return (
    isRecord(value) &&
    typeof value.id === 'string' &&
    typeof value.name === 'string' &&
    typeof value.sizeBytes === 'number' &&
    (value.uploadUrl === null || typeof value.uploadUrl === 'string')
  )
}
