/**
 * How the host itself says no, before or beside the rooms. A tus client may be at the other end of any URL, so these
 * answers carry the protocol's version, can be read by pages of other sites, and say code and sentence.
 */
import type { Config } from '../config.ts'
import { type ErrorCode, errorTable } from '../errors.ts'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export function refusalAnswer(
  code: ErrorCode,
  allowed: Config['corsAllowOrigin'],
  origin: string | undefined,
): Answer {
  const [status, sentence] = errorTable[code]
  const body = `${code}: ${sentence}\n`
  return {
    status,
    headers: {
      'Tus-Resumable': '1.0.0',
      ...corsHeaders(allowed, origin),
      'Cache-Control': 'no-store',
      'Content-Type': 'text/plain; charset=utf-8',
      'X-Content-Type-Options': 'nosniff',
      'Content-Length': String(Buffer.byteLength(body)),
    },
    body,
  }
}

/** The CORS headers of what the host itself answers. */
export function corsHeaders(
  allowed: Config['corsAllowOrigin'],
  origin: string | undefined,
): Record<string, string> {
  const expose = { 'Access-Control-Expose-Headers': 'Tus-Resumable, WWW-Authenticate, X-Request-ID' }
  if (allowed === '*') return { 'Access-Control-Allow-Origin': '*', ...expose }
  if (origin === undefined || !allowed.test(origin)) return { Vary: 'Origin' }
  return { 'Access-Control-Allow-Origin': origin, Vary: 'Origin', ...expose }
}
