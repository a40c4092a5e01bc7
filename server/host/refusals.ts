/**
 * How the host itself says no, before or beside the rooms: as uploads say it. A tus client may be at the other end of any
 * URL, and a page of another site must be able to read the answer.
 */
import type { Config } from '../config.ts'
import { type ErrorCode, Refusal } from '../errors.ts'
import { corsHeaders } from '../protocol/cors.ts'
import { renderRefusal } from '../protocol/tus.ts'

export interface RefusalAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export function refusalAnswer(
  code: ErrorCode,
  allowed: Config['corsAllowOrigin'],
  origin: string | undefined,
): RefusalAnswer {
  const { status, headers, body = '' } = renderRefusal(new Refusal(code))
  const cors = hostCors(allowed, origin)
  return { status, headers: { ...headers, ...cors, 'Content-Length': String(Buffer.byteLength(body)) }, body }
}

/** The CORS headers of what the host itself answers. */
export function hostCors(
  allowed: Config['corsAllowOrigin'],
  origin: string | undefined,
): Record<string, string> {
  const allowedOrigins = allowed === '*' ? undefined : (asking: string) => allowed.test(asking)
  return corsHeaders({ origin }, { allowedOrigins }, false)
}
