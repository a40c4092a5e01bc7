/** Under which words a finished upload is found by what its bytes hash to: among all, and among those of its owner. */
import { createHash } from 'node:crypto'
import type { Digest, UploadRecord } from './contracts.ts'

/** None for what is not finished, was not hashed, or is a part: nobody may be given a part for a whole. */
export function digestEntriesOf({ head, mark }: UploadRecord): string[] {
  const isPart = head.concat !== undefined && head.parts === undefined
  if (mark.state !== 'finished' || mark.digest === undefined || isPart) return []
  const among = digestEntry(mark.digest)
  return head.owner === undefined ? [among] : [among, digestEntry(mark.digest, head.owner)]
}

/** Owners may have any name, and keys have an end. */
export function digestEntry({ algorithm, base64 }: Digest, owner?: string): string {
  const whose = owner === undefined ? '' : `:${createHash('sha256').update(owner).digest('base64url')}`
  return `${algorithm}:${base64}${whose}`
}
