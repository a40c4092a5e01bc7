/**
 * How far an upload is, for whoever watches it: from any server, whichever receives it, and disturbing nobody.
 *
 * The mark decides whether the upload is there, and the record helps where it is newer: a folder that is shared over a
 * network may show the marks of other servers late. No lock is taken, so the answer may be a second old.
 */
import type { ByteStore, RecordStore, UploadRecord, UploadState } from '../../stores/contracts.ts'

export interface Progress {
  /** Bytes that are kept. */
  readonly offset: number
  /** Undefined while the client has not said. */
  readonly length: number | undefined
  readonly state: Exclude<UploadState, 'terminated'>
}

/** Undefined when the upload is not there. */
export async function progressOf(
  id: string,
  { bytes, records }: { readonly bytes: ByteStore; readonly records: RecordStore | undefined },
): Promise<Progress | undefined> {
  const [marked, copy] = await Promise.all([
    bytes.look(id),
    // Records may be away, or lost; the mark is enough.
    records?.get(id).catch(() => undefined),
  ])
  if (marked === undefined) return undefined
  const { offset, length, state } = newer(marked, copy).mark
  return state === 'terminated' ? undefined : { offset, length, state }
}

/** What is known of an upload whose mark is there: the copy, where the mark of another server is shown late. */
export function newer(marked: UploadRecord, copy: UploadRecord | undefined): UploadRecord {
  return copy && isNewer(copy, marked) && marked.mark.state === 'open' ? copy : marked
}

/** Of two copies of one upload, whether `a` was written after `b`. */
export function isNewer({ mark: a }: UploadRecord, { mark: b }: UploadRecord): boolean {
  return a.generation === b.generation ? a.sequence > b.sequence : a.generation > b.generation
}
