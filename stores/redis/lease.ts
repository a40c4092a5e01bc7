/**
 * How long a holder may believe that its lock stands. Pure: the clocks are handed in.
 *
 * The lease is counted from before the request was sent, less a margin, so it ends here before it ends in Redis.
 * Two clocks judge it, and the first to say so ends it: the monotonic one stands still while a machine is suspended,
 * the wall clock may be set back. A lease that ended never stands again.
 */
export interface Moment {
  readonly monotonicMs: number
  readonly wallMs: number
}
export type Clock = () => Moment

export const systemClock: Clock = () => ({ monotonicMs: performance.now(), wallMs: Date.now() })

export class Lease {
  readonly #clock: Clock
  readonly #usableMs: number
  #since: Moment
  #ended = false

  /** `since` is the moment before the request was sent. */
  constructor(clock: Clock, since: Moment, leaseMs: number, marginMs: number) {
    this.#clock = clock
    this.#usableMs = leaseMs - marginMs
    this.#since = since
  }

  /** What is left; 0 once it ended. */
  remainingMs(): number {
    if (this.#ended) return 0
    const now = this.#clock()
    const usedMs = Math.max(now.monotonicMs - this.#since.monotonicMs, now.wallMs - this.#since.wallMs)
    if (usedMs >= this.#usableMs) this.#ended = true
    return this.#ended ? 0 : this.#usableMs - usedMs
  }

  stands(): boolean {
    return this.remainingMs() > 0
  }

  /** A renewal that was sent at `since` has been granted. False when the lease had ended meanwhile: it stays ended. */
  renew(since: Moment): boolean {
    if (!this.stands()) return false
    this.#since = since
    return this.stands()
  }

  end(): void {
    this.#ended = true
  }
}
