/**
 * Uploads that stay open from one request to the next, with their lock: clients that send in pieces come back at once, and
 * then nothing has to be locked, looked for, read or opened. Until somebody else wants the upload, or for a few seconds.
 */
import type { Appender, Lock, UploadRecord } from '../../stores/contracts.ts'
import { PassingMap } from '../../stores/passing.ts'
import type { UploadHold } from './hold.ts'
import { ReturnRate } from './return-rate.ts'

/** How long an upload stays open that nobody uses; up to twice as long. */
const stayMs = 2_000
/** So many stay open; each is two files. */
const mostWarm = 256

/** The lock of an upload, in the hands of one request after the other, or of none. */
export class Grip {
  /** Set when it was had. */
  lock!: Lock
  #rate: ReturnRate | undefined
  #hold: UploadHold | undefined
  #appender: Appender | undefined
  #isWanted = false
  #onWanted: (() => void) | undefined

  constructor(hold?: UploadHold) {
    this.#hold = hold
  }

  get isWanted(): boolean {
    return this.#isWanted
  }

  /** Whether it may stay when its request is done. */
  get mayStay(): boolean {
    return !this.#isWanted && this.lock.mayStay === true
  }

  /** Whose it is now. */
  give(hold: UploadHold): Appender | undefined {
    const appender = this.#appender
    this.#rate?.came()
    this.#rate = undefined
    this.#hold = hold
    this.#appender = this.#onWanted = undefined
    return appender
  }

  /** It is nobody's; `rate` is told whether somebody comes back for it, and `onWanted` called when somebody else wants it. */
  stay(appender: Appender, rate: ReturnRate, onWanted: () => void): void {
    this.#hold = undefined
    this.#rate = rate
    this.#appender = appender
    this.#onWanted = onWanted
  }

  /** As it stands on disk, while nobody has it and it may be gone on with. */
  get record(): UploadRecord | undefined {
    return this.mayStay && this.#appender?.mayStay ? this.#appender.record : undefined
  }

  /** For the locker. */
  readonly wanted = (): void => {
    this.#isWanted = true
    this.#hold?.onWanted()
    this.#onWanted?.()
  }

  /** Lets go of what stayed. */
  async end(): Promise<void> {
    this.#rate?.stayedAway()
    await this.#appender?.close()
    await this.lock.release('unused')
  }
}

export class WarmUploads {
  /** Runs what lets go, so that a drain waits for it. */
  readonly #run: (end: () => Promise<void>) => void
  /** How many are sent to once they were made, and how many after a piece. */
  readonly rates = { made: new ReturnRate(), begun: new ReturnRate() }
  /** Since the last look, and before it. */
  #young = new PassingMap<string, Grip>()
  #old = new PassingMap<string, Grip>()
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(run: (end: () => Promise<void>) => void) {
    this.#run = run
  }

  /** Keeps an upload that nobody uses any more. False where its lock has to be given up. */
  keep(grip: Grip, appender: Appender, rate: ReturnRate): boolean {
    if (this.#isClosed || !grip.mayStay) return false
    const { id } = grip.lock
    grip.stay(appender, rate, () => this.#end(this.take(id)))
    if (this.#young.size >= mostWarm) this.#age()
    this.#young.set(id, grip)
    this.#timer ??= setInterval(() => this.#age(), stayMs).unref()
    return true
  }

  /** As it stands on disk; undefined where it is not warm. */
  record(id: string): UploadRecord | undefined {
    return (this.#young.get(id) ?? this.#old.get(id))?.record
  }

  /** Whoever takes it has it, and looks whether it may go on with it. */
  take(id: string): Grip | undefined {
    const grip = this.#young.get(id) ?? this.#old.get(id)
    this.#young.delete(id)
    this.#old.delete(id)
    return grip
  }

  /** Nothing stays any more. */
  close(): void {
    this.#isClosed = true
    this.#age()
    this.#age()
  }

  #age(): void {
    const ended = this.#old
    this.#old = this.#young
    this.#young = new PassingMap()
    for (const grip of ended.values()) this.#end(grip)
    if (this.#old.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #end(grip: Grip | undefined): void {
    if (grip) this.#run(() => grip.end())
  }
}
