/**
 * One request and its answer, the same for Node's own objects and for web ones. What most requests do not need (a web
 * Request for hooks, an AbortSignal) is made when somebody asks for it.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import type { ServerRequest } from 'srvx'
import { NodeRequest } from 'srvx/node'
import { authorizationOf } from '../access/bearer.ts'
import type { Answer, RequestHeaders } from '../protocol/tus.ts'
import { isHeardBy } from '../uploads/spent-pieces.ts'
import { factsOf, type RequestFacts } from './request-facts.ts'

export interface Exchange {
  readonly method: string
  readonly url: string
  readonly headers: RequestHeaders
  /** Every `Authorization` header; `headers` shows the first alone. */
  readonly authorization: readonly string[]
  /** Known when the body has ended. */
  readonly trailers: RequestHeaders
  readonly isEncrypted: boolean
  /** The address that the connection comes from; undefined where nobody knows. */
  readonly peerAddress: string | undefined
  readonly peerPort: number | undefined
  /** Where the request log looks. */
  readonly facts: Partial<RequestFacts>
  /** The body; asking for it tells a client that waits (`Expect: 100-continue`) to go on. */
  body(): Readable
  /** Whether every piece of this body is made for who reads it, and is all of its memory. */
  hasOwnPieces?(body: Readable): boolean
  /** Takes the whole body, where all of it has come and is so long. */
  wholeBody?(length: number): Uint8Array | undefined
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal
  /** Whether it has aborted; costs less. */
  readonly isGone: boolean
  /** What hooks written for @tus/server are given. */
  readonly request: ServerRequest
}

/**
 * What goes back: an answer, whose body may be a stream; what a route of the application made, as it is; or nothing at
 * all, and the connection is cut.
 */
export type Reply =
  | { readonly is: 'cut' }
  | { readonly is: 'response'; readonly response: Response }
  | (Omit<Answer, 'body'> & { readonly is: 'answer'; readonly body?: string | Readable })

export class NodeExchange implements Exchange {
  readonly facts: RequestFacts
  readonly #req: IncomingMessage
  readonly #res: ServerResponse
  #request: ServerRequest | undefined
  #gone: AbortController | undefined

  constructor(req: IncomingMessage, res: ServerResponse) {
    this.#req = req
    this.#res = res
    this.facts = factsOf(req)
  }

  get method(): string {
    return this.#req.method ?? 'GET'
  }

  /** The URL before a router cut its mount path off. */
  get url(): string {
    const { originalUrl, url = '/' } = this.#req as IncomingMessage & { originalUrl?: string }
    return originalUrl ?? url
  }

  get headers(): RequestHeaders {
    return this.#req.headers
  }

  get authorization(): readonly string[] {
    return authorizationOf(this.#req.rawHeaders, this.#req.headers)
  }

  get trailers(): RequestHeaders {
    return this.#req.trailers
  }

  get isEncrypted(): boolean {
    return 'encrypted' in this.#req.socket
  }

  get peerAddress(): string | undefined {
    return this.#req.socket.remoteAddress
  }

  get peerPort(): number | undefined {
    return this.#req.socket.remotePort
  }

  body(): Readable {
    if (this.facts.expectsContinue) {
      this.facts.expectsContinue = false
      this.#res.writeContinue()
    }
    return this.#req
  }

  /** As Node makes them for a real connection. What a test injects may lie in memory that others use. */
  hasOwnPieces(body: Readable): boolean {
    return body === this.#req && this.#req.socket instanceof Socket
  }

  wholeBody(length: number): Uint8Array | undefined {
    const req = this.#req
    // Who listens too is to be given its pieces as they come.
    if (!isHeardBy(0, req)) return undefined
    // With the last byte of a known length the request is over, though Node says so a moment later.
    if (req.readableLength !== length || req.headers['content-length'] !== String(length)) return undefined
    return (req.read() as Buffer | null) ?? undefined
  }

  get isGone(): boolean {
    return this.#res.destroyed && !this.#res.writableFinished
  }

  get signal(): AbortSignal {
    if (this.#gone === undefined) {
      const gone = new AbortController()
      this.#gone = gone
      this.#res.once('close', () => {
        if (!this.#res.writableFinished) gone.abort()
      })
      if (this.#res.destroyed) gone.abort()
    }
    return this.#gone.signal
  }

  get request(): ServerRequest {
    if (this.#request === undefined) {
      this.#request = new NodeRequest({ req: this.#req, res: this.#res })
      // Hooks written for @tus/server reach Node's own objects here.
      Object.assign(this.#request, { node: { req: this.#req, res: this.#res } })
    }
    return this.#request
  }
}

export class WebExchange implements Exchange {
  /** The web's Request has none, and does not know the port it came from. */
  readonly trailers: RequestHeaders = {}
  readonly peerPort = undefined
  readonly facts: Partial<RequestFacts> = {}
  readonly request: ServerRequest
  #headers: RequestHeaders | undefined

  constructor(request: Request) {
    this.request = request as ServerRequest
  }

  get method(): string {
    return this.request.method
  }

  get url(): string {
    return this.request.url
  }

  get headers(): RequestHeaders {
    this.#headers ??= this.#readHeaders()
    return this.#headers
  }

  /** Several are one here, with a comma between them, which no token can have. */
  get authorization(): readonly string[] {
    const header = this.request.headers.get('authorization')
    return header === null ? [] : [header]
  }

  get isEncrypted(): boolean {
    return this.request.url.startsWith('https:')
  }

  get peerAddress(): string | undefined {
    return this.request.ip
  }

  body(): Readable {
    const { body } = this.request
    return body ? Readable.fromWeb(body as ReadableStream) : Readable.from([])
  }

  get signal(): AbortSignal {
    return this.request.signal
  }

  get isGone(): boolean {
    return this.signal.aborted
  }

  /**
   * With the two headers that HTTP/1.1 has and a web Request may not: the host, which its URL says, and the word for a
   * body whose length nobody says.
   */
  #readHeaders(): RequestHeaders {
    const { headers, url, body } = this.request
    const isOfUnknownLength = body !== null && !headers.has('content-length')
    return {
      host: new URL(url).host,
      ...(isOfUnknownLength && { 'transfer-encoding': 'chunked' }),
      ...Object.fromEntries(headers),
    }
  }
}

/** The web form of a reply. What can not be answered at all becomes a network error for the caller. */
export function toWebResponse(reply: Reply): Response {
  if (reply.is === 'cut') return Response.error()
  if (reply.is === 'response') return reply.response
  const { status, headers, body } = reply
  const isEmpty = status === 204 || status === 304 || body === undefined
  const content = typeof body === 'string' ? body : body && (Readable.toWeb(body) as ReadableStream)
  return new Response(isEmpty ? null : (content as ConstructorParameters<typeof Response>[0]), {
    status,
    headers,
  })
}
