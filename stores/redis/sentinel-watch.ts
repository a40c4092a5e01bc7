/**
 * Listens to the sentinels: they say when they have made another server the primary. A primary that only they cannot
 * reach would else be written to by this process for as long as it answers.
 */
import type { Redis } from 'ioredis'
import { type ClientOptions, closeClient, makeSentinelClient } from './redis-client.ts'
import type { RedisNode } from './redis-url.ts'

const CHANNEL = '+switch-master'

export class SentinelWatch {
  readonly #options: ClientOptions
  readonly #onSwitch: (primary: RedisNode) => void
  #clients: Redis[] = []

  constructor(options: ClientOptions, onSwitch: (primary: RedisNode) => void) {
    this.#options = options
    this.#onSwitch = onSwitch
  }

  start(): void {
    const { target } = this.#options
    if (target.is !== 'sentinel') return
    this.#clients = target.nodes.map((node) => {
      const client = makeSentinelClient(this.#options, node, true)
      client.on('error', () => {})
      client.on('ready', () => void client.subscribe(CHANNEL).catch(() => client.stream?.destroy()))
      client.on('message', (_channel, message: string) => {
        const [name, , , host, port] = message.split(' ')
        if (name === target.name && host !== undefined) this.#onSwitch({ host, port: Number(port) })
      })
      client.connect().catch(() => {})
      return client
    })
  }

  async close(): Promise<void> {
    const clients = this.#clients
    this.#clients = []
    await Promise.all(clients.map(closeClient))
  }
}
