/** What one request brings to an upload, as far as it is known before its body comes, and what came of it. */
import type { UploadRecord } from '../../stores/contracts.ts'
import type { ExpectedChecksum } from '../protocol/messages.ts'

export interface FillPlan {
  readonly offset: number
  readonly length: number | undefined
  /** Where the body must end while the length is not known. */
  readonly maxBytes: number
  readonly hasBody: boolean
  /** Bytes of the body when its length is known. */
  readonly contentLength?: number | undefined
  /** What the body must hash to; until it is known to, nothing of it counts. */
  readonly checksum: ExpectedChecksum | undefined
}

/**
 * How a body ended, and what is kept of the upload now. After `overflow` nothing of the body is, and nothing of one with
 * a checksum that did not end as `complete`.
 */
export interface Filled {
  readonly why: 'complete' | 'overflow' | 'client-gone' | 'idle' | 'displaced' | 'drain' | 'unauthorized'
  readonly record: UploadRecord
}

/** What a commit says of the length. */
export function lengthOf(plan: FillPlan): { length?: number } {
  return plan.length === undefined ? {} : { length: plan.length }
}

/** Whether the body may bring the last byte of the upload. */
export function mayReachEnd({ offset, length, contentLength }: FillPlan): boolean {
  return length !== undefined && (contentLength === undefined || offset + contentLength === length)
}
