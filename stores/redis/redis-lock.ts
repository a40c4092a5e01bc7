/**
 * One held lock in this process: a token in Redis, and the lease by which this machine judges it.
 *
 * It only keeps state and tells its holder; RedisLocker speaks to Redis for it.
 */
import type { Lock, UploadRecord } from '../contracts.ts'
import type { Lease } from './lease.ts'

/** What a lock needs done in Redis. */
export interface LockHome {
  readonly isAvailable: boolean
  release(lock: RedisLock, how: 'unused' | undefined): Promise<void>
  checkpoint(lock: RedisLock, record: UploadRecord, expiresAt: number | undefined): void
  commitAndRelease(lock: RedisLock, record: UploadRecord, expiresAt: number | undefined): Promise<void>
}

export class RedisLock implements Lock {
  readonly id: string
  readonly token: string
  readonly fence: number
  readonly isTakeOver: boolean
  readonly lease: Lease
  readonly #home: LockHome
  readonly #onWanted: (() => void) | undefined
  #isWanted = false
  #isReleased = false
  #isInDanger = false
  /** Made when somebody asks for the signal: most uploads are over before. */
  #lost: AbortController | undefined

  constructor(
    home: LockHome,
    of: { id: string; token: string; fence: number; isTakeOver: boolean; lease: Lease },
    onWanted: (() => void) | undefined,
  ) {
    this.#home = home
    this.id = of.id
    this.token = of.token
    this.fence = of.fence
    this.isTakeOver = of.isTakeOver
    this.lease = of.lease
    this.#onWanted = onWanted
  }

  get lost(): AbortSignal {
    if (this.#lost === undefined) {
      this.#lost = new AbortController()
      if (this.#isInDanger) this.#abort(this.#lost)
    }
    return this.#lost.signal
  }

  isHeld(): boolean {
    return !this.#isReleased && this.lease.stands()
  }

  /** While Redis is away nothing is begun, though a request that is running goes on. */
  get mayStay(): boolean {
    return this.#home.isAvailable && !this.#isInDanger && this.isHeld()
  }

  /** Whether `lost` has been told; such a lease is not renewed any more. */
  get isInDanger(): boolean {
    return this.#isInDanger
  }

  /** Ends the holder's belief that it may go on; what is left of the lease is for ending in order. */
  endanger(): void {
    if (this.#isInDanger || this.#isReleased) return
    this.#isInDanger = true
    if (this.#lost !== undefined) this.#abort(this.#lost)
  }

  /** The lock belongs to nobody or somebody else. */
  lose(): void {
    this.lease.end()
    this.endanger()
  }

  want(): void {
    if (this.#isWanted || this.#isReleased) return
    this.#isWanted = true
    this.#onWanted?.()
  }

  async release(how?: 'unused'): Promise<void> {
    if (this.#isReleased) return
    this.#isReleased = true
    await this.#home.release(this, how)
  }

  checkpoint(record: UploadRecord, expiresAt?: number): void {
    if (!this.#isReleased) this.#home.checkpoint(this, record, expiresAt)
  }

  async commitAndRelease(record: UploadRecord, expiresAt?: number): Promise<void> {
    // After a release only the record is left to be put; the script judges it by its mark.
    this.#isReleased = true
    await this.#home.commitAndRelease(this, record, expiresAt)
  }

  #abort(controller: AbortController): void {
    controller.abort(new Error('the lock of the upload was lost'))
  }
}
