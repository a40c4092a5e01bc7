/**
 * What the server counts of the uploads in the table, as it happens, on whichever server they are received: one stream of
 * events for all of them, while this page is seen and something in it is unfinished. A browser opens six connections to a
 * server, and a stream in every hidden tab would leave none for uploads.
 */
import { isRecord } from './dom.ts'
import type { SignIn } from './sign-in.ts'

export type Counted = { is: 'moved'; offset: number } | { is: 'finished' } | { is: 'gone' }
type OnCounted = (url: string, counted: Counted) => void

/** As many as the server tells of at a time. */
const followedAtMost = 100
/** Several uploads begin together. */
const settleMs = 500
const comeBackMs = { first: 2000, most: 15_000 }

export class UploadFeed {
  /** Whether the server counts aloud right now. */
  isLive = false
  readonly #isOffered: boolean
  readonly #signIn: SignIn
  #onCounted: OnCounted = () => {}
  #urls: string[] = []
  #reading: AbortController | undefined
  #readIds = ''
  #timer: ReturnType<typeof setTimeout> | undefined
  #waitMs = comeBackMs.first

  constructor({ canFollow }: { canFollow: boolean }, signIn: SignIn) {
    this.#isOffered = canFollow
    this.#signIn = signIn
  }

  start(onCounted: OnCounted): void {
    this.#onCounted = onCounted
    document.addEventListener('visibilitychange', () => this.#soon(0))
  }

  follow(urls: string[]): void {
    this.#urls = urls.slice(0, followedAtMost)
    if (this.#wantedIds() !== this.#readIds) this.#soon(settleMs)
  }

  #wantedIds(): string {
    if (!this.#isOffered || document.hidden) return ''
    return this.#urls.map((url) => `id=${encodeURIComponent(idOf(url))}`).join('&')
  }

  #soon(waitMs: number): void {
    if (!this.#isOffered) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#read(), waitMs)
  }

  async #read(): Promise<void> {
    const ids = this.#wantedIds()
    if (ids === this.#readIds && this.#reading !== undefined) return
    this.#reading?.abort()
    this.#readIds = ids
    this.#reading = undefined
    this.isLive = false
    if (ids === '') return
    const reading = new AbortController()
    this.#reading = reading
    try {
      await this.#readEvents(new URL(`uploads/events?${ids}`, document.baseURI), reading.signal)
    } catch {
      // Cut, or nobody there: asked again below.
    }
    if (this.#reading !== reading) return
    this.#reading = undefined
    this.isLive = false
    this.#soon(this.#waitMs)
    this.#waitMs = Math.min(this.#waitMs * 2, comeBackMs.most)
  }

  async #readEvents(url: URL, signal: AbortSignal): Promise<void> {
    const answer = await fetch(url, {
      signal,
      headers: { Accept: 'text/event-stream', ...this.#signIn.headers },
    })
    this.#signIn.answered(answer.status)
    if (!answer.ok || answer.body === null) return void (await answer.body?.cancel())
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    let rest = ''
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      const blocks = (rest + value).split('\n\n')
      rest = blocks.pop() ?? ''
      for (const block of blocks) this.#hear(block)
    }
  }

  #hear(block: string): void {
    const event = /^event: (.+)$/m.exec(block)?.[1]
    const text = /^data: (.+)$/m.exec(block)?.[1]
    if (event === undefined || text === undefined) return
    this.#waitMs = comeBackMs.first
    const data: unknown = JSON.parse(text)
    if (!isRecord(data)) return
    if (event === 'snapshot' && Array.isArray(data.uploads)) this.#hearAll(data.uploads)
    else if (event === 'terminated' || event === 'expired') this.#tell(data.id, { is: 'gone' })
    else this.#tellOf(data)
  }

  #hearAll(uploads: unknown[]): void {
    this.isLive = true
    const views = uploads.filter(isRecord)
    const there = new Set(views.map(({ id }) => id))
    for (const view of views) this.#tellOf(view)
    // Of those that were asked for; the others have begun since.
    for (const url of this.#urls) {
      const isAsked = this.#readIds.split('&').includes(`id=${encodeURIComponent(idOf(url))}`)
      if (isAsked && !there.has(idOf(url))) this.#onCounted(url, { is: 'gone' })
    }
  }

  #tellOf({ id, state, offset }: Record<string, unknown>): void {
    if (state === 'finished') this.#tell(id, { is: 'finished' })
    else if (state === 'failed') this.#tell(id, { is: 'gone' })
    else if (typeof offset === 'number') this.#tell(id, { is: 'moved', offset })
  }

  #tell(id: unknown, counted: Counted): void {
    const url = this.#urls.find((one) => idOf(one) === id)
    if (url !== undefined) this.#onCounted(url, counted)
  }
}

/** An upload's id is the last part of its URL. */
function idOf(url: string): string {
  const { pathname } = new URL(url)
  return decodeURIComponent(pathname.slice(pathname.lastIndexOf('/') + 1))
}
