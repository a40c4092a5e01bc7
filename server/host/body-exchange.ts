/** A request of which one upload gets a part of the body: a file of a form, or bytes that have to be counted. */
import type { Readable } from 'node:stream'
import type { ServerRequest } from 'srvx'
import type { RequestHeaders } from '../protocol/tus.ts'
import type { Exchange } from './exchange.ts'
import type { RequestFacts } from './request-facts.ts'

export class BodyExchange implements Exchange {
  readonly #whole: Exchange
  readonly #open: () => Readable

  constructor(whole: Exchange, open: () => Readable) {
    this.#whole = whole
    this.#open = open
  }

  get method(): string {
    return this.#whole.method
  }

  get url(): string {
    return this.#whole.url
  }

  get headers(): RequestHeaders {
    return this.#whole.headers
  }

  get authorization(): readonly string[] {
    return this.#whole.authorization
  }

  get peerPort(): number | undefined {
    return this.#whole.peerPort
  }

  get trailers(): RequestHeaders {
    return this.#whole.trailers
  }

  get isEncrypted(): boolean {
    return this.#whole.isEncrypted
  }

  get peerAddress(): string | undefined {
    return this.#whole.peerAddress
  }

  get facts(): Partial<RequestFacts> {
    return this.#whole.facts
  }

  body(): Readable {
    return this.#open()
  }

  /** Those of a part are not. */
  hasOwnPieces(body: Readable): boolean {
    return this.#whole.hasOwnPieces?.(body) === true
  }

  get signal(): AbortSignal {
    return this.#whole.signal
  }

  get isGone(): boolean {
    return this.#whole.isGone
  }

  get request(): ServerRequest {
    return this.#whole.request
  }
}
