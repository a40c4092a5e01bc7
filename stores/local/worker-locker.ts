/**
 * One writer per upload, over all workers of one primary, which keeps the locks (LockServer).
 *
 * The one idea: a lock that is held here can not be lost. The primary gives it to nobody else before this process lets
 * go or has exited; so there is no lease, nothing is renewed, and `lost` never aborts.
 */
import type { AcquireOptions, Lock, LockErrorCode, Locker, WaitOptions } from '../contracts.ts'
import { lockError, refuseAborted } from '../lock-error.ts'
import { PassingMap } from '../passing.ts'
import { LastingLock } from './lasting-lock.ts'
import { Batch, type LockReply, type LockRequest } from './lock-messages.ts'

/** A wish that was sent and is not answered yet. */
interface Waiting {
  /** Called once, with what was granted. */
  granted(reply: LockReply): void
  fail(code: LockErrorCode): void
  want(): void
  /** Somebody else has it. */
  hasToWait(): void
}

type HeldReply = Extract<LockReply, readonly ['held', ...unknown[]]>

export class WorkerLocker implements Locker {
  readonly locksStay = true
  readonly #requests: Batch<LockRequest>
  readonly #waiting = new PassingMap<number, Waiting>()
  readonly #held = new PassingMap<number, LastingLock>()
  #lastTurn = 0
  #isClosed = false

  /** `send` takes requests to the primary, in order; its replies are given to `receive`. */
  constructor(send: (requests: readonly LockRequest[]) => void) {
    this.#requests = new Batch(send)
  }

  /** What this process holds or waits for. */
  get size(): number {
    return this.#waiting.size + this.#held.size
  }

  get isReady(): boolean {
    return !this.#isClosed
  }

  async start(): Promise<void> {
    this.#isClosed = false
  }

  /** Ends every wait with `unavailable`. Locks that are held stay held until their holders release them. */
  async close(): Promise<void> {
    this.#isClosed = true
    for (const waiting of [...this.#waiting.values()]) waiting.fail('unavailable')
  }

  async acquire(id: string, options: AcquireOptions): Promise<Lock> {
    let isWanted = false
    const onWanted = () => {
      isWanted = true
    }
    return this.#ask('acquire', id, options, onWanted, (_turn, reply) => {
      const lock = this.#hold(id, reply as HeldReply, options.onWanted)
      if (isWanted) lock.want()
      return lock
    })
  }

  /** By itself, so that a lock which is kept for long does not keep the request that asked for it. */
  #hold(id: string, [, turn, fence, isTakeOver]: HeldReply, onWanted: (() => void) | undefined): LastingLock {
    const lock = new LastingLock({ id, fence, isTakeOver }, onWanted, (how) => this.#release(turn, how))
    this.#held.set(turn, lock)
    return lock
  }

  async untilFree(id: string, options: WaitOptions): Promise<boolean> {
    return this.#ask(
      'wait',
      id,
      options,
      () => {},
      (_turn, reply) => (reply as Extract<LockReply, readonly ['free', ...unknown[]]>)[2],
    )
  }

  /** What the primary said. */
  receive(replies: readonly LockReply[]): void {
    for (const reply of replies) {
      const [what, turn] = reply
      const waiting = this.#waiting.get(turn)
      if (what === 'wanted') {
        if (waiting) waiting.want()
        else this.#held.get(turn)?.want()
      } else if (what === 'waiting') waiting?.hasToWait()
      else if (what === 'failed') waiting?.fail(reply[2])
      else waiting?.granted(reply)
    }
  }

  /** Resolves with what `take` makes of the grant, at once: what is said next may be of it. */
  #ask<T>(
    wish: 'acquire' | 'wait',
    id: string,
    options: WaitOptions,
    want: () => void,
    take: (turn: number, reply: LockReply) => T,
  ): Promise<T> {
    if (this.#isClosed) throw lockError('unavailable')
    refuseAborted(options)
    this.#lastTurn += 1
    const turn = this.#lastTurn
    return new Promise((resolve, reject) => {
      let signal: AbortSignal | undefined
      const leave = () => {
        signal?.removeEventListener('abort', onAbort)
        this.#waiting.delete(turn)
      }
      const fail = (code: LockErrorCode, cause?: unknown) => {
        leave()
        // The primary may have granted it meanwhile; to one that failed there this says nothing.
        this.#requests.add(['end', turn])
        reject(lockError(code, cause))
      }
      const onAbort = () => fail('aborted', signal?.reason)
      const granted = (reply: LockReply) => {
        leave()
        resolve(take(turn, reply))
      }
      const hasToWait = () => {
        signal = options.signal
        if (signal?.aborted) onAbort()
        else signal?.addEventListener('abort', onAbort)
      }
      this.#waiting.set(turn, { granted, fail, want, hasToWait })
      this.#requests.add([wish === 'wait' ? 'wait' : 'acquire', turn, id, options.timeoutMs])
    })
  }

  #release(turn: number, how: 'unused' | undefined): void {
    this.#held.delete(turn)
    this.#requests.add(how ? ['end', turn, how] : ['end', turn])
  }
}
