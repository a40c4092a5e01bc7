/** `Upload-Checksum` (tus 1.0.0, Checksum): which digest the bytes of one request must have. */
import type { Checksum } from './messages.ts'

/** Bytes of a digest, by algorithm; the order is the one that is announced. */
const digestBytes: Readonly<Record<Checksum['algorithm'], number>> = {
  sha1: 20,
  sha256: 32,
  sha512: 64,
  md5: 16,
  crc32: 4,
}
export const checksumAlgorithms = Object.keys(digestBytes) as Checksum['algorithm'][]

const base64Pattern = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** The checksum in a header or a trailer; else what is wrong with it. */
export function parseChecksum(text: string): Checksum | 'malformed' | 'unknown-algorithm' {
  const [algorithm = '', encoded, ...more] = text.trim().split(' ')
  if (encoded === undefined || more.length > 0 || !base64Pattern.test(encoded)) return 'malformed'
  if (!isKnown(algorithm)) return 'unknown-algorithm'
  const digest = Buffer.from(encoded, 'base64')
  return digest.length === digestBytes[algorithm] ? { algorithm, digest } : 'malformed'
}

function isKnown(algorithm: string): algorithm is Checksum['algorithm'] {
  return Object.hasOwn(digestBytes, algorithm)
}
