/** `Upload-Checksum` (tus 1.0.0, Checksum): which digest the bytes of one request must have. */
import type { Checksum } from './messages.ts'

/** In the order in which they are announced. */
export const checksumAlgorithms: readonly Checksum['algorithm'][] = [
  'sha1',
  'sha256',
  'sha512',
  'md5',
  'crc32',
]

const base64Pattern = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** The checksum in a header or a trailer; else what is wrong with it. A digest of a wrong length is one that never matches. */
export function parseChecksum(text: string): Checksum | 'malformed' | 'unknown-algorithm' {
  const [algorithm = '', encoded = '', ...more] = text.trim().split(' ')
  if (encoded === '' || more.length > 0 || !base64Pattern.test(encoded)) return 'malformed'
  if (!isKnown(algorithm)) return 'unknown-algorithm'
  return { algorithm, digest: Buffer.from(encoded, 'base64') }
}

function isKnown(algorithm: string): algorithm is Checksum['algorithm'] {
  return (checksumAlgorithms as readonly string[]).includes(algorithm)
}
