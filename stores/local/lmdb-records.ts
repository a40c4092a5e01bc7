/**
 * The current copy of every upload on one machine, in an LMDB file.
 *
 * A record and its index entries change in one transaction, so here the indexes are exact. Commits are grouped and
 * synced behind: after a crash of the machine the copies may be older than the marks, which are the truth.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Database } from 'lmdb'
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
import { isListed } from '../listed.ts'
import { RecordFeed } from '../record-feed.ts'
import { LmdbEnvironment, type LmdbPlace, type OpenDatabase } from './lmdb-environment.ts'
import { behind } from './lmdb-file.ts'
import { type Copy, Soon } from './soon.ts'

interface Entry {
  readonly record: UploadRecord
  readonly expiresAt?: number
}
/** Milliseconds since the epoch, and the id. */
type IndexKey = [at: number, id: string]

type OwnerKey = [owner: string, at: number, id: string]

interface Databases {
  readonly records: Database<Entry, string>
  readonly expiry: Database<true, IndexKey>
  readonly recent: Database<true, IndexKey>
  readonly digests: Database<true, [entry: string, at: number, id: string]>
  /** Of uploads that have an owner, but for parts. */
  readonly owners: Database<true, OwnerKey>
}

/** Stands behind every id in the order of keys. */
const AFTER_ALL_IDS = '\uffff'

const idsAtOnce = 100
const ownerBytesAtMost = 256

export class LmdbRecords implements RecordStore {
  /** Nothing is lost while the file is open; every start is followed by a walk anyway, so none is noted in the file. */
  readonly epoch = 'since the start'
  readonly path: string
  readonly #environment: LmdbEnvironment<Databases>
  readonly #feed: RecordFeed
  readonly #isShared: boolean
  readonly #soon = new Soon((copies) => this.#putAll(copies))
  #lastWalk: Walk | undefined

  /** Several processes on one place tell each other by their `feed` what they put. */
  constructor({ feed, ...place }: LmdbPlace & { readonly feed?: RecordFeed }) {
    this.path = join(place.directory, 'records.mdb')
    this.#environment = new LmdbEnvironment({ path: this.path, place, databases: openDatabases })
    this.#feed = feed ?? new RecordFeed()
    this.#isShared = place.turns !== undefined
  }

  get isBusy(): boolean {
    return this.#environment.isBusy
  }

  /** Fails with `damaged` when the file is foreign or cut short. */
  start(): Promise<void> {
    return this.#environment.start()
  }

  async close(): Promise<void> {
    await this.#soon.flush()
    this.#lastWalk = undefined
    this.#feed.close()
    await this.#environment.close()
  }

  async put(record: UploadRecord, expiresAt?: number): Promise<void> {
    const isNews = await this.#environment.change((databases) => putInto(databases, { record, expiresAt }))
    if (isNews) this.#feed.tell({ is: 'put', record })
  }

  putSoon(record: UploadRecord, expiresAt?: number): Promise<void> {
    this.#feed.tell({ is: 'put', record })
    return this.#soon.add({ record, expiresAt })
  }

  #putAll(copies: Iterable<Copy>): Promise<void> {
    return this.#environment.change((databases) => {
      for (const copy of copies) {
        const { id, createdAt } = copy.record.head
        const old = databases.records.get(id)
        // Another process may have removed it meanwhile, and made it anew; in this one that drops the copy.
        if (old ? old.record.head.createdAt === createdAt : !this.#isShared) putInto(databases, copy)
      }
    })
  }

  async get(id: string): Promise<UploadRecord | undefined> {
    const written = this.#environment.read(({ records }) => records.get(id)?.record)
    const soon = this.#soon.get(id)
    return soon && !(written && isNewer(written, soon)) ? soon : written
  }

  async remove(id: string): Promise<void> {
    this.#soon.drop(id)
    const old = await this.#environment.change((databases) => {
      const old = databases.records.get(id)
      if (old === undefined) return undefined
      removeIndexes(databases, id, old)
      behind(databases.records.remove(id))
      return old
    })
    if (old) this.#feed.tell({ is: 'removed', id, record: old.record })
  }

  async expiring(now: number, limit: number): Promise<string[]> {
    return this.#environment.read(({ expiry }) =>
      Array.from(expiry.getKeys({ end: [now, AFTER_ALL_IDS], limit }), ([, id]) => id),
    )
  }

  async recent(limit: number): Promise<UploadRecord[]> {
    return this.#environment.read(({ records, recent }) => {
      const ids = Array.from(recent.getKeys({ reverse: true, limit }), ([, id]) => id)
      return ids.map((id) => records.get(id)?.record).filter((record) => record !== undefined)
    })
  }

  async withDigest(digest: Digest, limit: number, owner?: string): Promise<string[]> {
    const entry = digestEntry(digest, owner)
    const range = { start: [entry, Number.MAX_VALUE, ''], end: [entry, 0, ''] } as const
    return this.#environment.read(({ digests }) =>
      Array.from(digests.getKeys({ ...range, reverse: true, limit } as never), ([, , id]) => id),
    )
  }

  async list({ owner, after, limit }: ListQuery): Promise<RecordPage> {
    return this.#environment.read((databases) => {
      const places =
        owner === undefined ? allPlaces(databases, after, limit) : ownPlaces(databases, owner, after, limit)
      const found = places.map(([, id]) => databases.records.get(id)?.record)
      const records = found.filter(
        (record) => record !== undefined && isListed(record.head),
      ) as UploadRecord[]
      const next = places.length < limit ? undefined : places.at(-1)
      return next ? { records, next } : { records }
    })
  }

  watch(listener: (news: RecordNews) => void): () => void {
    return this.#feed.watch(listener)
  }

  async *ids(): AsyncIterable<string> {
    let last: string | undefined
    for (;;) {
      const range = last === undefined ? {} : { start: last, exclusiveStart: true }
      const page = this.#environment.read(({ records }) =>
        Array.from(records.getKeys({ ...range, limit: idsAtOnce })),
      )
      if (page.length === 0) return
      yield* page
      last = page.at(-1)
    }
  }

  async lastWalk(): Promise<Walk | undefined> {
    this.#environment.require()
    return this.#lastWalk
  }

  async noteWalk(walk: Walk): Promise<void> {
    this.#environment.require()
    this.#lastWalk = walk
  }

  async check(): Promise<void> {
    this.#environment.read(({ records }) => records.get(''))
  }
}

function openDatabases(open: OpenDatabase): Databases {
  return {
    records: open('records'),
    expiry: open('expiry'),
    recent: open('recent'),
    digests: open('digests'),
    owners: open('owners'),
  }
}

/** Whether that was news. */
function putInto(databases: Databases, { record, expiresAt }: Copy): boolean {
  const { id, createdAt, owner } = record.head
  const old = databases.records.get(id)
  if (old !== undefined && isNewer(old.record, record)) return false
  const entry: Entry = expiresAt === undefined ? { record } : { record, expiresAt }
  behind(databases.records.put(id, entry))
  // Most puts only move the offset; the indexes stand as they are.
  const head = old?.record.head
  const isHashed = record.mark.digest !== undefined || old?.record.mark.digest !== undefined
  const hasMoved = head?.createdAt !== createdAt || head.owner !== owner || old!.expiresAt !== expiresAt
  if (hasMoved || isHashed) {
    if (old !== undefined) removeIndexes(databases, id, old)
    behind(databases.recent.put([createdAt, id], true))
    if (expiresAt !== undefined) behind(databases.expiry.put([expiresAt, id], true))
    if (owner !== undefined && isListed(record.head))
      behind(databases.owners.put([ownerKey(owner), createdAt, id], true))
    for (const entry of digestEntriesOf(record)) behind(databases.digests.put([entry, createdAt, id], true))
  }
  return old === undefined || isNewer(record, old.record)
}

function removeIndexes(databases: Databases, id: string, old: Entry): void {
  const { createdAt } = old.record.head
  behind(databases.recent.remove([createdAt, id]))
  for (const entry of digestEntriesOf(old.record)) behind(databases.digests.remove([entry, createdAt, id]))
  if (old.expiresAt !== undefined) behind(databases.expiry.remove([old.expiresAt, id]))
  const { owner } = old.record.head
  if (owner !== undefined) behind(databases.owners.remove([ownerKey(owner), createdAt, id]))
}

/** A key has 1978 bytes at most, for owner and id; who has a longer name than most is named by its digest. */
function ownerKey(owner: string): string {
  if (Buffer.byteLength(owner) <= ownerBytesAtMost) return owner
  return `sha256:${createHash('sha256').update(owner).digest('hex')}`
}

function allPlaces({ recent }: Databases, after: ListPlace | undefined, limit: number): IndexKey[] {
  const range = after ? { start: [after[0], after[1]] as IndexKey, exclusiveStart: true } : {}
  return Array.from(recent.getKeys({ reverse: true, ...range, limit }))
}

function ownPlaces(
  { owners }: Databases,
  owner: string,
  after: ListPlace | undefined,
  limit: number,
): IndexKey[] {
  const key = ownerKey(owner)
  const start: OwnerKey = after ? [key, after[0], after[1]] : [key, Number.MAX_SAFE_INTEGER, AFTER_ALL_IDS]
  const keys = owners.getKeys({ reverse: true, start, exclusiveStart: true, end: [key, 0, ''], limit })
  return Array.from(keys, ([, at, id]): IndexKey => [at, id])
}

function isNewer(a: UploadRecord, b: UploadRecord): boolean {
  if (a.mark.generation !== b.mark.generation) return a.mark.generation > b.mark.generation
  return a.mark.sequence > b.mark.sequence
}
