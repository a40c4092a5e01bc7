/** One server, at an address or wherever the sentinels say that the primary is. */
import { isIP, type Socket } from 'node:net'
import type { Redis } from 'ioredis'
import { type ClientOptions, closeClient, firstConnection, makeClient } from './redis-client.ts'
import { describe, isTimeout } from './redis-failure.ts'
import type { HomeEvents, RedisHome } from './redis-home.ts'
import { SentinelWatch } from './sentinel-watch.ts'

export class RedisSingle implements RedisHome {
  readonly commands: Redis
  readonly #options: ClientOptions
  readonly #watch: SentinelWatch | undefined
  #lastError: Error | undefined
  #isClosed = false

  constructor(options: ClientOptions, events: HomeEvents) {
    this.#options = options
    const client = makeClient(options)
    this.commands = client
    client.on('error', (error) => {
      this.#lastError = error
    })
    client.on('ready', () => {
      this.#lastError = undefined
      events.onAvailable()
      events.onReady(client)
    })
    client.on('close', () => {
      if (this.#isClosed) return
      events.onAway(this.#lastError === undefined ? 'the connection was closed' : describe(this.#lastError))
    })
    if (options.target.is === 'sentinel') {
      this.#watch = new SentinelWatch(options, ({ host, port }) => {
        const { remoteAddress, remotePort } = client.stream as Socket
        // Several sentinels say it, and the connection may be the new one already.
        const isThere = remotePort === port && (remoteAddress === host || !isIP(host))
        if (client.status === 'ready' && !isThere) client.disconnect(true)
      })
    }
  }

  get isUsable(): boolean {
    return this.commands.status === 'ready'
  }

  get primaries(): readonly Redis[] {
    return [this.commands]
  }

  async start(): Promise<Error | undefined> {
    const failure = await firstConnection(this.commands)
    if (failure === undefined) this.#watch?.start()
    return failure
  }

  makeSubscriber(): Redis {
    return makeClient(this.#options, undefined, false)
  }

  onFailure(error: unknown): void {
    if (isTimeout(error)) this.commands.stream?.destroy()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#watch?.close()
    await closeClient(this.commands)
  }
}
