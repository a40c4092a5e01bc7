/**
 * Creations that need no lock, because nobody but their request can come upon the upload before they are answered: one that
 * brings all its bytes, made and finished in one step, and one that brings none. Only where nobody can notice the
 * difference: nobody names the upload, or is told of it meanwhile.
 */
import {
  type ByteStore,
  type RecordStore,
  StoreError,
  type UploadHead,
  type UploadRecord,
} from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'
import type { CreateCommand } from '../protocol/messages.ts'
import type { EngineEvent } from './engine-event.ts'
import type { Lifetime } from './lifetime.ts'
import type { Quotas } from './quotas.ts'
import { newRecord } from './rules.ts'
import type { Keeping, RunningHolds } from './running-holds.ts'
import type { Teller } from './teller.ts'
import type { UploadRequest } from './upload-request.ts'

export interface AtOnceParts {
  readonly bytes: ByteStore
  readonly records: RecordStore | undefined
  readonly quotas: Quotas | undefined
  readonly teller: Teller
  readonly meter: Meter
  readonly report: (event: EngineEvent) => void
  readonly lifetime: Pick<Lifetime, 'takeBack'>
  readonly holds: Pick<RunningHolds, 'keepingNew' | 'putsNew'>
}

/** Undefined where it has to be done step by step; then nothing was done. */
export function takeWhole(
  { bytes, teller }: AtOnceParts,
  { length, contentLength, checksum, partial, hasBody }: CreateCommand,
  request: UploadRequest,
): Uint8Array | undefined {
  if (!bytes.createFinished || length === undefined || checksum || partial !== undefined) return undefined
  if (!hasBody || contentLength !== length) return undefined
  if (request.asksBeforeFinish || teller.isHeard('created') || teller.isHeard('finished')) return undefined
  return request.wholeBody?.(length)
}

export async function createAtOnce(
  { bytes, records, quotas, meter, report }: AtOnceParts,
  head: UploadHead,
  body: Uint8Array,
  request: UploadRequest,
): Promise<UploadRecord> {
  const { length } = body
  const { mark } = newRecord(head, length)
  await request.reauthorize()
  await request.beforeFinish({ head, mark: { ...mark, offset: length } })
  const record = await bytes.createFinished!(head, body)
  meter.madeWhole(length)
  await putRecord({ records, report }, record)
  await quotas?.ended(record)
  return record
}

/** Whether a creation brings nothing to receive or to verify, and makes nothing that somebody is to be told of. */
export function bringsNothing(
  { bytes, quotas, teller }: AtOnceParts,
  { length, hasBody, checksum, partial }: CreateCommand,
): boolean {
  if (hasBody || length === 0 || checksum || partial !== undefined) return false
  return bytes.createEmpty !== undefined && quotas === undefined && !teller.isHeard('created')
}

/**
 * The record first: so nothing is made while it can not be put because Redis is silent, as where Redis is asked for a lock.
 * `expiresAt` in milliseconds since the epoch.
 */
export async function createEmpty(
  parts: AtOnceParts,
  head: UploadHead,
  length: number | undefined,
  expiresAt: (record: UploadRecord) => number | undefined,
): Promise<UploadRecord> {
  const { bytes, meter, lifetime } = parts
  const draft = newRecord(head, length)
  const keeping = await announce(parts, draft, expiresAt(draft))
  try {
    const record = await bytes.createEmpty!(head, length, keeping?.keep)
    meter.created++
    await keeping?.end()
    return record
  } catch (error) {
    await keeping?.end()
    const isOfAnother = error instanceof StoreError && error.code === 'exists'
    if (!isOfAnother) await lifetime.takeBack(head.id)
    throw error
  }
}

/** Puts the record, and takes the lock where the upload is to stay open: in one step, or else side by side. */
async function announce(
  parts: AtOnceParts,
  draft: UploadRecord,
  expiresAt: number | undefined,
): Promise<Keeping | undefined> {
  const { bytes, holds } = parts
  const mayStay = bytes.keepsOpen && draft.head.dialect === 'tus'
  const isOneStep = mayStay && holds.putsNew
  const putting = isOneStep ? undefined : putDraft(parts, draft, expiresAt)
  const keeping = mayStay ? await holds.keepingNew(draft, expiresAt) : undefined
  if (isOneStep && keeping) return keeping
  const unavailable = await (putting ?? putDraft(parts, draft, expiresAt))
  if (unavailable === undefined) return keeping
  await keeping?.end()
  throw unavailable
}

/** Returns why nothing is to be made; any other failure is put right later. */
async function putDraft(
  { records, report }: Pick<AtOnceParts, 'records' | 'report'>,
  draft: UploadRecord,
  expiresAt: number | undefined,
): Promise<StoreError | undefined> {
  try {
    await records?.put(draft, expiresAt)
  } catch (error) {
    if (error instanceof StoreError && error.code === 'unavailable') return error
    report({ is: 'record-failed', id: draft.head.id, error })
  }
  return undefined
}

/** The mark is the truth and was written; a record that is missing is put later. */
async function putRecord(
  { records, report }: Pick<AtOnceParts, 'records' | 'report'>,
  record: UploadRecord,
): Promise<void> {
  try {
    await records?.put(record, undefined)
  } catch (error) {
    report({ is: 'record-failed', id: record.head.id, error })
  }
}
