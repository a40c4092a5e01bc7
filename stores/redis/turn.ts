/**
 * One acquisition's place in the queue: what it is told while it asks or waits, kept until it listens.
 */

/** `ask`: ask again now; `nothing`: the time is over. The others end the wait for good, and the first of them stays. */
export type News = 'nothing' | 'ask' | End
export type End = 'superseded' | 'aborted' | 'closed'

export class Turn {
  #signal: AbortSignal | undefined
  readonly #onAbort = () => this.end('aborted')
  #end: End | undefined
  #shouldAsk = false
  #wake: (() => void) | undefined
  /** Whether somebody already wants the lock that this turn is about to be given. */
  isWanted = false

  /** Ends when the signal aborts, now or later; a second call does nothing. */
  endWith({ signal }: { readonly signal?: AbortSignal }): void {
    if (this.#signal !== undefined) return
    this.#signal = signal
    if (signal?.aborted) this.end('aborted')
    else signal?.addEventListener('abort', this.#onAbort)
  }

  isEnded(by: End): boolean {
    return this.#end === by
  }

  want(): void {
    this.isWanted = true
  }

  askAgain(): void {
    this.#shouldAsk = true
    this.#wake?.()
  }

  end(by: End): void {
    this.#end ??= by
    this.#wake?.()
  }

  /** The next news, for at most `forMs`. */
  async wait(forMs: number): Promise<News> {
    if (this.#end === undefined && !this.#shouldAsk) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, forMs)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = undefined
    }
    if (this.#end !== undefined) return this.#end
    if (!this.#shouldAsk) return 'nothing'
    this.#shouldAsk = false
    return 'ask'
  }

  close(): void {
    this.#signal?.removeEventListener('abort', this.#onAbort)
  }
}
