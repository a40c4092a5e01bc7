/**
 * The time that all servers of one Redis agree on: Redis's, asked now and then and advanced by this machine's boot
 * clock in between. While Redis is away it goes on from the last answer; a Redis whose clock jumps is followed slowly.
 */
import { bootClock, steadyClock } from '../clock.ts'
import type { Now } from '../contracts.ts'
import type { RedisConnection } from './redis-connection.ts'

export interface RedisClockOptions {
  readonly connection: RedisConnection
  /** Between questions. Default 30,000: one command, for clocks that part by a millisecond meanwhile. */
  readonly askEveryMs?: number
  readonly boot?: () => number
}

export class RedisClock {
  readonly now: Now
  readonly #timer: NodeJS.Timeout

  private constructor(now: Now, timer: NodeJS.Timeout) {
    this.now = now
    this.#timer = timer
  }

  /** Asks for the first time; fails with `unavailable` when there is no answer. */
  static async start(options: RedisClockOptions): Promise<RedisClock> {
    const { connection, askEveryMs = 30_000, boot = bootClock() } = options
    const ask = async (): Promise<number> => {
      const sentMs = boot()
      const [seconds, microseconds] = await connection.run((redis) => redis.time())
      // Half of the way there is the best guess; commands time out before it could be off by more than is followed at once.
      return Number(seconds) * 1000 + Number(microseconds) / 1000 - (sentMs + boot()) / 2
    }
    let aheadMs = await ask()
    const askAgain = () => {
      // What Redis said before stands meanwhile; the connection itself says why it is away.
      ask().then(
        (answer) => {
          aheadMs = answer
        },
        () => undefined,
      )
    }
    const timer = setInterval(askAgain, askEveryMs).unref()
    return new RedisClock(
      steadyClock((bootMs) => bootMs + aheadMs, boot),
      timer,
    )
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
