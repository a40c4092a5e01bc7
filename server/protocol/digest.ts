/**
 * What a whole upload hashes to, as clients say it: `Repr-Digest` (RFC 9530), or `sha256` in the metadata, in hex or base64.
 * What is malformed is refused; algorithms that are not known here say nothing.
 */
import type { Digest } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { Metadata } from './metadata.ts'

const digestBytes: Readonly<Record<Digest['algorithm'], number>> = { 'sha-256': 32, 'sha-512': 64 }

/** A key of RFC 8941, a byte sequence, and parameters, which mean nothing here. */
const memberPattern = /^([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):(?:;[\x20-\x2b\x2d-\x7e]*)?$/
const base64Pattern = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/

/** Fields of forms that nobody filled in arrive as these words. */
const unset = new Set(['', 'null', 'undefined'])

/** The digest that a creation declares. Of several algorithms SHA-256 counts, by which equal contents are found. */
export function parseDeclaredDigest(
  header: string | undefined,
  metadata: Metadata | undefined,
): Digest | undefined {
  const declared = header === undefined ? undefined : parseReprDigest(header)
  const text = metadata?.sha256?.trim() ?? ''
  if (unset.has(text)) return declared
  const named = parseSha256(text)
  if (declared?.algorithm === 'sha-256' && declared.base64 !== named.base64)
    throw new Refusal('digest-malformed', {
      detail: 'Repr-Digest and the metadata sha256 say different things',
    })
  return named
}

export function formatReprDigest({ algorithm, base64 }: Digest): string {
  return `${algorithm}=:${base64}:`
}

function parseReprDigest(header: string): Digest | undefined {
  const found = new Map<string, string>()
  for (const member of header.split(',')) {
    const [, key, value] = memberPattern.exec(member.trim()) ?? []
    if (key === undefined || value === undefined || !base64Pattern.test(value))
      throw new Refusal('digest-malformed')
    found.set(key, value)
  }
  for (const [algorithm, length] of Object.entries(digestBytes) as [Digest['algorithm'], number][]) {
    const value = found.get(algorithm)
    if (value === undefined) continue
    const bytes = Buffer.from(value, 'base64')
    if (bytes.length !== length) throw new Refusal('digest-malformed')
    return { algorithm, base64: bytes.toString('base64') }
  }
  return undefined
}

function parseSha256(text: string): Digest {
  const isHex = /^[0-9a-f]{64}$/i.test(text)
  // Both alphabets of base64, for both are in use for this.
  const plain = text.replaceAll('-', '+').replaceAll('_', '/')
  const bytes = isHex ? Buffer.from(text, 'hex') : Buffer.from(plain, 'base64')
  if (bytes.length !== digestBytes['sha-256'] || !(isHex || base64Pattern.test(plain)))
    throw new Refusal('digest-malformed', {
      detail: 'the metadata sha256 must be a SHA-256 of the whole file, in hex or base64',
    })
  return { algorithm: 'sha-256', base64: bytes.toString('base64') }
}
