/** Cross-origin rules: who may call from a browser, with which headers, and which answers a page may read. */
import type { RequestHeaders } from './tus.ts'

export interface CorsOptions {
  /** Origins that may call, or a function that decides; undefined lets everybody. */
  readonly allowedOrigins?: readonly string[] | ((origin: string) => boolean) | undefined
  readonly allowedHeaders?: readonly string[] | undefined
  readonly exposedHeaders?: readonly string[] | undefined
  readonly allowedCredentials?: boolean | undefined
}

const requestHeaders = [
  'Authorization',
  'Content-Type',
  'Origin',
  'Repr-Digest',
  'If-Match',
  'If-Modified-Since',
  'If-None-Match',
  'If-Range',
  'If-Unmodified-Since',
  'Range',
  'Tus-Resumable',
  'Upload-Checksum',
  'Upload-Concat',
  'Upload-Defer-Length',
  'Upload-Length',
  'Upload-Metadata',
  'Upload-Offset',
  'X-HTTP-Method-Override',
  'X-Request-ID',
  'X-Requested-With',
]

const answerHeaders = [
  'Accept-Ranges',
  'Content-Disposition',
  'Content-Range',
  'ETag',
  'Last-Modified',
  'Location',
  'Repr-Digest',
  'Retry-After',
  'Tus-Checksum-Algorithm',
  'Tus-Extension',
  'Tus-Max-Size',
  'Tus-Resumable',
  'Tus-Version',
  'Upload-Concat',
  'Upload-Defer-Length',
  'Upload-Expires',
  'Upload-Length',
  'Upload-Metadata',
  'Upload-Offset',
  'Want-Repr-Digest',
  'WWW-Authenticate',
  'X-Request-ID',
]

/** The CORS headers of an answer, errors included. `isPreflight` adds what a preflight asks for. */
export function corsHeaders(
  request: RequestHeaders,
  options: CorsOptions,
  isPreflight: boolean,
): Record<string, string> {
  const headers: Record<string, string> = {}
  const origin = typeof request.origin === 'string' ? request.origin : undefined
  const allowed = allowedOrigin(origin, options)
  if (allowed !== '*') headers.Vary = 'Origin'
  if (allowed === undefined) return headers
  headers['Access-Control-Allow-Origin'] = allowed
  if (options.allowedCredentials) headers['Access-Control-Allow-Credentials'] = 'true'
  headers['Access-Control-Expose-Headers'] = [...answerHeaders, ...(options.exposedHeaders ?? [])].join(', ')
  if (!isPreflight) return headers
  headers['Access-Control-Allow-Methods'] = 'OPTIONS, POST, HEAD, PATCH, GET, DELETE'
  headers['Access-Control-Allow-Headers'] = [...requestHeaders, ...(options.allowedHeaders ?? [])].join(', ')
  headers['Access-Control-Max-Age'] = '86400'
  return headers
}

/** Scheme, the longest name that there is, and a port. What is longer is none, and no pattern is tried on it. */
const longestOrigin = 300

/** With credentials browsers refuse a `*`, so the origin itself is named. */
function allowedOrigin(origin: string | undefined, options: CorsOptions): string | undefined {
  const { allowedOrigins, allowedCredentials } = options
  if (allowedOrigins === undefined) return allowedCredentials ? origin : '*'
  if (origin === undefined || origin.length > longestOrigin) return undefined
  const isAllowed =
    typeof allowedOrigins === 'function' ? allowedOrigins(origin) : allowedOrigins.includes(origin)
  return isAllowed ? origin : undefined
}
