/**
 * Exactly one log line per request, written when the response is closed: aborted requests have one too. Query values
 * stay out of it, they may be secrets.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from 'pino'
import { factsOf } from './request-facts.ts'

/** How a request ended; without a status when it was cut. */
export interface RequestEnd {
  readonly status: number | undefined
  readonly durationMs: number
}

/** Call once for every request, before anything can end it. */
export function logWhenClosed(
  req: IncomingMessage,
  res: ServerResponse,
  logger: Logger,
  onEnd?: (end: RequestEnd) => void,
): void {
  const facts = factsOf(req)
  const startedAt = performance.now()
  res.once('close', () => {
    const status = facts.status ?? (res.headersSent ? res.statusCode : undefined)
    const durationMs = Math.round((performance.now() - startedAt) * 10) / 10
    onEnd?.({ status, durationMs })
    const line = {
      requestId: facts.requestId,
      method: req.method,
      url: loggedUrl(req.url ?? ''),
      status,
      durationMs,
      ...(res.writableFinished || facts.status !== undefined ? {} : { aborted: true }),
      owner: facts.owner,
      tokenId: facts.tokenId,
      uploadId: facts.uploadId,
      bytesReceived: facts.bytesReceived,
      offset: facts.offset,
      code: facts.code,
      remoteAddress: facts.remoteAddress,
      ...(facts.error === undefined ? {} : { err: facts.error }),
    }
    logger[levelOf(status, facts.error, facts.isRoutine)](line, 'request')
  })
}

function levelOf(status = 0, error: unknown, isRoutine = false): 'debug' | 'info' | 'warn' | 'error' {
  if (isRoutine) return 'debug'
  if (error !== undefined || status === 500) return 'error'
  return status > 500 ? 'warn' : 'info'
}

/**
 * The URL with the names of its query, without their values: `/files/?token`. What stands there without a name may be a
 * secret itself, and so may what stands before a host: `http://user:password@host/`.
 */
function loggedUrl(url: string): string {
  const at = url.indexOf('?')
  const path = (at < 0 ? url : url.slice(0, at)).slice(0, 1024).replace(userInfo, '$1')
  if (at < 0) return path
  const names = url
    .slice(at + 1, at + 1025)
    .split('&')
    .map((pair) => (pair.includes('=') ? pair.split('=', 1)[0] : '*'))
  return `${path}?${names.join('&')}`
}

const userInfo = /^([a-z][a-z0-9+.-]*:\/\/)[^/]*@/i
