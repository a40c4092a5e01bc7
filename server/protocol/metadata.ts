/** `Upload-Metadata`: read to be checked and used, but always kept and given back exactly as it was sent (tus 1.0.0, Creation). */

/**
 * The longest header that is taken. It comes back in the answer to every HEAD, beside others, and all of them must fit
 * into what servers, proxies and clients take for headers (server/protocol/header-limit.ts).
 */
export const maxMetadataBytes = 112 * 1024

/** Values by key, decoded as UTF-8; null for a key that came without a value or with an empty one. Has no prototype: any word is an ordinary key. */
export type Metadata = Readonly<Record<string, string | null>>

const keyPattern = /^[\x21-\x2b\x2d-\x7e]+$/ // printable ASCII without space and comma
const base64Pattern = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

export function isMetadataKey(key: string): boolean {
  return keyPattern.test(key)
}

/** The metadata in a header, or undefined when the header is malformed: empty or repeated key, non-ASCII key, bad base64. */
export function parseMetadata(header: string): Metadata | undefined {
  const metadata: Record<string, string | null> = Object.create(null)
  if (header.trim() === '') return metadata
  for (const [key, value, ...more] of pairsOf(header)) {
    if (more.length > 0 || !isMetadataKey(key) || key in metadata) return undefined
    if (value !== undefined && !base64Pattern.test(value)) return undefined
    metadata[key] = decode(value)
  }
  return metadata
}

/** The media type that metadata declares, in lower case and without parameters; undefined when it declares none. */
export function declaredType(header: string | undefined): string | undefined {
  const { filetype, type, contentType } = parseMetadata(header ?? '') ?? {}
  const declared = filetype ?? type ?? contentType
  return declared?.replace(/;.*/s, '').trim().toLowerCase() || undefined
}

/** The header for metadata that somebody here made or changed; values that are still as they were sent stay so, bit for bit. */
export function formatMetadata(metadata: Metadata, asSent = ''): string {
  const sent = new Map(pairsOf(asSent).map(([key, value]) => [key, value]))
  const encode = (key: string, value: string) =>
    sent.has(key) && decode(sent.get(key)) === value ? sent.get(key) : Buffer.from(value).toString('base64')
  return Object.entries(metadata)
    .map(([key, value]) => (value ? `${key} ${encode(key, value)}` : key))
    .join(',')
}

function pairsOf(header: string): [key: string, ...values: string[]][] {
  return header.split(',').map((pair) => pair.replace(/^[ \t]+|[ \t]+$/g, '').split(' ') as [string])
}

function decode(value: string | undefined): string | null {
  return value === undefined ? null : Buffer.from(value, 'base64').toString('utf8')
}
