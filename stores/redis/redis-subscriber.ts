/**
 * The one connection of a process on which it is told things. After a loss it is made anew, to whichever server answers
 * then, and subscribes again; messages that are sent meanwhile are lost.
 */
import type { Socket } from 'node:net'
import type { Redis } from 'ioredis'
import { closeClient, firstConnection, reconnectDelayMs } from './redis-client.ts'

interface Hearer {
  readonly onMessage: (message: string) => void
  readonly onAgain: (() => void) | undefined
}

export class RedisSubscriber {
  readonly #makeClient: () => Redis
  readonly #channels = new Map<string, Hearer>()
  #client: Redis | undefined
  #starting: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #attempt = 0

  /** `makeClient` makes one that does not connect anew by itself. */
  constructor(makeClient: () => Redis) {
    this.#makeClient = makeClient
  }

  /** Returns when it is subscribed. `onAgain` is called when it is so again, after a loss of the connection. */
  async add(channel: string, onMessage: (message: string) => void, onAgain?: () => void): Promise<void> {
    this.#starting ??= this.#connect()
    try {
      await this.#starting
    } catch (error) {
      this.#starting = undefined
      throw error
    }
    await this.#client?.subscribe(channel)
    this.#channels.set(channel, { onMessage, onAgain })
  }

  async remove(channel: string): Promise<void> {
    this.#channels.delete(channel)
    // A connection that is lost is no longer subscribed either.
    await this.#client?.unsubscribe(channel).catch(() => {})
  }

  /** Cuts the connection if it has gone silent, so that it is made anew. */
  check(): void {
    const client = this.#client
    if (client?.status === 'ready') client.ping().catch(() => client.stream?.destroy())
  }

  /** Another server may have taken over from the one that is listened to, which still answers, cut off from the others. */
  leaveUnlessAt(primaries: readonly Redis[]): void {
    const own = this.#client?.stream as Socket | undefined
    const isThere = primaries.some(({ stream }) => {
      const { remoteAddress, remotePort } = (stream ?? {}) as Partial<Socket>
      return remoteAddress === own?.remoteAddress && remotePort === own?.remotePort
    })
    if (!isThere) own?.destroy()
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer)
    const client = this.#client
    this.#client = this.#starting = this.#timer = undefined
    this.#channels.clear()
    await closeClient(client)
  }

  async #connect(): Promise<void> {
    const client = this.#makeClient()
    this.#client = client
    client.on('error', () => {})
    client.on('message', (channel: string, message: string) =>
      this.#channels.get(channel)?.onMessage(message),
    )
    const failure = await firstConnection(client)
    if (failure !== undefined) {
      client.disconnect()
      throw failure
    }
    if (this.#client !== client) return client.disconnect()
    this.#attempt = 0
    if (client.status === 'ready') client.once('end', () => this.#connectAgain(client))
    else this.#connectAgain(client)
    const channels = [...this.#channels.keys()]
    if (channels.length === 0) return
    client.subscribe(...channels).then(
      () => {
        for (const { onAgain } of [...this.#channels.values()]) onAgain?.()
      },
      () => client.stream?.destroy(),
    )
  }

  #connectAgain(lost: Redis): void {
    if (this.#client !== lost) return
    this.#timer = setTimeout(
      () => {
        if (this.#client !== lost) return
        this.#connect().catch(() => {
          if (this.#client !== undefined && this.#starting !== undefined) this.#connectAgain(this.#client)
        })
      },
      reconnectDelayMs(++this.#attempt),
    )
  }
}
