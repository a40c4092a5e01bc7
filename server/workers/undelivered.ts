/**
 * The connections that a worker was given and has not said to have got. When it is killed before that, node:cluster
 * forgets them open, and their clients would wait for ever; so they are closed, and the clients try again.
 *
 * It looks at what node:cluster sends, which is the handle of the connection, one at a time for each port. Should a
 * version of Node do otherwise, it does nothing.
 */
import type { ChildProcess } from 'node:child_process'

interface Handle {
  close(): void
}

export class Undelivered {
  /** The last for each port; closing one that was delivered does nothing, because the sender has closed it before. */
  readonly #last = new Map<unknown, Handle>()

  constructor(child: ChildProcess) {
    const send = child.send
    const last = this.#last
    child.send = function (this: ChildProcess, ...args: unknown[]) {
      const [message, handle] = args as [{ act?: unknown; key?: unknown }?, Partial<Handle>?]
      if (message?.act === 'newconn' && typeof handle?.close === 'function')
        last.set(message.key, handle as Handle)
      return Reflect.apply(send, this, args) as boolean
    } as typeof send
  }

  /** To be called when the child has exited. */
  close(): void {
    for (const handle of this.#last.values()) handle.close()
    this.#last.clear()
  }
}
