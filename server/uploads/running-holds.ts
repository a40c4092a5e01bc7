/**
 * What runs on this server now, and its end. Whatever is begun here is let go of again, whatever happens; a drain ends
 * all of it at its last byte, and knows when nothing is left.
 */
import type { AcquireOptions, Lock, Locker } from '../../stores/contracts.ts'
import { PassingSet, type Place } from '../../stores/passing.ts'
import type { Outcome } from '../protocol/messages.ts'
import { type HoldContext, UploadHold } from './hold.ts'
import type { UploadRequest } from './upload-request.ts'

/** The request for which an upload is waited for. */
type Waiter = Pick<UploadRequest, 'signal' | 'isGone'>
/** Something that is to end when this server does. */
type Running = Pick<UploadHold, 'drain'>

export class RunningHolds {
  readonly #context: HoldContext
  readonly #locker: Locker
  readonly #running = new PassingSet<Running>()
  readonly #draining = new AbortController()
  #drained: Promise<void> | undefined
  #onIdle: (() => void) | undefined

  constructor(context: HoldContext, locker: Locker) {
    this.#context = context
    this.#locker = locker
  }

  /** Aborts when nothing new is taken any more. */
  get draining(): AbortSignal {
    return this.#draining.signal
  }

  /** Takes nothing new, ends running bodies at their last byte; settles when every upload was let go. */
  drain(): Promise<void> {
    this.#draining.abort()
    for (const running of this.#running) running.drain()
    this.#drained ??= new Promise((resolve) => {
      this.#onIdle = resolve
    })
    if (this.#running.size === 0) this.#onIdle?.()
    return this.#drained
  }

  /** Runs `work` as the one holder of an upload; lets go of everything whatever happens. */
  async holding(
    id: string,
    request: UploadRequest,
    work: (hold: UploadHold, lock: Lock) => Promise<Outcome>,
  ): Promise<Outcome> {
    const { meter } = this.#context
    const hold = new UploadHold(this.#context, id)
    const place = this.#running.add(hold)
    meter.held = this.#running.size
    const askedAt = performance.now()
    let isUnlocked = true
    try {
      const options = this.waitOptions(request, () => hold.onWanted())
      const lock = await this.lockerOf(request).acquire(id, options)
      isUnlocked = false
      meter.locked(performance.now() - askedAt, lock.isTakeOver)
      hold.begin(lock)
      if (this.draining.aborted) hold.drain()
      return await work(hold, lock)
    } finally {
      if (isUnlocked) meter.lockWaits.add(performance.now() - askedAt)
      await hold.release()
      this.#letGo(place)
    }
  }

  /** Runs `work`, which needs no lock. Nothing can end it early, and nothing has to: a drain waits for it. */
  async withoutLock<T>(work: () => Promise<T>): Promise<T> {
    const place = this.#running.add({ drain() {} })
    try {
      return await work()
    } finally {
      this.#letGo(place)
    }
  }

  lockerOf({ locker }: Pick<UploadRequest, 'locker'>): Locker {
    return locker ?? this.#locker
  }

  /** How long a request waits for others to let go of an upload. */
  waitOptions(request: Waiter, onWanted?: () => void): AcquireOptions {
    return new Patience(this.#context.settings.acquireLockTimeoutMs, request, this.#draining.signal, onWanted)
  }

  #letGo(place: Place<Running>): void {
    place.leave()
    this.#context.meter.held = this.#running.size
    if (this.#running.size === 0) this.#onIdle?.()
  }
}

/**
 * Makes the signal only when there is somebody to wait for. As an object literal its accessor would be a new hidden class
 * for each request (docs/decisions/garbage-of-requests.md).
 */
class Patience implements AcquireOptions {
  readonly timeoutMs: number
  readonly onWanted?: () => void
  readonly mayStay = true
  readonly #request: Waiter
  readonly #draining: AbortSignal
  #signal: AbortSignal | undefined

  constructor(timeoutMs: number, request: Waiter, draining: AbortSignal, onWanted: (() => void) | undefined) {
    this.timeoutMs = timeoutMs
    this.#request = request
    this.#draining = draining
    if (onWanted) this.onWanted = onWanted
  }

  get isAborted(): boolean {
    return this.#request.isGone ?? this.#request.signal.aborted
  }

  get signal(): AbortSignal {
    const { signal } = this.#request
    this.#signal ??= this.#draining.aborted ? signal : AbortSignal.any([signal, this.#draining])
    return this.#signal
  }
}
