// A receiver of hooks: a real HTTP server that keeps what it is sent, and answers as a test says.

import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import type { HookType } from '../../server/hooks/hook-types.ts'
import type { HookPayload } from '../../server/hooks/payload.ts'

export interface Received {
  readonly type: HookType
  readonly payload: HookPayload
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** JSON to answer with, or what is to be done to the connection. */
export type Behaviour = object | ((response: ServerResponse, received: Received) => void)

export class Receiver {
  readonly received: Received[] = []
  /** By type; what is not named is answered with `{}`. */
  answers: Partial<Record<HookType, Behaviour>> = {}
  readonly #server: Server
  #waiting: (() => void)[] = []
  #port = 0

  private constructor(server: Server) {
    this.#server = server
    server.on('request', async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      const body = Buffer.concat(chunks).toString()
      const payload = JSON.parse(body) as HookPayload
      const received = { type: payload.Type, payload, headers: request.headers, body }
      this.received.push(received)
      const answer = this.answers[payload.Type] ?? {}
      if (typeof answer === 'function') answer(response, received)
      else answerJson(response, answer)
      for (const wake of this.#waiting.splice(0)) wake()
    })
  }

  static async start(): Promise<Receiver> {
    const receiver = new Receiver(createServer())
    await receiver.up()
    onTestFinished(() => receiver.down())
    return receiver
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/hooks`
  }

  async up(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.#port = (this.#server.address() as AddressInfo).port
  }

  async down(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }

  of(type: HookType): Received[] {
    return this.received.filter((each) => each.type === type)
  }

  get types(): HookType[] {
    return this.received.map(({ type }) => type)
  }

  /** Resolves with the first so many of a type, when they have come. */
  async until(type: HookType, count = 1): Promise<Received[]> {
    while (this.of(type).length < count) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    return this.of(type)
  }
}

export function answerJson(response: ServerResponse, answer: object, status = 200): void {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer))
}
