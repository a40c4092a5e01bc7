/**
 * The current copy of every upload, for all servers that share a Redis.
 *
 * One hash for each upload, put by compare-and-set on its mark; sorted sets as indexes, which are hints. Redis may
 * lose all of it: the marks beside the bytes are the truth, and the walk of the uploads puts the copies back.
 */
import type {
  Digest,
  ListPlace,
  ListQuery,
  RecordNews,
  RecordPage,
  RecordStore,
  UploadRecord,
  Walk,
} from '../contracts.ts'
import { digestEntriesOf, digestEntry } from '../digest-index.ts'
import { isBehind, isListed } from '../listed.ts'
import { decodeRecord, putArgs, putWithHints } from './record-codec.ts'
import type { RedisConnection } from './redis-connection.ts'
import { scripts } from './scripts.ts'

const idsAtOnce = 100
const STALE_AFTER_MS = 60_000

export class RedisRecords implements RecordStore {
  readonly #connection: RedisConnection

  constructor(options: { readonly connection: RedisConnection }) {
    this.#connection = options.connection
  }

  async start(): Promise<void> {
    await this.#connection.connect()
    await this.#connection.news.start()
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
    const { keys, news } = this.#connection
    this.#connection.dropHints(id)
    // The record says whose it is, and is asked for in the same write that deletes it.
    const [body] = await this.#connection.batch(() =>
      Promise.all([
        this.#connection.run((redis) => redis.hget(keys.record(id), 'body')).catch(() => null),
        this.#connection.run((redis) => redis.del(keys.record(id))),
        this.#connection.run((redis) => redis.zrem(keys.expiry, id)),
        this.#connection.run((redis) => redis.zrem(keys.recent, id)),
      ]),
    )
    const record = body === null ? undefined : readable(id, body)
    const owner = record?.head.owner
    if (owner !== undefined) await this.#forget(owner, [id])
    for (const entry of record ? digestEntriesOf(record) : [])
      await this.#connection.run((redis) => redis.zrem(keys.digest(entry), id)).catch(() => undefined)
    news.feed.tell({ is: 'removed', id, record })
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

  async list({ owner, after, limit }: ListQuery): Promise<RecordPage> {
    const { keys } = this.#connection
    const places = await this.#places(owner === undefined ? keys.recent : keys.owned(owner), after, limit)
    const found = await this.#connection.batch(() => Promise.all(places.map(([, id]) => this.get(id))))
    const records = found.filter((record) => record !== undefined && isListed(record.head)) as UploadRecord[]
    if (owner !== undefined)
      await this.#forgetStale(
        owner,
        places.filter((_, index) => found[index] === undefined),
      )
    const next = places.length < limit ? undefined : places.at(-1)
    return next ? { records, next } : { records }
  }

  watch(listener: (news: RecordNews) => void): () => void {
    return this.#connection.news.feed.watch(listener)
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

  /** Entries of an index, newest first. Those of one moment stand in the order of their ids. */
  async #places(index: string, after: ListPlace | undefined, limit: number): Promise<ListPlace[]> {
    const places: ListPlace[] = []
    for (let from = 0; places.length < limit; from += limit) {
      const flat = await this.#connection.run((redis) =>
        redis.zrevrangebyscore(index, after?.[0] ?? '+inf', '-inf', 'WITHSCORES', 'LIMIT', from, limit),
      )
      // Members and scores take turns.
      for (let i = 0; i < flat.length; i += 2) {
        const place = [Number(flat[i + 1]), flat[i]!] as const
        if (after === undefined || isBehind(place, after)) places.push(place)
      }
      if (flat.length < 2 * limit) break
    }
    return places.slice(0, limit)
  }

  /** An entry is sent before its record: a new one may be about to have one. */
  async #forgetStale(owner: string, places: readonly ListPlace[]): Promise<void> {
    const before = Date.now() - STALE_AFTER_MS
    const ids = places.filter(([createdAt]) => createdAt < before).map(([, id]) => id)
    if (ids.length > 0) await this.#forget(owner, ids)
  }

  /** A hint that stays is forgotten when it is next seen. */
  async #forget(owner: string, ids: readonly string[]): Promise<void> {
    const index = this.#connection.keys.owned(owner)
    await this.#connection.run((redis) => redis.zrem(index, ...ids)).catch(() => undefined)
  }
}

function readable(id: string, body: string): UploadRecord | undefined {
  try {
    return decodeRecord(id, body)
  } catch {
    return undefined
  }
}
