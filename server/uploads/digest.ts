/** Hashes of bytes that pass by, in one pass, for those who asked. */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { Appender } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { Checksum, ExpectedChecksum } from '../protocol/messages.ts'

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

/**
 * Refuses bytes of an upload, [start, end), that are not what they were said to be. A checksum before the body was computed
 * on the way; one behind it needs the bytes a second time.
 */
export async function verifyChecksum(
  expected: ExpectedChecksum,
  computed: RunningDigest | undefined,
  appender: Appender,
  [start, end]: readonly [number, number],
): Promise<void> {
  const checksum = 'is' in expected ? expected.read() : expected
  let digest = computed
  if (digest === undefined) {
    digest = startDigest(checksum.algorithm)
    for await (const bytes of appender.read(start, end)) digest.update(bytes)
  }
  if (!digest.matches(checksum.digest)) throw new Refusal('checksum-mismatch', { offset: start })
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
