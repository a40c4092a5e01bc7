/**
 * What runs on this server now, and its end. Whatever is begun here is let go of again, whatever happens; a drain ends
 * all of it at its last byte, and knows when nothing is left.
 */
import type { AcquireOptions, Lock, Locker } from '../../stores/contracts.ts'
import type { Outcome } from '../protocol/messages.ts'
import { type HoldContext, UploadHold } from './hold.ts'
import type { UploadRequest } from './upload-request.ts'

/** Something that is to end when this server does. */
type Running = Pick<UploadHold, 'drain'>

export class RunningHolds {
  readonly #context: HoldContext
  readonly #locker: Locker
  readonly #running = new Set<Running>()
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
    meter.held = this.#running.add(hold).size
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
      this.#letGo(hold)
    }
  }

  /** Runs `work`, which needs no lock. Nothing can end it early, and nothing has to: a drain waits for it. */
  async withoutLock<T>(work: () => Promise<T>): Promise<T> {
    const running = { drain() {} }
    this.#running.add(running)
    try {
      return await work()
    } finally {
      this.#letGo(running)
    }
  }

  lockerOf({ locker }: Pick<UploadRequest, 'locker'>): Locker {
    return locker ?? this.#locker
  }

  /** How long a request waits for others to let go of an upload. */
  waitOptions(request: Pick<UploadRequest, 'signal'>, onWanted?: () => void): AcquireOptions {
    const draining = this.#draining.signal
    return {
      timeoutMs: this.#context.settings.acquireLockTimeoutMs,
      // Only asked for when there is somebody to wait for.
      get signal() {
        return draining.aborted ? request.signal : AbortSignal.any([request.signal, draining])
      },
      ...(onWanted && { onWanted }),
    }
  }

  #letGo(running: Running): void {
    this.#running.delete(running)
    this.#context.meter.held = this.#running.size
    if (this.#running.size === 0) this.#onIdle?.()
  }
}
