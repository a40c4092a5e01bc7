/**
 * A config store for @tus/server's stores: one JSON value for each upload, in Redis.
 *
 * `list` gives the keys that `get` takes. (With a prefix, the stores that @tus/utils ships list prefixed names, prefix
 * them again on `get`, and so never expire anything.)
 */
import type { KvStore, Upload } from '@tus/utils'
import { StoreError } from '../contracts.ts'
import type { RedisConnection } from './redis-connection.ts'

export class RedisConfigStore<T = Upload> implements KvStore<T> {
  readonly #connection: RedisConnection

  constructor(options: { readonly connection: RedisConnection }) {
    this.#connection = options.connection
  }

  async get(key: string): Promise<T | undefined> {
    await this.#connection.connect()
    const text = await this.#connection.run((redis) => redis.get(this.#connection.keys.config(key)))
    if (text === null) return undefined
    try {
      return JSON.parse(text) as T
    } catch (error) {
      throw new StoreError('damaged', `The value of ${key} in Redis is not JSON.`, { cause: error })
    }
  }

  async set(key: string, value: T): Promise<void> {
    await this.#connection.connect()
    await this.#connection.run((redis) => redis.set(this.#connection.keys.config(key), JSON.stringify(value)))
  }

  async delete(key: string): Promise<void> {
    await this.#connection.connect()
    await this.#connection.run((redis) => redis.del(this.#connection.keys.config(key)))
  }

  async list(): Promise<string[]> {
    await this.#connection.connect()
    const { keys } = this.#connection
    // A scan may show a key twice.
    const found = new Set<string>()
    await this.#connection.runOnEach(async (redis) => {
      let cursor = '0'
      do {
        const [next, names] = await redis.scan(cursor, 'MATCH', keys.configPattern, 'COUNT', 250)
        cursor = next
        for (const name of names) found.add(keys.configKey(name)!)
      } while (cursor !== '0')
    })
    return [...found]
  }
}
