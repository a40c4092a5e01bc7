/**
 * One writer per upload inside one process: the locker of the embedded setup.
 *
 * The one idea: a map of what is held, and at most one waiter beside each entry, because the newest waiter replaces
 * the one before. A release hands the lock straight to the waiter. The lease never ends before the process does, so
 * there is nothing to renew and `lost` never aborts.
 */
import type { Lock as TusLock, Locker as TusLocker } from '@tus/utils'
import type { AcquireOptions, Lock, LockError, Locker, WaitOptions } from '../contracts.ts'
import { lockError } from '../lock-error.ts'
import { PassingMap } from '../passing.ts'
import { newTusLock } from '../tus-lock.ts'
import { LastingLock } from './lasting-lock.ts'

/** Who takes a lock so soon after a holder was asked for it has taken it over, and may be fought for it. */
const rememberedMs = 1000

export interface LocalLockerOptions {
  /** How long `newLock(id).lock()` waits, for code that was written for @tus/server. */
  readonly acquireTimeoutMs?: number
}

export class LocalLocker implements Locker, TusLocker {
  readonly locksStay = true
  readonly #held = new PassingMap<string, LocalLock>()
  readonly #acquireTimeoutMs: number
  /** When holders were asked to release, oldest first; those of the last second matter. */
  readonly #askedAt = new Map<string, number>()
  #lastFence = 0
  #closed = false

  constructor(options: LocalLockerOptions = {}) {
    this.#acquireTimeoutMs = options.acquireTimeoutMs ?? 30_000
  }

  /** How many uploads are held now. */
  get size(): number {
    return this.#held.size
  }

  get isReady(): boolean {
    return !this.#closed
  }

  async start(): Promise<void> {
    this.#closed = false
  }

  /** Ends every wait with `unavailable`. Locks that are held stay held until their holders release them. */
  async close(): Promise<void> {
    this.#closed = true
    for (const held of this.#held.values()) {
      held.waiter?.fail(lockError('unavailable'))
    }
  }

  async acquire(id: string, options: AcquireOptions): Promise<Lock> {
    if (this.#closed) throw lockError('unavailable')
    const holder = this.#held.get(id)
    if (holder === undefined) return this.#give(id, options.onWanted)
    return await this.#wait(holder, options, () => this.#give(id, options.onWanted))
  }

  async untilFree(id: string, options: WaitOptions): Promise<boolean> {
    if (this.#closed) throw lockError('unavailable')
    const holder = this.#held.get(id)
    return holder !== undefined && (await this.#wait(holder, options, () => true))
  }

  /** The @tus/utils form of the same lock. */
  newLock(id: string): TusLock {
    return newTusLock(this, id, this.#acquireTimeoutMs)
  }

  #give(id: string, onWanted: (() => void) | undefined): LocalLock {
    this.#lastFence += 1
    const isTakeOver = performance.now() - (this.#askedAt.get(id) ?? Number.NEGATIVE_INFINITY) < rememberedMs
    const of = { id, fence: this.#lastFence, isTakeOver }
    const lock: LocalLock = new LocalLock(of, onWanted, (how) => this.#released(lock, how))
    this.#held.set(id, lock)
    return lock
  }

  #released(lock: LocalLock, how: 'unused' | undefined): void {
    this.#held.delete(lock.id)
    lock.isUnused = how === 'unused'
    lock.waiter?.take()
  }

  /** Waits for the release of `holder`, and resolves with what `take` gives then. */
  #wait<T>(holder: LocalLock, options: WaitOptions, take: () => T): Promise<T> {
    // Asked for only now: callers may make the signal when somebody looks at it.
    const { signal } = options
    if (signal?.aborted) throw lockError('aborted', signal.reason)
    const askedBefore = this.#askedAt.get(holder.id)
    return new Promise<T>((resolve, reject) => {
      const onAbort = () => waiter.fail(lockError('aborted', signal!.reason))
      const onTimeout = () => waiter.fail(lockError('timeout'))
      const timer = setTimeout(onTimeout, options.timeoutMs)
      const leave = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
        if (holder.waiter === waiter) delete holder.waiter
      }
      const waiter: Waiter = {
        take: () => {
          leave()
          if (holder.isUnused) this.#askedAgain(holder.id, askedBefore)
          else this.#noteAsked(holder.id)
          resolve(take())
        },
        fail: (error) => {
          leave()
          reject(error)
        },
      }
      signal?.addEventListener('abort', onAbort)
      holder.waiter?.fail(lockError('superseded'))
      holder.waiter = waiter
      this.#noteAsked(holder.id)
      holder.want()
    })
  }

  /** Nobody was asked now. */
  #askedAgain(id: string, before: number | undefined): void {
    if (before === undefined) this.#askedAt.delete(id)
    else this.#askedAt.set(id, before)
  }

  #noteAsked(id: string): void {
    const now = performance.now()
    this.#askedAt.delete(id)
    this.#askedAt.set(id, now)
    for (const [old, at] of this.#askedAt) {
      if (now - at < rememberedMs) break
      this.#askedAt.delete(old)
    }
  }
}

/** Somebody who waits for one holder; ends exactly once, by either call. */
interface Waiter {
  take(): void
  fail(error: LockError): void
}

class LocalLock extends LastingLock {
  waiter?: Waiter
  isUnused = false
}
