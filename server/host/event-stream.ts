/**
 * One reader of server-sent events. What it does not take stays with the system and, up to a write, in this process: who
 * writes asks `isReady` before. A reader that takes nothing for too long is let go; it comes back when it can.
 */
import type { ServerResponse } from 'node:http'

export class EventStream {
  readonly #res: ServerResponse
  readonly #onReady: () => void
  #stuckSince: number | undefined

  /** `onReady`: it takes more again. */
  constructor(res: ServerResponse, headers: Record<string, string>, onReady: () => void) {
    this.#res = res
    this.#onReady = onReady
    res.writeHead(200, {
      ...headers,
      'Content-Type': 'text/event-stream; charset=utf-8',
      'Cache-Control': 'no-store',
      'X-Accel-Buffering': 'no',
      'X-Content-Type-Options': 'nosniff',
    })
    res.flushHeaders()
    res.on('drain', () => {
      this.#stuckSince = undefined
      this.#onReady()
    })
  }

  get isReady(): boolean {
    return this.#stuckSince === undefined && !this.#res.destroyed && !this.#res.writableEnded
  }

  /** `data` becomes one line of JSON. */
  send(event: string, id: number, data: unknown): void {
    this.#write(`id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  }

  /** How long a client waits before it comes back, and a sign of life for it and for the proxies between. */
  retryAfter(ms: number): void {
    this.#write(`retry: ${ms}\n\n`)
  }

  /** A sign of life; or the end of a reader that has taken nothing for `patienceMs`. */
  beat(patienceMs: number): void {
    if (this.isReady) this.#write(': still here\n\n')
    else if (this.#stuckSince !== undefined && performance.now() - this.#stuckSince >= patienceMs)
      this.#res.destroy()
  }

  end(): void {
    // A reader that takes nothing would keep this server from ending.
    if (this.isReady) this.#res.end()
    else this.#res.destroy()
  }

  #write(text: string): void {
    if (this.#res.destroyed || this.#res.writableEnded) return
    if (!this.#res.write(text)) this.#stuckSince ??= performance.now()
  }
}
