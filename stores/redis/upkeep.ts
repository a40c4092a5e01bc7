/**
 * Keeps the leases of one process: one timer renews every held lock, and takes back what could not be released.
 *
 * There is a timer only while there is something to keep.
 */
import { performance } from 'node:perf_hooks'
import { PassingMap } from '../passing.ts'
import type { Clock, Moment } from './lease.ts'
import type { RedisConnection } from './redis-connection.ts'
import type { RedisLock } from './redis-lock.ts'
import { scripts } from './scripts.ts'

export interface UpkeepOptions {
  readonly connection: RedisConnection
  readonly leaseMs: number
  readonly tickMs: number
  readonly clock: Clock
}

/** A token that may still own something in Redis, until its lease is over there by itself. */
interface Leftover {
  readonly id: string
  readonly untilMs: number
  readonly how: Ending
}

/**
 * - `isUncertain`: the command that took it may still be on its way, so finding nothing proves nothing
 * - `isUnused`: nobody used the lock when it was wanted, so it is not taken over
 */
interface Ending {
  readonly isUncertain?: boolean
  readonly isUnused?: boolean
}

const SUBSCRIBER_CHECK_TICKS = 5

export class Upkeep {
  readonly #options: UpkeepOptions
  readonly #held = new PassingMap<string, RedisLock>()
  readonly #leftovers = new Map<string, Leftover>()
  #timer: NodeJS.Timeout | undefined
  #ticks = 0

  constructor(options: UpkeepOptions) {
    this.#options = options
  }

  /** Locks that are held, and releases that are still tried. */
  get size(): number {
    return this.#held.size + this.#leftovers.size
  }

  get(token: string): RedisLock | undefined {
    return this.#held.get(token)
  }

  add(lock: RedisLock): void {
    this.#held.set(lock.token, lock)
    this.#keepTime()
  }

  remove(lock: RedisLock): void {
    this.#held.delete(lock.token)
    this.#keepTime()
  }

  /** Tries to take back what belongs to `token` now, and in the background for as long as it could matter. */
  async release(id: string, token: string, how: Ending = {}): Promise<void> {
    const untilMs = performance.now() + this.#options.leaseMs
    const leftover = { id, untilMs, how }
    if (await this.#tryRelease(token, leftover)) return
    this.#leftovers.set(token, leftover)
    this.#keepTime()
  }

  /** One round of everything, now: Redis may have come back, empty. */
  tick(): void {
    if (this.size === 0) return
    this.#ticks += 1
    if (this.#ticks % SUBSCRIBER_CHECK_TICKS === 0) this.#options.connection.checkSubscriber()
    const sentAt = this.#options.clock()
    this.#options.connection.batch(() => {
      for (const lock of this.#held.values()) void this.#renew(lock, sentAt)
      for (const [token, leftover] of this.#leftovers) void this.#retryRelease(token, leftover)
    })
  }

  /** Stops the timer. What is held is lost to its holder, and ends in Redis with its lease: somebody may still write. */
  close(): void {
    for (const lock of this.#held.values()) lock.endanger()
    this.#held.clear()
    this.#leftovers.clear()
    this.#keepTime()
  }

  async #renew(lock: RedisLock, sentAt: Moment): Promise<void> {
    if (lock.lease.remainingMs() <= 1.5 * this.#options.tickMs) lock.endanger()
    if (lock.isInDanger) return
    const { connection, leaseMs } = this.#options
    let reply: unknown
    try {
      reply = await connection.runScript(
        scripts.renew,
        [connection.keys.lock(lock.id)],
        [lock.token, leaseMs],
      )
    } catch {
      return // The lease goes on until it is in danger; the connection itself says why it is away.
    }
    if (!this.#held.has(lock.token)) return
    if (reply !== 'lost' && !lock.lease.renew(sentAt)) lock.lose()
    else this.learn(lock, reply)
  }

  /** What Redis says of a lock: `lost`, `held` or `wanted`. */
  learn(lock: RedisLock, reply: unknown): void {
    if (!this.#held.has(lock.token)) return
    if (reply === 'lost') lock.lose()
    else if (reply === 'wanted') lock.want()
  }

  async #retryRelease(token: string, leftover: Leftover): Promise<void> {
    const isOver = performance.now() >= leftover.untilMs
    if (!isOver && !(await this.#tryRelease(token, leftover))) return
    this.#leftovers.delete(token)
    this.#keepTime()
  }

  async #tryRelease(token: string, { id, how }: Leftover): Promise<boolean> {
    const { connection } = this.#options
    const { keys } = connection
    try {
      const reply = await connection.runScript(
        scripts.release,
        [keys.lock(id), keys.wait(id), keys.fence(id)],
        [token, how.isUnused ? 'unused' : ''],
      )
      return reply === 1 || how.isUncertain !== true
    } catch {
      return false
    }
  }

  #keepTime(): void {
    if (this.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
    } else {
      this.#timer ??= setInterval(() => this.tick(), this.#options.tickMs)
    }
  }
}
