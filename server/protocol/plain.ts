/**
 * What tools mean that know nothing of tus: `POST /upload` with a form, `PUT /upload/NAME` with a file, and questions
 * about what became of it. Pure; nothing here has read a body.
 */
import { Refusal } from '../errors.ts'
import type { RequestHeaders } from './tus.ts'
import { pathOf } from './upload-url.ts'

/** The bytes of a file that one request carries, both ends included; `size` is undefined where it was said to be `*`. */
export interface ContentRange {
  readonly first: number
  readonly last: number
  readonly size: number | undefined
}

export interface PutCommand {
  readonly do: 'put'
  readonly name: string
  readonly range: ContentRange | undefined
  /** Bytes of the body when its length is known. */
  readonly contentLength: number | undefined
  readonly type: string | undefined
}

export type PlainCommand =
  /** Show people a form. */
  | { readonly do: 'show-form' }
  | { readonly do: 'form'; readonly key: string | undefined }
  | PutCommand
  | { readonly do: 'ask' | 'read' | 'remove'; readonly name: string }

export const plainMethods = 'OPTIONS, POST, PUT, HEAD, GET, DELETE'

const longestNameBytes = 255
const longestKey = 256
const typePattern = /^[a-z]+\/[a-z0-9][a-z0-9.+_-]*$/

/** Reads a request, without its body; or throws the Refusal that answers it. */
export function parsePlain(
  { method, url, headers }: { method: string; url: string; headers: RequestHeaders },
  mountPath: string,
): PlainCommand {
  const name = nameOf(url, mountPath)
  switch (method) {
    case 'POST':
      if (name !== undefined) throw new Refusal('method-plain')
      return parseForm(headers)
    case 'PUT':
      return parsePut(checked(name), headers)
    case 'HEAD':
      return name === undefined ? { do: 'show-form' } : { do: 'ask', name: checked(name) }
    case 'GET':
      return name === undefined ? { do: 'show-form' } : { do: 'read', name: checked(name) }
    case 'DELETE':
      return { do: 'remove', name: checked(name) }
    default:
      throw new Refusal('method-plain')
  }
}

/** Whether a text can name a file, wherever it is written to. */
export function isName(text: string): boolean {
  return (
    text !== '' &&
    text !== '.' &&
    text !== '..' &&
    !/[\p{Cc}/\\]/u.test(text) &&
    text.isWellFormed() &&
    Buffer.byteLength(text) <= longestNameBytes
  )
}

/** RFC 9110, 14.4. `bytes 5-4/5` is no range there; of tools that count on it means that nothing is left to send. */
export function parseContentRange(text: string): ContentRange | undefined {
  const [, first, last, size] = /^bytes[ \t]+(\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i.exec(text.trim()) ?? []
  if (first === undefined) return undefined
  const range = { first: Number(first), last: Number(last), size: size === '*' ? undefined : Number(size) }
  if (![range.first, range.last, range.size ?? 0].every(Number.isSafeInteger)) return undefined
  if (range.first === range.size && range.last === range.first - 1) return range
  if (range.last < range.first || range.last >= (range.size ?? Number.POSITIVE_INFINITY)) return undefined
  return range
}

/** The media type of a file when it is one that can be kept. */
export function typeOf(text: string | undefined): string | undefined {
  const type = text?.split(';')[0]?.trim().toLowerCase()
  return type !== undefined && typePattern.test(type) && type.length <= 128 ? type : undefined
}

/** The metadata of a file as tus has it: so uploads look alike, whoever sent them. */
export function metadataOf(name: string, type: string | undefined): string {
  const encode = (text: string) => Buffer.from(text).toString('base64')
  return `filename ${encode(name)}${type === undefined ? '' : `,filetype ${encode(type)}`}`
}

/** Undefined for the mount path itself. Percent-encoding is decoded once; what can not be decoded is no name. */
function nameOf(url: string, mountPath: string): string | undefined {
  const path = pathOf(url)
  const segment = path.slice(mountPath.length + 1)
  if (segment === '') return undefined
  try {
    return decodeURIComponent(segment)
  } catch {
    throw new Refusal('name-invalid')
  }
}

function checked(name: string | undefined): string {
  if (name === undefined || !isName(name)) throw new Refusal('name-invalid')
  return name
}

function parseForm(headers: RequestHeaders): PlainCommand {
  checkCodings(headers)
  if (!/^multipart\/form-data\s*;.*\bboundary=(?:"[^"]+"|[^\s;"])/is.test(one(headers, 'content-type') ?? ''))
    throw new Refusal('form-type')
  return { do: 'form', key: keyOf(one(headers, 'upload-key')) }
}

/** A word by which a client finds again what it sent before. */
export function keyOf(text: string | undefined): string | undefined {
  const key = text?.trim()
  return key === undefined || key === '' ? undefined : key.slice(0, longestKey)
}

function parsePut(name: string, headers: RequestHeaders): PutCommand {
  const isChunked = checkCodings(headers)
  const contentLength = isChunked ? undefined : parseLength(one(headers, 'content-length'))
  const declared = one(headers, 'content-range')
  const range = declared === undefined ? undefined : parseContentRange(declared)
  if (declared !== undefined && range === undefined) throw new Refusal('range-invalid')
  if (range && contentLength !== undefined && contentLength !== range.last - range.first + 1)
    throw new Refusal('range-length')
  const type = typeOf(one(headers, 'content-type'))
  // What curl says of any data that it is given, and of no file.
  const isOfForm = type === 'application/x-www-form-urlencoded'
  return { do: 'put', name, range, contentLength, type: isOfForm ? undefined : type }
}

/** Whether the body is chunked. Refuses what would be kept in another form than it was meant. */
function checkCodings(headers: RequestHeaders): boolean {
  const transfer = one(headers, 'transfer-encoding')?.toLowerCase()
  if (transfer !== undefined && transfer !== 'chunked') throw new Refusal('coding-unknown')
  const content = one(headers, 'content-encoding')?.trim().toLowerCase()
  if (content && content !== 'identity') throw new Refusal('content-encoded')
  return transfer !== undefined
}

/** HTTP has larger bodies than there are uploads: they are longer than anything. */
function parseLength(text = '0'): number {
  const length = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN
  return Number.isSafeInteger(length) ? length : Number.POSITIVE_INFINITY
}

function one(headers: RequestHeaders, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value.join(', ') : value
}
