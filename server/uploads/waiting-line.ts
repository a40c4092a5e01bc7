/**
 * Who waits in this process for a place that others have, the longest first. Only the first one asks whether there is
 * room: when somebody here has left a place, and once a second for those on other servers.
 */
import { LockError } from '../../stores/contracts.ts'

/** Places of other servers come free without a word. */
const askAgainMs = 1000
/** Who comes then is refused at once: each of those who wait has a connection open. */
const mostWaiting = 100

export interface Waiting {
  /** By `performance.now()`. */
  readonly until: number
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal
}

export class WaitingLine {
  /** By upload. */
  readonly #waiting = new Map<string, Waiter>()
  #isClosed = false

  get isEmpty(): boolean {
    return this.#waiting.size === 0
  }

  /**
   * Asks for a place until there is one, or the time is over, and says which. A newer request for the same upload takes the
   * place in the line; the older one fails with a `LockError` then, as it does when its signal aborts, or the line is closed.
   */
  async wait(upload: string, ask: () => Promise<boolean>, { until, signal }: Waiting): Promise<boolean> {
    const older = this.#waiting.get(upload)
    if (!older && this.#waiting.size >= mostWaiting) return false
    const waiter = new Waiter()
    this.#waiting.set(upload, waiter)
    older?.call()
    const isReplaced = () => this.#waiting.get(upload) !== waiter
    try {
      for (let leftMs = until - performance.now(); leftMs > 0; leftMs = until - performance.now()) {
        if (this.#isClosed) throw new LockError('unavailable', 'The server is shutting down.')
        await waiter.rest(this.#isFirst(waiter) ? Math.min(leftMs, askAgainMs) : leftMs, signal)
        if (signal.aborted) throw new LockError('aborted', 'The request ended before it had a place.')
        if (isReplaced() || waiter.isDismissed)
          throw new LockError('superseded', 'A newer request wants this upload.')
        if (!this.#isClosed && this.#isFirst(waiter) && (await ask())) return true
      }
      return false
    } finally {
      // Who took this place in the line may not have heard of what this one was called for.
      const mayHaveMissed = isReplaced() || this.#isFirst(waiter)
      if (!isReplaced()) this.#waiting.delete(upload)
      if (mayHaveMissed) this.callFirst()
    }
  }

  /** Ends the wait for this upload with a `LockError`, as a newer request would. */
  dismiss(upload: string): void {
    const waiter = this.#waiting.get(upload)
    if (!waiter) return
    waiter.isDismissed = true
    waiter.call()
  }

  /** Ends all waits, now and later. */
  close(): void {
    this.#isClosed = true
    for (const waiter of this.#waiting.values()) waiter.call()
  }

  /** To be called when there may be a place. */
  callFirst(): void {
    const [first] = this.#waiting.values()
    first?.call()
  }

  #isFirst(waiter: Waiter): boolean {
    const [first] = this.#waiting.values()
    return first === waiter
  }
}

class Waiter {
  isDismissed = false
  #isCalled = false
  #wake: (() => void) | undefined

  /** Also when it is not at rest just now. */
  call(): void {
    this.#isCalled = true
    this.#wake?.()
  }

  /** Until it is called, the time is over, or the signal aborts. */
  rest(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', wake)
        this.#wake = undefined
        this.#isCalled = false
        resolve()
      }
      const timer = setTimeout(wake, ms)
      signal.addEventListener('abort', wake)
      this.#wake = wake
      if (this.#isCalled || signal.aborted) wake()
    })
  }
}
