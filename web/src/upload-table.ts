/**
 * What this browser uploads and has uploaded, newest first: how far the server has counted, and a link once all is there.
 * Kept in this browser alone: whoever has a link has the file, so nobody else is told. Where the server serves no
 * downloads, finished uploads have names only.
 */
import { copyButton } from './copy-button.ts'
import { announce, byId, formatSize, isRecord, make, storedList } from './dom.ts'
import type { SignedDownloads } from './signed-downloads.ts'
import type { Counted, UploadFeed } from './upload-feed.ts'

export interface TableUpload {
  name: string
  sizeBytes: number
  url: string
  /** `gone`: the server has it no longer. */
  state: 'open' | 'finished' | 'gone'
  /** Bytes that the server has. */
  offset: number
  /** The server had it already: nothing was sent. */
  wasThere?: boolean
}

/** Whether finished uploads can be downloaded; by links that are asked for where people sign in. */
export interface Links {
  readonly canDownload: boolean
  readonly downloads: SignedDownloads | null
}

type Known = Pick<TableUpload, 'name' | 'sizeBytes' | 'url'>

const keptAtMost = 200
const stored = storedList<TableUpload>('tidemark:uploads', isTableUpload)
const storeEveryMs = 2000
/** An upload that has not moved for so long waits for something. */
const movingMs = 15_000

export class UploadTable {
  #uploads: TableUpload[] = []
  readonly #links: Links
  readonly #feed: UploadFeed
  readonly #rows = new Map<string, Row>()
  readonly #movedAtMs = new Map<string, number>()
  #storing: ReturnType<typeof setTimeout> | undefined

  constructor(links: Links, feed: UploadFeed) {
    this.#links = links
    this.#feed = feed
    if (!links.canDownload)
      byId('uploads-empty').textContent = 'Your uploads will be listed here, in this browser.'
  }

  start(): void {
    giveRoles(byId('uploads-table'))
    this.#uploads = stored.read()
    byId('uploads-clear').addEventListener('click', () => {
      // What is still running comes back with its next byte.
      this.#keep([])
      announce('The list of uploads was cleared')
      byId('uploads-title').focus()
    })
    // Another tab of the same browser has begun or finished something, or cleared the list.
    window.addEventListener('storage', () => {
      this.#uploads = this.#merged()
      this.#render()
    })
    window.addEventListener('pagehide', () => this.#store())
    setInterval(() => this.#render(), movingMs / 3)
    this.#feed.start((url, counted) => this.#counted(url, counted))
    this.#render()
  }

  /** An upload of this page has sent so many bytes. */
  sent(upload: Known, sentBytes: number): void {
    const known = this.#find(upload.url)
    if (known?.state === 'finished') return
    if (known === undefined) this.#put({ ...upload, state: 'open', offset: 0 })
    // What was sent is not what was counted, but the best that is known where nobody counts aloud.
    if (!this.#feed.isLive) this.#move(upload.url, Math.min(sentBytes, upload.sizeBytes))
    else this.#movedAtMs.set(upload.url, performance.now())
  }

  /** The server takes nothing of it now. */
  waits(url: string): void {
    if (this.#movedAtMs.delete(url)) this.#render()
  }

  /** An upload that is told twice (a reload in the very moment of finishing) is listed once. */
  finished(upload: Known, wasThere = false): void {
    const isNews = this.#find(upload.url)?.state !== 'finished'
    this.#put({ ...upload, state: 'finished', offset: upload.sizeBytes, ...(wasThere && { wasThere }) })
    if (isNews) announce(wasThere ? `${upload.name} was already there` : `${upload.name} is uploaded`)
  }

  /** It was cancelled. */
  forget(url: string): void {
    const upload = this.#find(url)
    if (upload?.state !== 'open') return
    this.#keep(this.#merged().filter((other) => other.url !== url))
  }

  #counted(url: string, counted: Counted): void {
    const upload = this.#find(url)
    if (upload?.state !== 'open') return
    if (counted.is === 'finished') this.finished(upload)
    else if (counted.is === 'moved') {
      // What was sent before the server counted aloud may never have been taken.
      if (counted.offset < upload.offset) this.#takeBack(upload, counted.offset)
      else this.#move(url, counted.offset)
    } else {
      this.#put({ ...upload, state: 'gone' })
      announce(`${upload.name} is no longer on the server`)
    }
  }

  #move(url: string, offset: number): void {
    const upload = this.#find(url)
    if (upload === undefined || offset <= upload.offset) return
    upload.offset = offset
    this.#movedAtMs.set(url, performance.now())
    this.#storing ??= setTimeout(() => this.#store(), storeEveryMs)
    this.#rows.get(url)?.show(upload, true)
  }

  #takeBack(upload: TableUpload, offset: number): void {
    upload.offset = offset
    // At once: of what is stored and what is here, the larger counts.
    this.#store()
    this.#render()
  }

  #put(upload: TableUpload): void {
    const uploads = this.#merged()
    const at = uploads.findIndex(({ url }) => url === upload.url)
    this.#keep(at < 0 ? [upload, ...uploads] : uploads.with(at, upload))
  }

  #keep(uploads: TableUpload[]): void {
    this.#uploads = uploads.slice(0, keptAtMost)
    this.#store()
    this.#render()
  }

  #store(): void {
    clearTimeout(this.#storing)
    this.#storing = undefined
    stored.write(this.#uploads)
  }

  /** What all tabs know, with the offsets of this one, which are not stored at once. */
  #merged(): TableUpload[] {
    return stored.read().map((upload) => {
      const offset = this.#find(upload.url)?.offset ?? 0
      return upload.state === 'open' && offset > upload.offset ? { ...upload, offset } : upload
    })
  }

  #find(url: string): TableUpload | undefined {
    return this.#uploads.find((upload) => upload.url === url)
  }

  #render(): void {
    const isEmpty = this.#uploads.length === 0
    byId('uploads-clear').hidden = isEmpty
    byId('uploads-empty').hidden = !isEmpty
    byId('uploads-table').hidden = isEmpty
    const list = byId('uploads-list')
    const now = performance.now()
    for (const [url, row] of this.#rows) {
      if (this.#find(url) !== undefined) continue
      row.element.remove()
      this.#rows.delete(url)
    }
    for (const [index, upload] of this.#uploads.entries()) {
      const row = this.#rows.get(upload.url) ?? new Row(upload, this.#links)
      this.#rows.set(upload.url, row)
      row.show(upload, now - (this.#movedAtMs.get(upload.url) ?? Number.NEGATIVE_INFINITY) < movingMs)
      // Only what moved: a row that stays keeps the focus that is in it.
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null)
    }
    this.#feed.follow(this.#uploads.filter(({ state }) => state === 'open').map(({ url }) => url))
  }
}

/** One line of the table. Its cells say what they are: on a phone they do not stand in columns. */
class Row {
  readonly element: HTMLElement
  readonly #links: Links
  readonly #name = make('td', { class: 'upload-name' })
  readonly #state = make('td', { class: 'upload-state' })
  readonly #actions = make('td', { class: 'upload-actions' })
  readonly #bar: HTMLProgressElement
  readonly #text = make('span', { class: 'quiet' })
  #shown: string | undefined

  constructor({ url, name, sizeBytes }: TableUpload, links: Links) {
    this.#links = links
    this.#bar = make('progress', { max: '100', 'aria-label': `Progress of ${name}` })
    const size = make('td', { class: 'upload-size quiet' }, formatSize(sizeBytes))
    this.element = make('tr', { 'data-url': url }, this.#name, size, this.#state, this.#actions)
    giveRoles(this.element)
  }

  show(upload: TableUpload, isMoving: boolean): void {
    const words = wordsFor(upload)
    if (this.#shown !== words) this.#build(upload, words)
    this.#shown = words
    if (upload.state !== 'open') return
    // Never 100 while a byte is missing.
    const percent =
      upload.sizeBytes === 0 ? 0 : Math.min(99, Math.floor((upload.offset / upload.sizeBytes) * 100))
    if (this.#bar.value !== percent || !this.#bar.hasAttribute('value')) this.#bar.value = percent
    const text = `${isMoving ? 'Uploading' : 'Waiting'}, ${percent}%`
    if (this.#text.textContent !== text) this.#text.textContent = text
  }

  #build({ name, url, state }: TableUpload, words: string): void {
    this.element.dataset.state = state
    const { link, beside } =
      state === 'finished' ? linkTo(name, url, this.#links) : { link: plainName(name), beside: [] }
    this.#name.replaceChildren(link)
    this.#actions.replaceChildren(...beside)
    if (state === 'open') this.#state.replaceChildren(this.#bar, this.#text)
    else {
      this.#text.textContent = words
      this.#state.replaceChildren(this.#text)
    }
  }
}

function wordsFor({ state, wasThere }: TableUpload): string {
  if (state === 'gone') return 'No longer on the server'
  if (state === 'open') return 'Uploading'
  return wasThere ? 'Already there' : 'Finished'
}

function linkTo(name: string, url: string, { canDownload, downloads }: Links) {
  if (!canDownload) return { link: plainName(name), beside: [] }
  if (downloads !== null) return signedLink(name, url, downloads)
  // `download` keeps the name that the file had here, and keeps this page open while other uploads run.
  const link = make('a', { href: url, download: name, class: 'row-name' }, name)
  return { link, beside: [copyButton(name, url)] }
}

/** The link itself lets nobody in, so there is nothing to copy; a click asks for one that does. */
function signedLink(name: string, url: string, downloads: SignedDownloads) {
  const link = make('a', { href: url, class: 'row-name' }, name)
  const problem = make('span', { class: 'problem', hidden: '' }, 'Not now')
  link.addEventListener('click', async (event) => {
    event.preventDefault()
    problem.hidden = await downloads.begin(url, name)
  })
  return { link, beside: [problem] }
}

function plainName(name: string): HTMLElement {
  return make('span', { class: 'row-name' }, name)
}

const roles = {
  table: 'table',
  thead: 'rowgroup',
  tbody: 'rowgroup',
  tr: 'row',
  th: 'columnheader',
  td: 'cell',
}

/** Some browsers take what is not laid out as a table for none; these words make it one again. */
function giveRoles(element: HTMLElement): void {
  for (const [tag, role] of Object.entries(roles))
    for (const one of [element, ...element.querySelectorAll(tag)]) if (one.matches(tag)) one.role = role
}

function isTableUpload(value: unknown): value is TableUpload {
  return (
    isRecord(value) &&
    typeof value.name === 'string' &&
    typeof value.sizeBytes === 'number' &&
    typeof value.offset === 'number' &&
    ['undefined', 'boolean'].includes(typeof value.wasThere) &&
    ['open', 'finished', 'gone'].includes(value.state as string) &&
    typeof value.url === 'string' &&
    /^https?:/.test(value.url)
  )
}
