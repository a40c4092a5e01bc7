/**
 * What is known about a request, beside its headers. Rooms write down what they find out (the upload, the code of a
 * refusal, bytes); the request log reads it when the request is over. One object per request, gone with it.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

export interface RequestFacts {
  /** The client's or proxy's own X-Request-ID where it is a sane one, else made here. */
  readonly requestId: string
  /** Who sent it; behind a trusted proxy the address that the proxy says. */
  remoteAddress: string | undefined
  /** The client holds its body back until it is told to go on (`Expect: 100-continue`). */
  expectsContinue: boolean
  /** It was refused in such a way that its body is not heard out: who loses the answer asks, and is told the same. */
  isUnheard?: boolean
  /** Who asks, where that is known. */
  owner?: string
  /** Names the token that was shown; never the token. */
  tokenId?: string
  uploadId?: string
  /** The code of a refusal, from the table of errors. */
  code?: string
  /** Bytes of the body that were taken. */
  bytesReceived?: number
  /** `Upload-Offset` after the request. */
  offset?: number
  /** The status that was written past the response object. */
  status?: number
  /** An unexpected failure; the log line shows it with its stack. */
  error?: unknown
  /** Not worth a line but at level debug. */
  isRoutine?: boolean
}

export function factsOf(req: IncomingMessage): RequestFacts {
  let facts = factsByRequest.get(req)
  if (facts === undefined) {
    facts = {
      requestId: saneRequestId(req.headers['x-request-id']) ?? randomUUID(),
      remoteAddress: req.socket?.remoteAddress,
      expectsContinue: false,
    }
    factsByRequest.set(req, facts)
  }
  return facts
}

const factsByRequest = new WeakMap<IncomingMessage, RequestFacts>()

/** Ids go into headers and logs: what is long or odd is not taken over. */
function saneRequestId(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' && /^[\w.:+/=@~-]{1,128}$/.test(header) ? header : undefined
}
