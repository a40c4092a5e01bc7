/**
 * How long a holder may believe that its lock stands. Pure: the clocks are handed in.
 *
 * The lease is counted from before the request was sent, less a margin, so it ends here before it ends in Redis.
 * The time for which a machine was suspended counts, and the wall clock does not: a lease neither ends nor lives on
 * because somebody set it. A lease that ended never stands again.
 */
import { bootClock } from '../clock.ts'

export interface Moment {
  /** Stands still while the machine is suspended; for waits. */
  readonly monotonicMs: number
  /** Goes on meanwhile. */
  readonly bootMs: number
}
export type Clock = () => Moment

const bootMs = bootClock()

export const systemClock: Clock = () => ({ monotonicMs: performance.now(), bootMs: bootMs() })

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
    const usedMs = Math.max(now.monotonicMs - this.#since.monotonicMs, now.bootMs - this.#since.bootMs)
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
