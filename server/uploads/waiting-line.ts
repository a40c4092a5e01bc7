/**
 * Who waits in this process for a place that others have, the longest first. Only the first one asks whether there is
 * room: when somebody here has left a place, and once a second for those on other servers.
 */
import { LockError, type WaitOptions } from '../../stores/contracts.ts'

/** Places of other servers come free without a word. */
const askAgainMs = 1000
/** Who comes then is refused at once: each of those who wait has a connection open. */
const mostWaiting = 100

export class WaitingLine {
  /** By upload. */
  readonly #waiting = new Map<string, Waiter>()

  get isEmpty(): boolean {
    return this.#waiting.size === 0
  }

  /**
   * Asks for a place until there is one, or the time is over, and says which. A newer request for the same upload takes the
   * place in the line; the older one fails with a `LockError` then, as it does when its signal aborts.
   */
  async wait(upload: string, ask: () => Promise<boolean>, options: WaitOptions): Promise<boolean> {
    const older = this.#waiting.get(upload)
    if (!older && this.#waiting.size >= mostWaiting) return false
    const { timeoutMs, signal } = options
    const waiter = new Waiter()
    const until = performance.now() + timeoutMs
    this.#waiting.set(upload, waiter)
    older?.call()
    try {
      for (let leftMs = timeoutMs; leftMs > 0; leftMs = until - performance.now()) {
        await waiter.rest(this.#isFirst(waiter) ? Math.min(leftMs, askAgainMs) : leftMs, signal)
        if (signal?.aborted) throw new LockError('aborted', 'The request ended before it had a place.')
        if (this.#waiting.get(upload) !== waiter)
          throw new LockError('superseded', 'A newer request waits for a place for this upload.')
        if (this.#isFirst(waiter) && (await ask())) return true
      }
      return false
    } finally {
      const wasFirst = this.#isFirst(waiter)
      if (this.#waiting.get(upload) === waiter) this.#waiting.delete(upload)
      if (wasFirst) this.callFirst()
    }
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
  #isCalled = false
  #wake: (() => void) | undefined

  /** Also when it is not at rest just now. */
  call(): void {
    this.#isCalled = true
    this.#wake?.()
  }

  /** Until it is called, the time is over, or the signal aborts. */
  rest(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', wake)
        this.#wake = undefined
        this.#isCalled = false
        resolve()
      }
      const timer = setTimeout(wake, ms)
      signal?.addEventListener('abort', wake)
      this.#wake = wake
      if (this.#isCalled || signal?.aborted) wake()
    })
  }
}
