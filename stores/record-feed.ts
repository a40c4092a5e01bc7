/**
 * News of records for whoever watches them, in this process or in others that share the records.
 *
 * The one idea: nothing leaves a process unless another one has said that it wants to hear. Who begins to send says
 * `missed` first, so that whoever began to listen looks once more at what happened before the word had spread.
 */
import type { RecordNews } from './contracts.ts'

/** The way to the other processes. */
export interface NewsWire {
  send(news: readonly RecordNews[]): void
  /** Says to the others that this process wants to hear of records, or no longer does. */
  want(isWanted: boolean): void
}

/** What comes within this much goes out together; of one upload only the newest copy. */
const collectMs = 100

export class RecordFeed {
  readonly #wire: NewsWire | undefined
  readonly #listeners = new Set<(news: RecordNews) => void>()
  readonly #waiting = new Map<string, RecordNews>()
  #isWanted = false
  #timer: NodeJS.Timeout | undefined

  constructor(wire?: NewsWire) {
    this.#wire = wire
  }

  /** Whether anybody wants to hear: else there is nothing to be told. */
  get isHeard(): boolean {
    return this.#isWanted || this.#listeners.size > 0
  }

  /** Something happened in this process. */
  tell(news: RecordNews): void {
    if (!this.isHeard) return
    this.#tellListeners(news)
    if (this.#isWanted) this.#collect(news)
  }

  /** Something happened in another process. */
  receive(news: readonly RecordNews[]): void {
    for (const one of news) this.#tellListeners(one)
  }

  /** Another process wants to hear, or none does any more. */
  setWanted(isWanted: boolean): void {
    if (isWanted === this.#isWanted) return
    this.#isWanted = isWanted
    if (isWanted) this.#collect({ is: 'missed' })
    else this.#drop()
  }

  watch(listener: (news: RecordNews) => void): () => void {
    // A listener that is given twice is told twice, and stops one at a time.
    const own = (news: RecordNews) => listener(news)
    this.#listeners.add(own)
    if (this.#listeners.size === 1) this.#wire?.want(true)
    return () => {
      if (!this.#listeners.delete(own)) return
      if (this.#listeners.size === 0) this.#wire?.want(false)
    }
  }

  close(): void {
    this.#listeners.clear()
    this.#drop()
  }

  #tellListeners(news: RecordNews): void {
    for (const listener of [...this.#listeners]) listener(news)
  }

  #collect(news: RecordNews): void {
    const key = news.is === 'put' ? news.record.head.id : news.is === 'removed' ? news.id : ''
    // Behind what waits already: an upload that is removed and made anew is told in that order.
    this.#waiting.delete(key)
    this.#waiting.set(key, news)
    this.#timer ??= setTimeout(() => {
      const waiting = [...this.#waiting.values()]
      this.#drop()
      this.#wire?.send(waiting)
    }, collectMs).unref()
  }

  #drop(): void {
    this.#waiting.clear()
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
