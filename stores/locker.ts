/** What the engine asks of whatever keeps writers apart. It is one of the contracts, and imported from contracts.ts. */
import type { UploadRecord } from './contracts.ts'

/**
 * One writer per upload. A lock is a lease: it ends by itself when its holder cannot renew it.
 *
 * - At most one holder at any moment, over all servers that share the locker.
 * - Whoever asks for a held lock makes the locker ask the holder to release it.
 * - The newest waiter wins; older ones fail with `superseded`.
 * - `fence` grows with every acquisition of one id.
 * - A released lock goes to the waiter within milliseconds; nobody polls.
 * - `untilFree` returns once nobody holds the lock, and takes nothing. Of a held one it asks the holder to release, and
 *   waits as `acquire` does; a waiter for a lock that is free already is not disturbed. False when nobody held it, and what
 *   was looked at before still tells what was acknowledged before.
 * - A lock of a process that is provably dead is free at once; of one that merely vanished, after one lease.
 * - A wait ends with `timeout` after `timeoutMs`, and with `aborted` when `signal` aborts; neither leaves anything behind.
 * - When the coordinator cannot be reached `acquire` and `untilFree` fail with `unavailable` and nothing hangs.
 */
export interface Locker {
  /** Whether a lock that nobody holds can be had now; undefined where only an acquisition can tell. */
  readonly isReady?: boolean
  /** Whether its locks may stay with a server when nobody uses them; then a server may take that of an upload before it is made. */
  readonly locksStay?: boolean
  start(): Promise<void>
  close(): Promise<void>
  acquire(id: string, options: AcquireOptions): Promise<Lock>
  /**
   * Where locker and records share a server: puts the record of a new upload, and takes its lock, in one step. Undefined when
   * anything is known of it there already; then nothing was done. Waits for nobody; fails as `acquire`.
   */
  readonly acquireNew?:
    | ((
        record: UploadRecord,
        expiresAt: number | undefined,
        options: AcquireOptions,
      ) => Promise<Lock | undefined>)
    | undefined
  /** For questions: what was acknowledged is on disk, and nobody is about to add to it. */
  untilFree(id: string, options: WaitOptions): Promise<boolean>
}

export interface WaitOptions {
  readonly timeoutMs: number
  /** Looked at only where there is somebody to wait for: it may be made then, which costs more than a lock that is free. */
  readonly signal?: AbortSignal
  /** Whether the signal has aborted, for who would not have it made. */
  readonly isAborted?: boolean
}

export interface AcquireOptions extends WaitOptions {
  /** Called at most once, when somebody else wants the upload. The holder stops soon, and releases. */
  readonly onWanted?: () => void
}

export interface Lock {
  readonly id: string
  /** For code that writes to a store which can compare it. The stores here keep late writers out by marks and generations. */
  readonly fence: number
  /** Whether another holder was asked to release first, by this request or by anybody within the last second. */
  readonly isTakeOver: boolean
  /** Whether the lease still stands, by this machine's own clocks. A lease that is lost never comes back. */
  isHeld(): boolean
  /** Aborts when the lease is lost or in danger; the holder must stop writing and end its request. */
  readonly lost: AbortSignal
  /** Whether a server may keep it from one request to the next, as it stands now. */
  readonly mayStay?: boolean
  /**
   * Gives the lock up; safe to call twice. Never throws: a lock that cannot be given back ends with its lease. `unused`: no
   * request had it when it was wanted, so whoever gets it takes nothing over.
   */
  release(how?: 'unused'): Promise<void>
  /**
   * Where locker and records share a server: has the record put soon, together with those of other uploads. Never
   * throws: the next one, or the commit, puts right what was lost. Learns of a wish for the lock, as every renewal does.
   */
  checkpoint?(record: UploadRecord, expiresAt?: number): void
  /** Where locker and records share a server: puts the record and gives the lock up in one round trip. Throws as `put`. */
  commitAndRelease?(record: UploadRecord, expiresAt?: number): Promise<void>
}

export class LockError extends Error {
  readonly code: LockErrorCode
  constructor(code: LockErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'LockError'
    this.code = code
  }
}
export type LockErrorCode = 'timeout' | 'superseded' | 'aborted' | 'unavailable'
