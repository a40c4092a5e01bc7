// What tests of byte stores are made of: heads, bytes, and the codes of failures.

import type { StoreError, UploadHead } from '../../stores/contracts.ts'

export function headOf(id: string, more: Partial<UploadHead> = {}): UploadHead {
  return { id, createdAt: 1_700_000_000_123, dialect: 'tus', ...more }
}

/** The code with which it failed; undefined when it did not. */
export async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    return (error as StoreError).code
  }
}

/** Bytes that differ everywhere, the same in every run. */
export function randomBytes(length: number, seed = 1): Buffer {
  const out = Buffer.alloc(length)
  let state = (seed * 2654435761) >>> 0 || 1
  for (let at = 0; at < length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    out[at] = state
  }
  return out
}
