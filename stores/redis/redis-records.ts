/**
 * The current copy of every upload, for all servers that share a Redis.
 *
 * One hash for each upload, put by compare-and-set on its mark; two sorted sets as indexes, which are hints. Redis may
 * lose all of it: the marks beside the bytes are the truth, and the walk of the uploads puts the copies back.
 */
import { type Digest, type RecordStore, StoreError, type UploadRecord, type Walk } from '../contracts.ts'
import { digestEntriesOf, digestEntry } from '../digest-index.ts'
import { decodeRecord, putArgs, putWithHints } from './record-codec.ts'
import type { RedisConnection } from './redis-connection.ts'
import { scripts } from './scripts.ts'

const idsAtOnce = 100

export class RedisRecords implements RecordStore {
  readonly #connection: RedisConnection

  constructor(options: { readonly connection: RedisConnection }) {
    this.#connection = options.connection
  }

  async start(): Promise<void> {
    await this.#connection.connect()
  }

  /** The connection is its maker's to close. */
  async close(): Promise<void> {}

  async put(record: UploadRecord, expiresAt?: number): Promise<void> {
    const put = {
      script: scripts.putRecord,
      keys: [this.#connection.keys.record(record.head.id)],
      args: putArgs(record, expiresAt),
    }
    await putWithHints(this.#connection, put, record, expiresAt)
  }

  async get(id: string): Promise<UploadRecord | undefined> {
    const body = await this.#connection.run((redis) => redis.hget(this.#connection.keys.record(id), 'body'))
    return body === null ? undefined : decodeRecord(id, body)
  }

  async remove(id: string): Promise<void> {
    const { keys } = this.#connection
    const [record] = await this.#connection.batch(() =>
      Promise.all([
        // Before it is gone: it says where else it is named.
        this.get(id).catch(unlessAway),
        this.#connection.run((redis) => redis.del(keys.record(id))),
        this.#connection.run((redis) => redis.zrem(keys.expiry, id)),
        this.#connection.run((redis) => redis.zrem(keys.recent, id)),
      ]),
    )
    for (const entry of record ? digestEntriesOf(record) : [])
      await this.#connection.run((redis) => redis.zrem(keys.digest(entry), id))
  }

  /** Entries may name uploads that are gone, or not be there: whoever looks finds out. */
  async withDigest(digest: Digest, limit: number, owner?: string): Promise<string[]> {
    const key = this.#connection.keys.digest(digestEntry(digest, owner))
    return this.#connection.run((redis) => redis.zrevrange(key, 0, limit - 1))
  }

  async expiring(now: number, limit: number): Promise<string[]> {
    const { expiry } = this.#connection.keys
    return await this.#connection.run((redis) => redis.zrangebyscore(expiry, '-inf', now, 'LIMIT', 0, limit))
  }

  async recent(limit: number): Promise<UploadRecord[]> {
    const { recent } = this.#connection.keys
    // By id: an upload that is created meanwhile moves the ones before it to the next page, where they show again.
    const records = new Map<string, UploadRecord>()
    // Entries may name uploads that are gone: then the next ones take their places.
    for (let from = 0; records.size < limit; from += limit) {
      const ids = await this.#connection.run((redis) => redis.zrevrange(recent, from, from + limit - 1))
      if (ids.length === 0) break
      const found = await this.#connection.batch(() => Promise.all(ids.map((id) => this.get(id))))
      for (const record of found) if (record !== undefined) records.set(record.head.id, record)
    }
    return [...records.values()].slice(0, limit)
  }

  async *ids(): AsyncIterable<string> {
    const { recent } = this.#connection.keys
    let cursor = '0'
    do {
      const [next, entries] = await this.#connection.run((redis) =>
        redis.zscan(recent, cursor, 'COUNT', idsAtOnce),
      )
      // Members and scores take turns.
      yield* entries.filter((_, index) => index % 2 === 0)
      cursor = next
    } while (cursor !== '0')
  }

  /** A restart, or another server, may have brought back less than there was. */
  get epoch(): string {
    return this.#connection.runId ?? ''
  }

  async lastWalk(): Promise<Walk | undefined> {
    const noted = await this.#connection.run((redis) => redis.get(this.#connection.keys.walk))
    const [at, epoch] = noted?.split(' ') ?? []
    return at === undefined || epoch === undefined ? undefined : { at: Number(at), epoch }
  }

  async noteWalk({ at, epoch }: Walk): Promise<void> {
    await this.#connection.run((redis) => redis.set(this.#connection.keys.walk, `${at} ${epoch}`))
  }

  async check(): Promise<void> {
    await this.#connection.runOnEach((redis) => redis.ping())
  }
}

/** What can not be read can be removed all the same. */
function unlessAway(error: unknown): undefined {
  if (error instanceof StoreError && error.code === 'damaged') return undefined
  throw error
}
