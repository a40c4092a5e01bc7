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

  add(req: IncomingMessage, res: ServerResponse): void {
    const running = { res, facts: factsOf(req) }
    const { socket } = req
    this.#bySocket.set(socket, running)
    res.once('close', () => {
      if (this.#bySocket.get(socket) === running) this.#bySocket.delete(socket)
    })
  }

  on(socket: Socket): Running | undefined {
    return this.#bySocket.get(socket)
  }
}
