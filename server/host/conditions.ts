/**
 * Conditional requests: whether a representation is sent, is known already, or is not the one that was meant; and
 * whether a range of it is. In the order of RFC 9110, 13.2.2. Pure.
 */
import fresh from 'fresh'
import type { RequestHeaders } from '../protocol/tus.ts'

/** What names the bytes that a URL gives now. */
export interface Validators {
  /** Strong, with its quotes. */
  readonly etag: string
  /** An HTTP date has seconds; what it leaves out is cut off. Milliseconds since the epoch. */
  readonly modifiedAt: number
}

export type Verdict = 'send' | 'not-modified' | 'failed'

/** For GET and HEAD. */
export function judge(request: RequestHeaders, { etag, modifiedAt }: Validators): Verdict {
  const match = one(request, 'if-match')
  if (match !== undefined) {
    if (!isNamedIn(match, etag)) return 'failed'
  } else {
    const since = dateOf(one(request, 'if-unmodified-since'))
    if (since !== undefined && seconds(modifiedAt) > since) return 'failed'
  }
  const noneMatch = one(request, 'if-none-match')
  const modifiedSince = dateOf(one(request, 'if-modified-since'))
  const asked = {
    ...(noneMatch !== undefined && { 'if-none-match': noneMatch }),
    // A date is for those who know no better name (13.1.3).
    ...(noneMatch === undefined &&
      modifiedSince !== undefined && {
        'if-modified-since': httpDate(modifiedSince * 1000),
      }),
  }
  return fresh(asked, { etag, 'last-modified': httpDate(modifiedAt) }) ? 'not-modified' : 'send'
}

/** Whether the `Range` of a request counts: it has no `If-Range`, or one that names exactly what is there (13.1.5). */
export function isRangeMeant(
  request: RequestHeaders,
  { etag, modifiedAt }: Validators,
  now: number,
): boolean {
  const condition = one(request, 'if-range')?.trim()
  if (condition === undefined) return true
  if (condition.startsWith('"') || condition.startsWith('W/')) return condition === etag
  // Within its second a date does not tell one version from the next (8.8.2.2).
  return dateOf(condition) === seconds(modifiedAt) && now - modifiedAt >= 1000
}

export function httpDate(at: number): string {
  return new Date(at).toUTCString()
}

/** By the strong comparison: a weak name never fits. */
function isNamedIn(list: string, etag: string): boolean {
  return list.trim() === '*' || list.split(',').some((name) => name.trim() === etag)
}

/** In whole seconds; undefined for what is no date of HTTP, which counts for nothing. */
function dateOf(text: string | undefined): number | undefined {
  const at = text?.endsWith(' GMT') ? Date.parse(text) : Number.NaN
  return Number.isNaN(at) ? undefined : seconds(at)
}

function seconds(at: number): number {
  return Math.floor(at / 1000)
}

function one(headers: RequestHeaders, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value.join(', ') : value
}
