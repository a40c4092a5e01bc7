/**
 * Which requests run on which connection, each from its headers until its response is closed. There may be several:
 * clients send the next ones before the first is answered.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { factsOf, type RequestFacts } from './request-facts.ts'

interface Running {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly facts: RequestFacts
}

export class RunningRequests {
  readonly #bySocket = new WeakMap<Socket, Running[]>()
  #count = 0
  #onNone: (() => void)[] = []

  add(req: IncomingMessage, res: ServerResponse): void {
    const running = { req, res, facts: factsOf(req) }
    const all = this.#allOn(req.socket)
    all.push(running)
    this.#count++
    res.once('close', () => {
      all.splice(all.indexOf(running), 1)
      if (--this.#count === 0) for (const resolve of this.#onNone.splice(0)) resolve()
    })
  }

  /** In the order in which they came, and will be answered. */
  on(socket: Socket): Running[] {
    return [...(this.#bySocket.get(socket) ?? [])]
  }

  /** Resolves as soon as no request runs. */
  async none(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#onNone.push(resolve))
  }

  #allOn(socket: Socket): Running[] {
    let all = this.#bySocket.get(socket)
    if (all === undefined) {
      all = []
      this.#bySocket.set(socket, all)
      socket.once('close', () => process.nextTick(() => this.#closeWaiting(socket)))
    }
    return all
  }

  /**
   * When a connection ends, Node closes the response whose turn it was. Those behind it would never learn that they have
   * no reader: they would keep their files open, and this server from ending.
   */
  #closeWaiting(socket: Socket): void {
    for (const { res } of this.on(socket)) {
      res.destroyed = true
      res.emit('close')
    }
  }
}
