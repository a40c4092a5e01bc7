/**
 * How long uploads live, and their end: by time, found by a sweep or by whoever asks; what is removed is removed under
 * its lock, and what is known of it elsewhere made to say the same as its mark.
 */
import {
  type ByteStore,
  type Lock,
  type Locker,
  type RecordStore,
  StoreError,
  type UploadRecord,
} from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'
import type { Refusal } from '../errors.ts'
import type { Concatenator } from './concat.ts'
import type { EngineSettings } from './engine.ts'
import type { EngineEvent } from './engine-event.ts'
import type { UploadHold } from './hold.ts'
import type { Quotas } from './quotas.ts'
import { expiresAt, isExpired, mayBeInTheMaking, refuseAbsent } from './rules.ts'
import type { Teller } from './teller.ts'
import type { UploadRequest } from './upload-request.ts'

export interface LifetimeParts {
  readonly bytes: ByteStore
  readonly records: RecordStore | undefined
  readonly locker: Locker
  readonly settings: EngineSettings
  readonly teller: Teller
  readonly meter: Meter
  readonly quotas: Quotas | undefined
  readonly draining: AbortSignal
  readonly report: (event: EngineEvent) => void
  /** Undefined where the store can not concatenate. */
  readonly concat: () => Concatenator | undefined
}

export class Lifetime {
  readonly #parts: LifetimeParts

  constructor(parts: LifetimeParts) {
    this.#parts = parts
  }

  /** An upload does not expire before those that it belongs together with. */
  async isExpired(record: UploadRecord, now: number): Promise<boolean> {
    const { settings, concat } = this.#parts
    return isExpired(record, settings.expiry, now) && !(await concat()?.kin.outlives(record, now))
  }

  async refuseAbsent(record: UploadRecord | undefined, now: number): Promise<Refusal | undefined> {
    return refuseAbsent(record, record !== undefined && (await this.isExpired(record, now)))
  }

  /** Removes an upload that has expired, under the lock. False when it has not, or is gone already. */
  async expire(id: string, now: number): Promise<boolean> {
    const { bytes, locker, settings, draining, concat, teller, meter } = this.#parts
    const seen = await bytes.look(id)
    if (seen === undefined || !(await this.isExpired(seen, now))) {
      await this.#correctRecord(id, seen, now)
      if (seen) await concat()?.goOn(seen)
      return false
    }
    const lock = await locker.acquire(id, { timeoutMs: settings.acquireLockTimeoutMs, signal: draining })
    try {
      const record = await bytes.look(id)
      if (record === undefined || !(await this.isExpired(record, now))) return false
      if ((await concat()?.letGo(record.head)) === false) return false
      await teller.beforeRemoval(record)
      await this.remove(id, lock)
      meter.expired++
      return true
    } finally {
      await lock.release()
    }
  }

  /** Removes an upload because somebody asked for it. False while a final needs this part. */
  async terminate(record: UploadRecord, lock: Lock, request: UploadRequest): Promise<boolean> {
    const { concat, teller } = this.#parts
    if ((await concat()?.letGo(record.head)) === false) return false
    await teller.terminating(record, () => this.remove(record.head.id, lock), request)
    return true
  }

  /** Somebody wanted the running upload to end and to be gone. Anything else that failed leaves it as it is. */
  async removeUnwanted(error: unknown, hold: UploadHold, lock: Lock, request: UploadRequest): Promise<void> {
    if (!request.stopping?.aborted || error !== request.stopping.reason) return
    const record = hold.kept
    hold.forgetRecord()
    await hold.close()
    if (await this.terminate(record, lock, request)) this.#parts.teller.tell('terminated', record, request)
    throw error
  }

  /** Removes what was made for a request that has failed: nobody was told of it. */
  async takeBack(id: string): Promise<void> {
    const { locker, settings, draining, report } = this.#parts
    try {
      const lock = await locker.acquire(id, {
        timeoutMs: settings.acquireLockTimeoutMs,
        signal: draining,
      })
      await this.remove(id, lock).finally(() => lock.release())
    } catch (error) {
      report({ is: 'left-behind', id, error })
    }
  }

  /** With a lock: only while it is held. */
  async remove(id: string, lock?: Lock): Promise<void> {
    const { bytes, records, report, quotas } = this.#parts
    const seen = quotas && (await bytes.look(id))
    await bytes.remove(id, () => lock?.isHeld() ?? true)
    if (seen) await quotas.removed(seen.head)
    await records?.remove(id).catch((error: unknown) => report({ is: 'record-failed', id, error }))
  }

  /** Makes the record of an upload say what its mark says. */
  async #correctRecord(id: string, seen: UploadRecord | undefined, now: number): Promise<void> {
    const { records, settings, concat, quotas } = this.#parts
    if (seen === undefined) await this.#removeRecordOfNothing(id, now)
    else if (seen.mark.state === 'terminated') await records?.remove(id)
    else if (concat() && seen.head.concat !== undefined) await concat()?.assemblies.putRecord(seen)
    else await records?.put(seen, expiresAt(seen, settings.expiry))
    if (seen) await quotas?.note(seen)
  }

  /** Not while its upload may be about to be made: of what comes empty the record is first. */
  async #removeRecordOfNothing(id: string, now: number): Promise<void> {
    const { bytes, records, settings } = this.#parts
    const record = await records?.get(id).catch(undefinedIfDamaged)
    if (record && mayBeInTheMaking(record, now) && !isExpired(record, settings.expiry, now)) return
    // It may have been made, and gone on, since it was looked for. Without a record there may be entries of indexes.
    if ((await bytes.look(id)) === undefined) await records?.remove(id)
  }
}

function undefinedIfDamaged(error: unknown): undefined {
  if (!(error instanceof StoreError && error.code === 'damaged')) throw error
}
