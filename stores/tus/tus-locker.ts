/**
 * Any @tus `Locker` as a locker of Tidemark's engine, as far as it goes: one holder at a time, who is asked once to
 * release. There is no fence beyond this process and nobody is told of a lost lease (a locker that notices one asks to
 * release), and which waiter is next is up to the locker.
 */
import type { Lock as TusLock, Locker as TusLocker } from '@tus/utils'
import {
  type AcquireOptions,
  type Lock,
  LockError,
  type LockErrorCode,
  type Locker,
  type WaitOptions,
} from '../contracts.ts'
import { statusOf } from './tus-failures.ts'

let lastFence = 0
/** One signal for all locks, that never aborts: what is added to it would only pile up. */
const never = new AbortController().signal
never.addEventListener = () => {}

/** Why somebody stopped waiting. */
type GivenUp = { readonly code: 'timeout' | 'aborted' | 'unavailable'; readonly message: string }

export interface TusLocksOptions {
  /** Told when a lock could not be given back. */
  readonly onUnlockFailed?: (id: string, error: unknown) => void
}

export class TusLocks implements Locker {
  readonly #locker: TusLocker
  readonly #options: TusLocksOptions
  readonly #held = new Set<string>()
  #closing = new AbortController()

  constructor(locker: TusLocker, options: TusLocksOptions = {}) {
    this.#locker = locker
    this.#options = options
  }

  /** How many uploads are held now. */
  get size(): number {
    return this.#held.size
  }

  async start(): Promise<void> {
    if (this.#closing.signal.aborted) this.#closing = new AbortController()
  }

  /** Ends every wait with `unavailable`. Locks that are held stay held until their holders release them. */
  async close(): Promise<void> {
    this.#closing.abort()
  }

  async acquire(id: string, options: AcquireOptions): Promise<Lock> {
    const isTakeOver = this.#held.has(id)
    const wait = new Wait(options, this.#closing.signal)
    try {
      const lock = await this.#take(id, wait, onlyOnce(options.onWanted))
      return this.#hold(id, lock, isTakeOver)
    } finally {
      wait.end()
    }
  }

  /** Such a locker can not be asked: the lock is taken, and given back. */
  async untilFree(id: string, options: WaitOptions): Promise<boolean> {
    const lock = await this.acquire(id, options)
    await lock.release()
    return true
  }

  async #take(id: string, wait: Wait, onWanted: () => void): Promise<TusLock> {
    if (wait.reason) throw wait.reason
    const lock = this.#locker.newLock(id)
    let isLate = false
    const taking = (async () => lock.lock(wait.signal, onWanted))()
    // Lockers may not look at the signal; a lock that comes when nobody waits for it any more goes straight back.
    taking.then(
      () => (isLate ? this.#unlock(id, lock) : undefined),
      () => undefined,
    )
    try {
      await Promise.race([taking, wait.givenUp])
      return lock
    } catch (error) {
      isLate = true
      throw wait.reason ?? lockErrorOf(error)
    }
  }

  #hold(id: string, lock: TusLock, isTakeOver: boolean): Lock {
    this.#held.add(id)
    let isHeld = true
    let releasing: Promise<void> | undefined
    const release = async () => {
      isHeld = false
      this.#held.delete(id)
      await this.#unlock(id, lock)
    }
    return {
      id,
      fence: ++lastFence,
      isTakeOver,
      lost: never,
      isHeld: () => isHeld,
      release: () => {
        releasing ??= release()
        return releasing
      },
    }
  }

  async #unlock(id: string, lock: TusLock): Promise<void> {
    try {
      await lock.unlock()
    } catch (error) {
      this.#options.onUnlockFailed?.(id, error)
    }
  }
}

/** One wait for a lock, and the ways in which it is given up. */
class Wait {
  readonly #stop = new AbortController()
  readonly givenUp: Promise<never>
  readonly #timer: NodeJS.Timeout
  readonly #leave: () => void
  reason: LockError | undefined

  constructor({ timeoutMs, signal }: AcquireOptions, closing: AbortSignal) {
    this.givenUp = new Promise((_, reject) => {
      this.#stop.signal.addEventListener('abort', () => reject(this.reason))
    })
    this.givenUp.catch(() => undefined)
    const onAbort = () => this.#giveUp({ code: 'aborted', message: 'The request was given up.' })
    const onClose = () => this.#giveUp({ code: 'unavailable', message: 'The server is shutting down.' })
    this.#timer = setTimeout(
      () => this.#giveUp({ code: 'timeout', message: 'The upload was not released in time.' }),
      timeoutMs,
    )
    signal?.addEventListener('abort', onAbort)
    closing.addEventListener('abort', onClose)
    this.#leave = () => {
      clearTimeout(this.#timer)
      signal?.removeEventListener('abort', onAbort)
      closing.removeEventListener('abort', onClose)
    }
    if (signal?.aborted) onAbort()
    if (closing.aborted) onClose()
  }

  get signal(): AbortSignal {
    return this.#stop.signal
  }

  end(): void {
    this.#leave()
  }

  #giveUp({ code, message }: GivenUp): void {
    this.reason ??= new LockError(code, message)
    this.#stop.abort()
  }
}

function onlyOnce(call: (() => void) | undefined): () => void {
  let wasCalled = false
  return () => {
    if (wasCalled) return
    wasCalled = true
    call?.()
  }
}

/** @tus/server's own sign for a wait that was too long is `{ status_code: 500 }`; 423 is what ours throw. */
function lockErrorOf(error: unknown): LockError {
  if (error instanceof LockError) return error
  const isWait = [423, 500].includes(statusOf(error) ?? 0)
  const code: LockErrorCode = isWait ? 'timeout' : 'unavailable'
  const message = isWait ? 'The upload was not released in time.' : 'The lock could not be asked for.'
  return new LockError(code, message, { cause: error })
}
