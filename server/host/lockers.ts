/**
 * The option `locker` as @tus/server documents it: a locker, a promise of one, or a function that gives one for each
 * request. Tidemark's own lockers are used as they are, any other through its @tus methods. Each is started when it is
 * first needed, and all are closed with the server.
 */
import type { Locker as TusLocker } from '@tus/utils'
import type { ServerRequest } from 'srvx'
import {
  type AcquireOptions,
  type Lock,
  LockError,
  type Locker,
  type WaitOptions,
} from '../../stores/contracts.ts'
import { TusLocks } from '../../stores/tus/tus-locker.ts'

export type LockerOption<L = Locker | TusLocker> =
  | L
  | Promise<L>
  | ((request: ServerRequest) => L | Promise<L>)

export interface LockersOptions {
  readonly onUnlockFailed: (id: string, error: unknown) => void
}

/** What the engine uses in the place of what was given. */
interface Known {
  readonly locker: Locker
  readonly started: Promise<void>
}

/** The engine's locker; it also says which one a request asked for. */
export class Lockers implements Locker {
  readonly #option: LockerOption
  readonly #options: LockersOptions
  readonly #known = new Map<object, Known>()

  constructor(option: LockerOption, options: LockersOptions) {
    this.#option = option
    this.#options = options
    // Whoever needs it is told; until then nobody waits for it.
    if (option instanceof Promise) option.catch(() => undefined)
  }

  /** The locker for one request; undefined when all requests share one. */
  async of(exchange: { readonly request: ServerRequest }): Promise<Locker | undefined> {
    if (typeof this.#option !== 'function') return undefined
    return this.#use(await this.#option(exchange.request))
  }

  /** Only where all requests share lockers that are Tidemark's own. */
  get isReady(): boolean {
    if (typeof this.#option === 'function') return false
    for (const { locker } of this.#known.values()) if (locker.isReady !== true) return false
    return this.#known.size > 0
  }

  get locksStay(): boolean {
    return this.#only?.locksStay === true
  }

  get acquireNew(): Locker['acquireNew'] {
    return this.#only?.acquireNew?.bind(this.#only)
  }

  async start(): Promise<void> {
    if (typeof this.#option !== 'function') await this.#use(await this.#option)
  }

  async close(): Promise<void> {
    const known = [...this.#known.values()]
    this.#known.clear()
    for (const { locker } of known) await locker.close()
  }

  /**
   * For what is done without a request, and where all requests share one locker. Where they do not, it takes the lock of
   * every locker that is in use, since any of them may guard the upload.
   */
  async acquire(id: string, options: AcquireOptions): Promise<Lock> {
    const [first, ...more] = this.#inUse()
    const locks = [await first.locker.acquire(id, options)]
    try {
      for (const { locker } of more) locks.push(await locker.acquire(id, options))
    } catch (error) {
      await releaseAll(locks)
      throw error
    }
    return locks.length === 1 ? locks[0]! : asOne(id, locks)
  }

  async untilFree(id: string, options: WaitOptions): Promise<boolean> {
    let hadToWait = false
    for (const { locker } of this.#inUse()) if (await locker.untilFree(id, options)) hadToWait = true
    return hadToWait
  }

  /** Where no second one is in use. */
  get #only(): Locker | undefined {
    const [first, ...more] = this.#known.values()
    return more.length === 0 ? first?.locker : undefined
  }

  #inUse(): [Known, ...Known[]] {
    const [first, ...more] = this.#known.values()
    if (first === undefined) throw new LockError('unavailable', 'No locker is in use.')
    return [first, ...more]
  }

  async #use(given: Locker | TusLocker): Promise<Locker> {
    let known = this.#known.get(given)
    if (!known) {
      const locker = 'acquire' in given ? given : new TusLocks(given, this.#options)
      known = { locker, started: locker.start() }
      this.#known.set(given, known)
    }
    try {
      await known.started
    } catch (error) {
      // One that comes later is started by the next request.
      if (this.#known.get(given) === known) this.#known.delete(given)
      throw error
    }
    return known.locker
  }
}

function asOne(id: string, locks: readonly Lock[]): Lock {
  return {
    id,
    fence: Math.max(...locks.map(({ fence }) => fence)),
    isTakeOver: locks.some(({ isTakeOver }) => isTakeOver),
    lost: AbortSignal.any(locks.map(({ lost }) => lost)),
    isHeld: () => locks.every((lock) => lock.isHeld()),
    release: () => releaseAll(locks),
  }
}

async function releaseAll(locks: readonly Lock[]): Promise<void> {
  for (const lock of locks) await lock.release()
}
