/**
 * What may be done to an upload, decided from what is known of it and nothing else. Pure: the same rules are asked
 * before the lock is taken, so that a request that will be refused disturbs nobody, and again under it.
 */
import type { UploadHead, UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { AppendCommand, CreateCommand } from '../protocol/messages.ts'
import { isPart } from './kin.ts'

export interface Expiry {
  /** Unfinished uploads live this long; 0 is for ever. */
  readonly afterMs: number
  /** From the last byte that was kept, or from the creation. */
  readonly mode: 'sliding' | 'absolute'
}

/** So long a failed upload is told to be gone, and not to be unknown, before what is left of it is removed. */
const failedForMs = 24 * 3_600_000

/** A creation or a removal takes milliseconds; what is half-done for so long will not be finished. */
export const halfDoneForMs = 3_600_000

/** When an upload expires, in milliseconds since the epoch; undefined when it does not. Finished uploads never do. */
export function expiresAt({ head, mark }: UploadRecord, expiry: Expiry): number | undefined {
  const afterMs = Math.min(
    expiry.afterMs || Number.POSITIVE_INFINITY,
    head.expireAfterMs ?? Number.POSITIVE_INFINITY,
  )
  if (mark.state === 'failed') return mark.movedAt + Math.min(afterMs, failedForMs)
  if (afterMs === Number.POSITIVE_INFINITY || mark.state !== 'open') return undefined
  return (expiry.mode === 'sliding' ? mark.movedAt : head.createdAt) + afterMs
}

export function isExpired(record: UploadRecord, expiry: Expiry, now: number): boolean {
  const at = expiresAt(record, expiry)
  return at !== undefined && at <= now
}

/** Whether an upload that is not there may be about to be made: its record is a new one's, and young. */
export function mayBeInTheMaking({ head, mark }: UploadRecord, now: number): boolean {
  return mark.generation === 0 && mark.sequence === 0 && now - head.createdAt < halfDoneForMs
}

/** Refuses a creation that can not succeed; `maxBytes` is Infinity without a limit. */
export function refuseCreate(command: CreateCommand, maxBytes: number): Refusal | undefined {
  const { length, contentLength = 0 } = command
  if (length !== undefined && length > maxBytes) return tooLarge(maxBytes)
  if (command.hasBody && contentLength > (length ?? maxBytes))
    return length === undefined ? tooLarge(maxBytes) : new Refusal('body-too-long')
  return undefined
}

/** Refuses any request to an upload that is not there, or not there any more. */
export function refuseAbsent(record: UploadRecord | undefined, hasExpired: boolean): Refusal | undefined {
  if (record === undefined || record.mark.state === 'terminated') return new Refusal('not-found')
  if (record.mark.state === 'failed' || hasExpired) return new Refusal('gone')
  return undefined
}

/** Refuses an append that does not fit the upload as it is. An empty one at the end of a finished upload fits. */
export function refuseAppend(
  { head, mark }: UploadRecord,
  command: AppendCommand,
  maxBytes: number,
): Refusal | undefined {
  if (head.parts !== undefined) return new Refusal('final-append')
  if (command.offset !== mark.offset)
    return new Refusal('offset-conflict', { offset: mark.offset, isFinished: mark.state === 'finished' })
  if (command.length !== undefined) {
    if (mark.length !== undefined && mark.length !== command.length) return new Refusal('length-fixed')
    if (command.length < mark.offset) return new Refusal('length-below-offset')
    if (mark.length === undefined && command.length > maxBytes) return tooLarge(maxBytes)
  }
  const length = command.length ?? mark.length
  const end = mark.offset + (command.contentLength ?? 0)
  if (end > (length ?? maxBytes))
    return length === undefined ? tooLarge(maxBytes) : new Refusal('body-too-long', { offset: mark.offset })
  return undefined
}

/** Refuses to read what is not there whole; or, where that is wished, what is not known to be what was sent. */
export function refuseRead(
  { head, mark }: UploadRecord,
  isUnfinishedServed: boolean | undefined,
): Refusal | undefined {
  if (mark.state === 'finished' && !isPart(head)) return undefined
  if (mark.state === 'failed') return new Refusal('gone')
  const isPlain = head.concat === undefined && head.digest === undefined
  return mark.state === 'open' && isUnfinishedServed && isPlain ? undefined : new Refusal('not-found')
}

function tooLarge(maxBytes: number): Refusal {
  return new Refusal('too-large', {
    detail: `this is more than the largest upload that is accepted here, ${maxBytes} bytes`,
  })
}

/** An upload that is about to be made. */
export function newRecord(head: UploadHead, length: number | undefined): UploadRecord {
  const known = length === undefined ? {} : { length }
  const mark = { state: 'open', offset: 0, syncedOffset: 0, generation: 0, sequence: 0, ...known } as const
  return { head, mark: { movedAt: head.createdAt, ...mark } }
}
