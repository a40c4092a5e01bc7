/**
 * The links to finished uploads, newest first. They are kept in this browser alone: whoever has a link has the
 * file, so nobody else is told. Where the server serves no downloads, the list has names only.
 */

import { announce, byId, formatSize, isRecord, make, storedList } from './dom.ts'
import type { SignedDownloads } from './signed-downloads.ts'

export interface FinishedUpload {
  name: string
  sizeBytes: number
  url: string
}

const keptAtMost = 200
const stored = storedList<FinishedUpload>('tidemark:finished', isFinishedUpload)

export class FinishedList {
  #uploads: FinishedUpload[] = []
  readonly #list = byId('finished-list')
  readonly #clear = byId<HTMLButtonElement>('finished-clear')
  readonly #row: (upload: FinishedUpload) => HTMLElement

  constructor({ canDownload, downloads }: { canDownload: boolean; downloads: SignedDownloads | null }) {
    this.#row = !canDownload
      ? nameRow
      : downloads === null
        ? linkRow
        : (upload) => signedRow(upload, downloads)
    if (!canDownload) {
      byId('finished-empty').textContent = 'Your finished uploads will be listed here, in this browser.'
    }
  }

  start(): void {
    this.#uploads = stored.read()
    this.#clear.addEventListener('click', () => {
      this.#keep([])
      announce('The list of finished uploads was cleared')
      byId('finished-title').focus()
    })
    // Another tab of the same browser has finished something, or cleared the list.
    window.addEventListener('storage', () => {
      this.#uploads = stored.read()
      this.#render()
    })
    this.#render()
  }

  /** An upload that is told twice (a reload in the very moment of finishing) is listed once. */
  add(upload: FinishedUpload): void {
    const others = stored.read().filter(({ url }) => url !== upload.url)
    this.#keep([upload, ...others].slice(0, keptAtMost))
    announce(`${upload.name} is uploaded`)
  }

  #keep(uploads: FinishedUpload[]): void {
    this.#uploads = uploads
    stored.write(uploads)
    this.#render()
  }

  #render(): void {
    const isEmpty = this.#uploads.length === 0
    this.#clear.hidden = isEmpty
    byId('finished-empty').hidden = !isEmpty
    this.#list.replaceChildren(...this.#uploads.map(this.#row))
  }
}

function linkRow(upload: FinishedUpload): HTMLElement {
  const { name, url } = upload
  // `download` keeps the name that the file had here, and keeps this page open while other uploads run.
  const link = make('a', { href: url, download: name, class: 'row-name' }, name)
  const copy = make(
    'button',
    { type: 'button', class: 'button', 'aria-label': `Copy link to ${name}` },
    'Copy link',
  )
  copy.addEventListener('click', async () => {
    const copied = await copyText(url)
    copy.textContent = copied ? 'Copied' : 'Not copied'
    announce(copied ? `Link to ${name} copied` : `The link could not be copied: ${url}`)
    setTimeout(() => {
      copy.textContent = 'Copy link'
    }, 2000)
  })
  return row(upload, link, copy)
}

/** The link itself lets nobody in, so there is nothing to copy; a click asks for one that does. */
function signedRow(upload: FinishedUpload, downloads: SignedDownloads): HTMLElement {
  const { name, url } = upload
  const link = make('a', { href: url, class: 'row-name' }, name)
  const problem = make('span', { class: 'problem', hidden: '' }, 'Not now')
  link.addEventListener('click', async (event) => {
    event.preventDefault()
    problem.hidden = await downloads.begin(url, name)
  })
  return row(upload, link, problem)
}

function nameRow(upload: FinishedUpload): HTMLElement {
  return row(upload, make('span', { class: 'row-name' }, upload.name))
}

function row({ sizeBytes, url }: FinishedUpload, name: HTMLElement, ...beside: HTMLElement[]): HTMLElement {
  const size = make('span', { class: 'quiet' }, formatSize(sizeBytes))
  return make(
    'li',
    { class: 'row', 'data-url': url },
    make('div', { class: 'row-text' }, name, size),
    ...beside,
  )
}

async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copyBySelection(text)
  }
}

/** navigator.clipboard is there only on https and localhost; a server in a home or an office often has neither. */
function copyBySelection(text: string): boolean {
  const focused = document.activeElement
  const field = make('textarea', { class: 'unseen', readonly: '', 'aria-hidden': 'true' }, text)
  document.body.append(field)
  field.select()
  const copied = document.execCommand('copy')
  field.remove()
  if (focused instanceof HTMLElement) focused.focus()
  return copied
}

function isFinishedUpload(value: unknown): value is FinishedUpload {
  return (
    isRecord(value) &&
    typeof value.name === 'string' &&
    typeof value.sizeBytes === 'number' &&
    typeof value.url === 'string' &&
    /^https?:/.test(value.url)
  )
}
