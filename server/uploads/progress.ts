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

function newer(marked: UploadRecord, copy: UploadRecord | undefined): UploadRecord {
  if (copy === undefined) return marked
  const { generation, sequence } = copy.mark
  const isNewer =
    generation > marked.mark.generation ||
    (generation === marked.mark.generation && sequence > marked.mark.sequence)
  return isNewer && marked.mark.state === 'open' ? copy : marked
}
