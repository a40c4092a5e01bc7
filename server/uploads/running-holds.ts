/**
 * What runs on this server now, and its end. Whatever is begun here is let go of again, whatever happens; a drain ends
 * all of it at its last byte, and knows when nothing is left.
 */
import type { AcquireOptions, Appender, Lock, Locker, UploadRecord } from '../../stores/contracts.ts'
import { PassingSet, type Place } from '../../stores/passing.ts'
import type { Outcome } from '../protocol/messages.ts'
import { asLockOrNothing } from './hidden-locks.ts'
import { type HoldContext, UploadHold } from './hold.ts'
import type { UploadRequest } from './upload-request.ts'
import { Grip, WarmUploads } from './warm-uploads.ts'

/** The request for which an upload is waited for. */
type Waiter = Pick<UploadRequest, 'signal' | 'isGone'>
/** What is done with an upload that is held. */
type Work = (hold: UploadHold, lock: Lock) => Promise<Outcome>
/** Keeps a new upload open. */
export interface Keeping {
  keep(appender: Appender): boolean
  end(): Promise<void>
}
/** Something that is to end when this server does. */
type Running = Pick<UploadHold, 'drain'>

export class RunningHolds {
  readonly #context: HoldContext
  readonly #locker: Locker
  readonly #running = new PassingSet<Running>()
  readonly #draining = new AbortController()
  readonly #warm = new WarmUploads((end) => void this.withoutLock(end))
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
    this.#warm.close()
    for (const running of this.#running) running.drain()
    this.#drained ??= new Promise((resolve) => {
      this.#onIdle = resolve
    })
    if (this.#running.size === 0) this.#onIdle?.()
    return this.#drained
  }

  /** An upload that nobody uses, and that is open here: as it stands on disk. */
  warm(id: string): UploadRecord | undefined {
    return this.#warm.record(id)
  }

  /** Runs `work` as the one holder of an upload; lets go of everything whatever happens. */
  holding(id: string, request: UploadRequest, work: Work): Promise<Outcome> {
    return this.#holding(id, request, work, {})
  }

  /** The same for work that may go on where another request stopped, and leaves it open for the next one. */
  appending(id: string, request: UploadRequest, work: Work): Promise<Outcome> {
    // A locker of its own may not be that of the next request.
    if (request.locker !== undefined) return this.#holding(id, request, work, {})
    return this.#holding(id, request, work, { goesOn: true, keeps: this.#warm.rates.begun.pays() })
  }

  /** Whether `keepingNew` puts the record too, in the same step. */
  get putsNew(): boolean {
    return this.#locker.acquireNew !== undefined
  }

  /**
   * For a new upload that is to stay open for its first bytes; undefined where that does not pay, or its lock can not be
   * had, and then nothing was put. `keep` keeps it; `end` is to be called in any case.
   */
  async keepingNew(draft: UploadRecord, expiresAt: number | undefined): Promise<Keeping | undefined> {
    const rate = this.#warm.rates.made
    if (!this.#locker.locksStay || !rate.pays()) return undefined
    const grip = new Grip()
    const options = { timeoutMs: 0, signal: this.#draining.signal, onWanted: grip.wanted }
    const lock = await asLockOrNothing(
      this.#locker.acquireNew?.(draft, expiresAt, options) ?? this.#locker.acquire(draft.head.id, options),
    )
    if (lock === undefined) return undefined
    grip.lock = lock
    let isKept = false
    return {
      keep: (appender) => {
        isKept = this.#warm.keep(grip, appender, rate)
        return isKept
      },
      end: async () => {
        if (!isKept) await lock.release('unused')
      },
    }
  }

  async #holding(
    id: string,
    request: UploadRequest,
    work: Work,
    { goesOn = false, keeps = false }: { goesOn?: boolean; keeps?: boolean },
  ): Promise<Outcome> {
    const { meter } = this.#context
    let grip: Grip | undefined
    const keep = keeps
      ? (appender: Appender) => this.#warm.keep(grip!, appender, this.#warm.rates.begun)
      : undefined
    const hold = new UploadHold(this.#context, id, keep)
    const place = this.#running.add(hold)
    meter.held = this.#running.size
    const askedAt = performance.now()
    try {
      grip = (await this.#goOn(id, goesOn)) ?? (await this.#acquire(id, hold, request))
      const stayed = grip.give(hold)
      const { lock } = grip
      meter.locked(performance.now() - askedAt, lock.isTakeOver && stayed === undefined)
      hold.begin(lock, stayed)
      if (grip.isWanted) hold.onWanted()
      if (this.draining.aborted) hold.drain()
      return await work(hold, lock)
    } finally {
      if (grip === undefined) meter.lockWaits.add(performance.now() - askedAt)
      await hold.release()
      this.#letGo(place)
    }
  }

  /** What stayed open here, for a request that can use it; for any other it is let go of. */
  async #goOn(id: string, canUse: boolean): Promise<Grip | undefined> {
    const warm = this.#warm.take(id)
    if (warm === undefined || (canUse && warm.mayStay)) return warm
    await warm.end()
    return undefined
  }

  async #acquire(id: string, hold: UploadHold, request: UploadRequest): Promise<Grip> {
    const grip = new Grip(hold)
    grip.lock = await this.lockerOf(request).acquire(id, this.waitOptions(request, grip.wanted))
    return grip
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
