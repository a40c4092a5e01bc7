/**
 * The tus dialect, protocol 1.0.0: requests to commands, outcomes to answers. Pure; every rule cites its clause.
 * https://tus.io/protocols/resumable-upload
 */
import type { UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import { checksumAlgorithms, parseChecksum } from './checksum.ts'
import { parseConcat } from './concat.ts'
import { parseDeclaredDigest } from './digest.ts'
import type {
  AppendCommand,
  Checksum,
  Command,
  ConcatCommand,
  CreateCommand,
  ExpectedChecksum,
  Outcome,
} from './messages.ts'
import { type Metadata, maxMetadataBytes, parseMetadata } from './metadata.ts'

const tusVersion = '1.0.0'
const bodyType = 'application/offset+octet-stream'
const methods = 'OPTIONS, POST, HEAD, PATCH, GET, DELETE'

/** Header names in lower case, as Node gives them. */
export type RequestHeaders = Readonly<Record<string, string | string[] | undefined>>

/** Where a request points: the creation URL, an upload, or nowhere. */
export type Target = { is: 'collection' } | { is: 'upload'; id: string } | { is: 'nothing' }

export interface Answer {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body?: string
}

export interface Abilities {
  /** What the mounted store can do; nothing else is announced. */
  readonly extensions: readonly string[]
  /** Largest upload in bytes; undefined without a limit. */
  readonly maxBytes: number | undefined
  /** What becomes of digests that clients declare. */
  readonly digests: 'verified' | 'ignored' | 'unsupported'
}

/** The method that counts: `X-HTTP-Method-Override` wins over the request's own (Core, X-HTTP-Method-Override). */
export function methodOf(method: string, headers: RequestHeaders): string {
  const override = one(headers, 'x-http-method-override')
  return override ? override.toUpperCase() : method
}

/** A request, without its body. */
export interface TusRequest {
  readonly method: string
  readonly target: Target
  readonly headers: RequestHeaders
  /** The trailers; known only when the body has ended. */
  readonly trailers: () => RequestHeaders
  /** The id of the upload that a URL in a header means. */
  readonly idOfUrl?: ((url: string) => string | undefined) | undefined
}

/** Reads a request, or throws the Refusal that answers it. What the store can not do is refused, never ignored. */
export function parseTus(
  { method, target, headers, trailers, idOfUrl }: TusRequest,
  abilities: Abilities,
): Command {
  if (method === 'OPTIONS') return { do: 'options' }
  // Who knows nothing of tus asks about a download.
  if (method === 'HEAD' && headers['tus-resumable'] === undefined && target.is === 'upload')
    return { do: 'read', id: target.id, isHead: true }
  checkVersion(method, headers)
  switch (method) {
    case 'POST':
      if (target.is !== 'collection') throw new Refusal('not-found')
      return parseCreate(headers, parseExpectedChecksum(headers, trailers, abilities), {
        idOfUrl: abilities.extensions.includes('concatenation') ? idOfUrl : undefined,
        digests: abilities.digests,
      })
    case 'HEAD':
      return { do: 'offset', id: idOf(target) }
    case 'PATCH':
      return parseAppend(idOf(target), headers, parseExpectedChecksum(headers, trailers, abilities))
    case 'GET':
      return { do: 'read', id: idOf(target) }
    case 'DELETE':
      return { do: 'terminate', id: idOf(target) }
    default:
      throw new Refusal('method-unknown')
  }
}

/** `withOffset`: whether a creation carried, or could have carried, bytes. */
export function renderTus(
  outcome: Exclude<Outcome, { is: 'cut' | 'readable' }>,
  abilities: Abilities,
  created: { location: string; withOffset: boolean } = { location: '', withOffset: false },
): Answer {
  const headers: Record<string, string> = { 'Tus-Resumable': tusVersion }
  switch (outcome.is) {
    case 'options':
      headers['Tus-Version'] = tusVersion
      headers['Tus-Extension'] = abilities.extensions.join(',')
      if (abilities.extensions.includes('checksum'))
        headers['Tus-Checksum-Algorithm'] = checksumAlgorithms.join(',')
      if (abilities.digests === 'verified') headers['Want-Repr-Digest'] = 'sha-256=10, sha-512=1'
      if (abilities.maxBytes !== undefined) headers['Tus-Max-Size'] = String(abilities.maxBytes)
      return { status: 200, headers }
    case 'created':
      headers.Location = created.location
      if ((created.withOffset && !isWaiting(outcome.record)) || outcome.record.mark.state === 'finished')
        headers['Upload-Offset'] = String(outcome.record.mark.offset)
      return { status: 201, headers: withExpiry(headers, outcome.expiresAt) }
    case 'appended':
      headers['Upload-Offset'] = String(outcome.record.mark.offset)
      return { status: 204, headers: withExpiry(headers, outcome.expiresAt) }
    case 'offset': {
      const { head, mark } = outcome.record
      headers['Cache-Control'] = 'no-store'
      // Concatenation: a final has no offset, and says nothing of a length to come, until its parts are finished.
      if (!isWaiting(outcome.record)) headers['Upload-Offset'] = String(mark.offset)
      if (mark.length !== undefined) headers['Upload-Length'] = String(mark.length)
      else if (!isWaiting(outcome.record)) headers['Upload-Defer-Length'] = '1'
      if (head.concat !== undefined) headers['Upload-Concat'] = head.concat
      if (head.metadata !== undefined) headers['Upload-Metadata'] = head.metadata
      return { status: 200, headers: withExpiry(headers, outcome.expiresAt) }
    }
    case 'terminated':
      return { status: 204, headers }
    case 'refused':
      return renderRefusal(outcome.refusal)
  }
}

/** A final that is not made yet. */
function isWaiting({ head, mark }: UploadRecord): boolean {
  return head.parts !== undefined && mark.state === 'open'
}

/** Every refusal of ours looks like this, whoever refuses: its code for programs, and a sentence for people. */
export function renderRefusal(refusal: Refusal): Answer {
  const headers: Record<string, string> = {
    'Tus-Resumable': tusVersion,
    'Content-Type': 'text/plain; charset=utf-8',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
  }
  if (refusal.status === 412) headers['Tus-Version'] = tusVersion
  if (refusal.status === 405)
    headers.Allow = refusal.code === 'termination-unsupported' ? methods.replace(', DELETE', '') : methods
  // RFC 9110, 11.6.1: never a 401 without it.
  const challenge = refusal.challenge ?? (refusal.status === 401 ? 'Bearer realm="Tidemark"' : undefined)
  if (challenge !== undefined) headers['WWW-Authenticate'] = challenge
  if (refusal.offset !== undefined) headers['Upload-Offset'] = String(refusal.offset)
  if (refusal.retryAfterS !== undefined) headers['Retry-After'] = String(refusal.retryAfterS)
  return { status: refusal.status, headers, body: `${refusal.code}: ${refusal.message}\n` }
}

/** Expiration: the header is an IMF-fixdate, on every answer about an unfinished upload. */
function withExpiry(headers: Record<string, string>, expiresAt: number | undefined): Record<string, string> {
  if (expiresAt !== undefined) headers['Upload-Expires'] = new Date(expiresAt).toUTCString()
  return headers
}

/** Core, Tus-Resumable: a version that is not ours is refused on every method, with what we speak, before anything is done. */
function checkVersion(method: string, headers: RequestHeaders): void {
  const version = one(headers, 'tus-resumable')
  if (version === tusVersion) return
  if (version !== undefined) throw new Refusal('version-unsupported')
  if (['POST', 'HEAD', 'PATCH', 'DELETE'].includes(method)) throw new Refusal('version-missing')
}

function parseCreate(
  headers: RequestHeaders,
  checksum: ExpectedChecksum | undefined,
  { idOfUrl, digests }: { idOfUrl: TusRequest['idOfUrl']; digests: Abilities['digests'] },
): CreateCommand | ConcatCommand {
  if (!idOfUrl) refuseUnsupported(headers, ['upload-concat'])
  if (digests === 'unsupported') refuseUnsupported(headers, ['repr-digest'])
  const body = parseBody(headers)
  const { metadata, values } = parseCreationMetadata(headers)
  const digest = digests === 'verified' ? parseDeclaredDigest(one(headers, 'repr-digest'), values) : undefined
  const asSent = one(headers, 'upload-concat')
  const concat = asSent === undefined ? undefined : parseConcat(asSent, idOfUrl!)
  if (concat?.is === 'final') {
    if (headers['upload-length'] !== undefined || headers['upload-defer-length'] !== undefined)
      throw new Refusal('concat-length')
    if (body.isThere) throw new Refusal('concat-body')
    if (checksum)
      throw new Refusal('header-unsupported', {
        detail: 'a final upload takes no bytes of its own, so it takes no Upload-Checksum',
      })
    return { do: 'concat', asSent: asSent!, parts: concat.parts, metadata, digest }
  }
  if (body.isThere && !body.isBytes) throw new Refusal('content-type')
  return {
    do: 'create',
    length: parseCreationLength(headers),
    metadata,
    isBytes: body.isBytes,
    hasBody: body.isThere,
    contentLength: body.length,
    checksum,
    digest,
    ...(concat && { partial: asSent }),
  }
}

function parseAppend(
  id: string,
  headers: RequestHeaders,
  checksum: ExpectedChecksum | undefined,
): AppendCommand {
  const body = parseBody(headers)
  if (!body.isBytes) throw new Refusal('content-type')
  const offset = parseCount(one(headers, 'upload-offset'))
  if (offset === undefined) throw new Refusal('offset-invalid')
  const declared = one(headers, 'upload-length')
  const length = parseCount(declared)
  if (declared !== undefined && length === undefined) throw new Refusal('length-invalid')
  return { do: 'append', id, offset, length, contentLength: body.length, checksum }
}

/** Creation and Creation With Deferred Length: exactly one of the two headers. */
function parseCreationLength(headers: RequestHeaders): number | undefined {
  const declared = one(headers, 'upload-length')
  const deferred = one(headers, 'upload-defer-length')
  if (declared !== undefined && deferred !== undefined) throw new Refusal('length-twice')
  if (deferred !== undefined) {
    if (deferred !== '1') throw new Refusal('defer-length-invalid')
    return undefined
  }
  if (declared === undefined) throw new Refusal('length-missing')
  const length = parseCount(declared)
  if (length === undefined) throw new Refusal('length-invalid')
  return length
}

/** The metadata as it was sent, and what it says. */
function parseCreationMetadata(headers: RequestHeaders): {
  metadata: string | undefined
  values: Metadata | undefined
} {
  const header = one(headers, 'upload-metadata')
  if (header === undefined || header.trim() === '') return { metadata: undefined, values: undefined }
  if (header.length > maxMetadataBytes) throw new Refusal('metadata-too-large')
  const values = parseMetadata(header)
  if (values === undefined) throw new Refusal('metadata-invalid')
  return { metadata: header, values }
}

function parseBody(headers: RequestHeaders): {
  isThere: boolean
  isBytes: boolean
  length: number | undefined
} {
  const coding = one(headers, 'transfer-encoding')?.toLowerCase()
  // HTTP allows more codings; taken for chunked alone, the bytes of a compressed body would be kept as they are.
  if (coding !== undefined && coding !== 'chunked') throw new Refusal('coding-unknown')
  const isChunked = coding !== undefined
  const length = isChunked ? undefined : parseContentLength(one(headers, 'content-length'))
  const type = one(headers, 'content-type')?.split(';')[0]?.trim().toLowerCase()
  return { isThere: isChunked || length !== 0, isBytes: type === bodyType, length }
}

/** Checksum: in a header; or, with checksum-trailer, announced in `Trailer` and sent behind a chunked body. */
function parseExpectedChecksum(
  headers: RequestHeaders,
  trailers: () => RequestHeaders,
  { extensions }: Abilities,
): ExpectedChecksum | undefined {
  if (!extensions.includes('checksum')) {
    refuseUnsupported(headers, ['upload-checksum'])
    return undefined
  }
  const header = one(headers, 'upload-checksum')
  if (header !== undefined) return checksumOf(header)
  if (!isAnnounced(headers, 'upload-checksum')) return undefined
  if (headers['transfer-encoding'] === undefined)
    throw new Refusal('checksum-malformed', {
      detail: 'a checksum in a trailer needs a body with Transfer-Encoding: chunked',
    })
  const read = (): Checksum => {
    const trailer = one(trailers(), 'upload-checksum')
    if (trailer === undefined) throw new Refusal('checksum-missing')
    return checksumOf(trailer)
  }
  return { is: 'trailing', read }
}

function checksumOf(text: string): Checksum {
  const checksum = parseChecksum(text)
  if (checksum === 'malformed') throw new Refusal('checksum-malformed')
  if (checksum === 'unknown-algorithm') throw new Refusal('checksum-algorithm')
  return checksum
}

function isAnnounced(headers: RequestHeaders, name: string): boolean {
  const trailers = (one(headers, 'trailer') ?? '').split(',').map((trailer) => trailer.trim().toLowerCase())
  return trailers.includes(name)
}

const headerNames: Readonly<Record<string, string>> = {
  'repr-digest': 'Repr-Digest',
  'upload-checksum': 'Upload-Checksum',
  'upload-concat': 'Upload-Concat',
}

/** A header or trailer that would change what the request means must not be passed over in silence. */
function refuseUnsupported(headers: RequestHeaders, names: readonly string[]): void {
  for (const name of names)
    if (headers[name] !== undefined || isAnnounced(headers, name))
      throw new Refusal('header-unsupported', {
        detail: `${headerNames[name]} is not supported by this server; OPTIONS tells what is`,
      })
}

function idOf(target: Target): string {
  if (target.is !== 'upload') throw new Refusal('not-found')
  return target.id
}

/** HTTP has larger bodies than there are uploads: they are longer than anything, not empty. */
function parseContentLength(text = '0'): number {
  return parseCount(text) ?? Number.POSITIVE_INFINITY
}

/** A whole number from 0 to 2^53-1 in plain digits. */
function parseCount(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,16}$/.test(text)) return undefined
  const count = Number(text)
  return Number.isSafeInteger(count) ? count : undefined
}

function one(headers: RequestHeaders, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value.join(', ') : value
}
