/** Which request runs on which connection, from its headers until its response is closed. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { factsOf, type RequestFacts } from './request-facts.ts'

interface Running {
  readonly res: ServerResponse
  readonly facts: RequestFacts
}

export class RunningRequests {
  readonly #bySocket = new WeakMap<Socket, Running>()
  #count = 0
  #onNone: (() => void)[] = []

  add(req: IncomingMessage, res: ServerResponse): void {
    const running = { res, facts: factsOf(req) }
    const { socket } = req
    this.#bySocket.set(socket, running)
    this.#count++
    res.once('close', () => {
      if (--this.#count === 0) for (const resolve of this.#onNone.splice(0)) resolve()
      if (this.#bySocket.get(socket) === running) this.#bySocket.delete(socket)
    })
  }

  on(socket: Socket): Running | undefined {
    return this.#bySocket.get(socket)
  }

  /** Resolves as soon as no request runs. */
  async none(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#onNone.push(resolve))
  }
}
