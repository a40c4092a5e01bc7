/**
 * A creation that brings all its bytes, made and finished in one step: no lock, one write of the record, nothing to clean
 * up but what the store made. Only where nobody can notice the difference: nobody names the upload or is told of it before
 * it is finished, and the whole body is there.
 */
import type { ByteStore, RecordStore, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'
import type { CreateCommand } from '../protocol/messages.ts'
import type { EngineEvent } from './hold.ts'
import type { Quotas } from './quotas.ts'
import { newRecord } from './rules.ts'
import type { Teller } from './teller.ts'
import type { UploadRequest } from './upload-request.ts'

export interface AtOnceParts {
  readonly bytes: ByteStore
  readonly records: RecordStore | undefined
  readonly quotas: Quotas | undefined
  readonly teller: Teller
  readonly meter: Meter
  readonly report: (event: EngineEvent) => void
}

/** Undefined where it has to be done step by step; then nothing was done. */
export function takeWhole(
  { bytes, teller }: AtOnceParts,
  { length, contentLength, checksum, partial, hasBody }: CreateCommand,
  request: UploadRequest,
): Uint8Array | undefined {
  if (!bytes.createFinished || length === undefined || checksum || partial !== undefined) return undefined
  if (!hasBody || contentLength !== length) return undefined
  if (teller.isHeard('created') || teller.isHeard('finished')) return undefined
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
  try {
    await records?.put(record)
  } catch (error) {
    // The mark is the truth and was written; a record that is missing is put later.
    report({ is: 'record-failed', id: head.id, error })
  }
  await quotas?.ended(record)
  return record
}
