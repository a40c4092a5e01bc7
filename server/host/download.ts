/**
 * Finished uploads as downloads: whole or a range of them, under a name and a type that can do no harm. What came from
 * metadata reaches a header only through an encoder.
 */
import contentDisposition from 'content-disposition'
import rangeParser from 'range-parser'
import type { ByteStore, UploadRecord } from '../../stores/contracts.ts'
import { declaredType, parseMetadata } from '../protocol/metadata.ts'
import type { RequestHeaders } from '../protocol/tus.ts'
import type { Reply } from './exchange.ts'

/** Types that a browser may show in place; anything that can run scripts is only ever saved. */
const shownInline = new Set([
  'application/ogg',
  'audio/mpeg',
  'audio/ogg',
  'audio/wav',
  'audio/webm',
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

export async function download(
  bytes: ByteStore,
  record: UploadRecord,
  request: RequestHeaders,
): Promise<Reply> {
  const size = record.mark.offset
  const headers = { ...describe(record), 'Accept-Ranges': 'bytes' }
  if (isNamed(headers.ETag, request['if-none-match'])) return { is: 'answer', status: 304, headers }
  const range = wantedRange(request, size, headers.ETag)
  if (range === 'unsatisfiable')
    return { is: 'answer', status: 416, headers: { 'Content-Range': `bytes */${size}` } }
  const { start, end } = range ?? { start: 0, end: size - 1 }
  return {
    is: 'answer',
    status: range ? 206 : 200,
    headers: {
      ...headers,
      'Content-Length': String(end - start + 1),
      ...(range && { 'Content-Range': `bytes ${start}-${end}/${size}` }),
    },
    body: await bytes.read(record, start, end + 1),
  }
}

function describe({ head }: UploadRecord) {
  const metadata = parseMetadata(head.metadata ?? '') ?? {}
  const declared = declaredType(head.metadata)
  const type = declared && typePattern.test(declared) ? declared : 'application/octet-stream'
  const name = (metadata.filename ?? metadata.name ?? undefined)?.replace(/[\p{Cc}\p{Cf}]/gu, '')
  const isInline = shownInline.has(type)
  return {
    'Content-Type': type === 'text/plain' ? 'text/plain; charset=utf-8' : type,
    'Content-Disposition': contentDisposition(name, { type: isInline ? 'inline' : 'attachment' }),
    'X-Content-Type-Options': 'nosniff',
    'Content-Security-Policy': "default-src 'none'; sandbox",
    // An upload never changes once it is finished, so its id and its creation name its bytes.
    ETag: `"${Buffer.from(`${head.id}/${head.createdAt}`).toString('base64url')}"`,
  }
}

/** Whether a list of ETags names this one; strong or weak makes no difference to it (RFC 9110, 13.1.2). */
function isNamed(etag: string, list: string | string[] | undefined): boolean {
  const names = String(list ?? '').split(',')
  return names.some((name) => name.trim() === '*' || name.trim().replace(/^W\//, '') === etag)
}

/** One range, or undefined for the whole: several ranges, other units and a stale If-Range are answered in full. */
function wantedRange(
  request: RequestHeaders,
  size: number,
  etag: string,
): { start: number; end: number } | 'unsatisfiable' | undefined {
  const { range } = request
  const condition = request['if-range']
  if (typeof range !== 'string' || (condition !== undefined && condition !== etag)) return undefined
  const ranges = rangeParser(size, range)
  if (ranges === -1) return 'unsatisfiable'
  if (ranges === -2 || ranges.type !== 'bytes' || ranges.length !== 1) return undefined
  return ranges[0]
}
