/** Hashes of bytes that pass by, in one pass, for those who asked. */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { Checksum } from '../protocol/messages.ts'

export interface RunningDigest {
  update(bytes: Uint8Array): void
  /** Whether everything that passed hashes to `digest`; call once. */
  matches(digest: Uint8Array): boolean
}

export function startDigest(algorithm: Checksum['algorithm']): RunningDigest {
  if (algorithm === 'crc32') return startCrc32()
  const hash = createHash(algorithm)
  return {
    update: (bytes) => void hash.update(bytes),
    matches: (digest) => hash.digest().equals(digest),
  }
}

/** As zip and gzip have it, written big-endian. */
function startCrc32(): RunningDigest {
  let value = 0
  return {
    update: (bytes) => {
      value = crc32(bytes, value)
    },
    matches: (digest) => {
      const computed = Buffer.alloc(4)
      computed.writeUInt32BE(value >>> 0)
      return computed.equals(digest)
    },
  }
}
