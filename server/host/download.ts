/**
 * Finished uploads as downloads that resume: whole or ranges of them, under a name and a type that can do no harm. What
 * came from metadata reaches a header only through an encoder. An upload never changes once it is finished, so whoever
 * comes back with the ETag goes on where it stopped, also after this server was killed and started again.
 */
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import contentDisposition from 'content-disposition'
import type { ByteStore, UploadRecord } from '../../stores/contracts.ts'
import { formatReprDigest } from '../protocol/digest.ts'
import { declaredType, parseMetadata } from '../protocol/metadata.ts'
import type { RequestHeaders } from '../protocol/tus.ts'
import { httpDate, isRangeMeant, judge, type Validators } from './conditions.ts'
import type { Reply } from './exchange.ts'
import { type ByteRange, parseRange } from './ranges.ts'

/** Types that a browser may show in place; anything that can run scripts is only ever saved. */
const shownInline = new Set([
  'application/ogg',
  'audio/aac',
  'audio/flac',
  'audio/mp4',
  'audio/mpeg',
  'audio/ogg',
  'audio/wav',
  'audio/webm',
  'audio/x-wav',
  'image/avif',
  'image/bmp',
  'image/gif',
  'image/jpeg',
  'image/png',
  'image/webp',
  'text/plain',
  'video/mp4',
  'video/ogg',
  'video/webm',
])
const typePattern = /^[a-z]+\/[a-z0-9][a-z0-9.+_-]*$/
/** Longer names fill the headers that proxies have room for. */
const longestName = 200

export interface DownloadRequest {
  /** Only what a GET would say. */
  readonly isHead: boolean
  readonly headers: RequestHeaders
  /** Milliseconds since the epoch. */
  readonly now: number
}

export async function download(
  bytes: ByteStore,
  record: UploadRecord,
  { isHead, headers: request, now }: DownloadRequest,
): Promise<Reply> {
  const size = record.mark.offset
  const validators = validatorsOf(record, now)
  const headers = { ...describe(record), ...validatorHeaders(record, now) }
  const verdict = judge(request, validators)
  if (verdict !== 'send')
    return { is: 'answer', status: verdict === 'failed' ? 412 : 304, headers: withoutContent(headers) }
  const range = isHead ? undefined : one(request, 'range')
  const ranges =
    range !== undefined && isRangeMeant(request, validators, now) ? parseRange(range, size) : 'whole'
  if (ranges === 'unsatisfiable')
    return {
      is: 'answer',
      status: 416,
      headers: { ...withoutContent(headers), 'Content-Range': `bytes */${size}` },
    }
  if (ranges === 'whole')
    return {
      is: 'answer',
      status: 200,
      headers: { ...headers, 'Content-Length': String(size) },
      ...(!isHead && { body: await bytes.read(record, 0, size) }),
    }
  const [first] = ranges as [ByteRange]
  if (ranges.length > 1) return multipart(bytes, record, headers, ranges)
  return {
    is: 'answer',
    status: 206,
    headers: {
      ...headers,
      'Content-Length': String(first.end - first.start + 1),
      'Content-Range': contentRange(first, size),
    },
    body: await bytes.read(record, first.start, first.end + 1),
  }
}

/** What names the bytes of an upload: for downloads, and for questions about it. */
export function validatorHeaders(record: UploadRecord, now: number) {
  const { etag, modifiedAt } = validatorsOf(record, now)
  const { digest } = record.mark
  return {
    'Accept-Ranges': 'bytes',
    ETag: etag,
    'Last-Modified': httpDate(modifiedAt),
    ...(digest && { 'Repr-Digest': formatReprDigest(digest) }),
  }
}

/** What is not finished grows, and may be set back by a loss of power: each state of it has a name of its own. */
function validatorsOf({ head, mark }: UploadRecord, now: number): Validators {
  const state = mark.state === 'finished' ? '' : `/${mark.generation}/${mark.offset}`
  return {
    etag: `"${Buffer.from(`${head.id}/${head.createdAt}${state}`).toString('base64url')}"`,
    modifiedAt: Math.min(mark.movedAt, now),
  }
}

function describe({ head }: UploadRecord) {
  const metadata = parseMetadata(head.metadata ?? '') ?? {}
  const declared = declaredType(head.metadata)
  const type = declared && typePattern.test(declared) ? declared : 'application/octet-stream'
  const name = fileName(metadata.filename ?? metadata.name ?? '')
  const isInline = shownInline.has(type)
  return {
    'Content-Type': type === 'text/plain' ? 'text/plain; charset=utf-8' : type,
    'Content-Disposition': contentDisposition(name, { type: isInline ? 'inline' : 'attachment' }),
    'X-Content-Type-Options': 'nosniff',
    'Content-Security-Policy': "default-src 'none'; media-src 'self'; sandbox",
    // An upload can be terminated, and its URL may be for few: what is kept of it is asked for before it is used again.
    'Cache-Control': 'private, no-cache',
  }
}

/**
 * A name to save a file under, without folders, and without what would show it as another: control characters, line
 * breaks, and marks that turn the direction of the text.
 */
function fileName(text: string): string | undefined {
  const name = text
    .replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ')
    .replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, '')
    .split(/[/\\]/)
    .at(-1)!
    .trim()
  if (name === '' || /^\.+$/.test(name)) return undefined
  const characters = [...name]
  if (characters.length <= longestName) return name
  const extension = /\.[^.\s]{1,20}$/u.exec(name)?.[0] ?? ''
  return characters.slice(0, longestName - extension.length).join('') + extension
}

/** Each range with a head of its own. All of them are opened now: a removal meanwhile takes none away. */
async function multipart(
  bytes: ByteStore,
  record: UploadRecord,
  headers: ReturnType<typeof describe>,
  ranges: readonly ByteRange[],
): Promise<Reply> {
  const boundary = randomBytes(15).toString('base64url')
  const heads = ranges.map((range) =>
    Buffer.from(
      `\r\n--${boundary}\r\nContent-Type: ${headers['Content-Type']}\r\n` +
        `Content-Range: ${contentRange(range, record.mark.offset)}\r\n\r\n`,
    ),
  )
  const end = Buffer.from(`\r\n--${boundary}--\r\n`)
  const length = ranges.reduce(
    (sum, { start, end }, index) => sum + end - start + 1 + heads[index]!.length,
    0,
  )
  const parts = await openAll(bytes, record, ranges)
  async function* content() {
    try {
      for (const [index, part] of parts.entries()) {
        yield heads[index]!
        yield* part
      }
      yield end
    } finally {
      for (const part of parts) part.destroy()
    }
  }
  const body = Readable.from(content(), { objectMode: false })
  // One that is given up before its first byte never enters the generator.
  body.once('close', () => {
    for (const part of parts) part.destroy()
  })
  return {
    is: 'answer',
    status: 206,
    headers: {
      ...headers,
      'Content-Type': `multipart/byteranges; boundary=${boundary}`,
      'Content-Length': String(length + end.length),
    },
    body,
  }
}

async function openAll(
  bytes: ByteStore,
  record: UploadRecord,
  ranges: readonly ByteRange[],
): Promise<Readable[]> {
  const opened: Readable[] = []
  try {
    for (const { start, end } of ranges) opened.push(await bytes.read(record, start, end + 1))
    return opened
  } catch (error) {
    for (const part of opened) part.destroy()
    throw error
  }
}

function contentRange({ start, end }: ByteRange, size: number): string {
  return `bytes ${start}-${end}/${size}`
}

/** The headers of an answer that shows none of the bytes. */
function withoutContent<T extends Record<string, string>>(headers: T): Record<string, string> {
  const { 'Content-Type': _, 'Content-Disposition': __, ...rest } = headers
  return rest
}

function one(headers: RequestHeaders, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value.join(', ') : value
}
