/**
 * The current copy of every upload on one machine, in an LMDB file.
 *
 * A record and its index entries change in one transaction, so here the indexes are exact. Commits are grouped and
 * synced behind: after a crash of the machine the copies may be older than the marks, which are the truth.
 */
import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Database, open, type RootDatabase } from 'lmdb'
import {
  type Digest,
  type ListPlace,
  type ListQuery,
  type RecordNews,
  type RecordPage,
  type RecordStore,
  StoreError,
  type UploadRecord,
  type Walk,
} from '../contracts.ts'
import { digestEntriesOf, digestEntry } from '../digest-index.ts'
import { isListed } from '../listed.ts'
import { RecordFeed } from '../record-feed.ts'
import {
  asStoreError,
  behind,
  damagedLmdb,
  examineLmdbFile,
  ignoreReason,
  makeLockFile,
} from './lmdb-file.ts'

interface Entry {
  readonly record: UploadRecord
  readonly expiresAt?: number
}
/** Milliseconds since the epoch, and the id. */
type IndexKey = [at: number, id: string]

type OwnerKey = [owner: string, at: number, id: string]

interface Databases {
  readonly root: RootDatabase
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
  readonly #directory: string
  readonly #isExamined: boolean
  readonly #feed: RecordFeed
  #databases: Databases | undefined
  #lastWalk: Walk | undefined
  /** Changes that are not committed yet. */
  #changing = 0

  /**
   * `directory` is made when it is missing. It belongs to one process (see FolderOwner) and those that it lets in: they
   * say `isExamined`, because the file was looked at before them, and must not be while somebody writes to it. Several
   * of them tell each other by their `feed` what they put.
   */
  constructor(options: {
    readonly directory: string
    readonly isExamined?: boolean
    readonly feed?: RecordFeed
  }) {
    this.#directory = options.directory
    this.#isExamined = options.isExamined ?? false
    this.#feed = options.feed ?? new RecordFeed()
  }

  get path(): string {
    return join(this.#directory, 'records.mdb')
  }

  /** Whether a thread is about to commit; it waits for the event loop then, and ends no sooner. */
  get isBusy(): boolean {
    return this.#changing > 0
  }

  /** Fails with `damaged` when the file is foreign or cut short. */
  async start(): Promise<void> {
    if (this.#databases !== undefined) return
    mkdirSync(this.#directory, { recursive: true })
    const state = this.#isExamined ? 'sound' : examineLmdbFile(this.path)
    if (!this.#isExamined) makeLockFile(`${this.path}-lock`)
    const databases = this.#open()
    try {
      if (state === 'filled') readAll(databases)
    } catch (error) {
      await databases.root.close()
      throw damagedLmdb(this.path, 'it was cut short', error)
    }
    this.#databases = databases
  }

  async close(): Promise<void> {
    const databases = this.#databases
    this.#databases = this.#lastWalk = undefined
    this.#feed.close()
    this.#changing++
    try {
      await databases?.root.close()
    } finally {
      this.#changing--
    }
  }

  async put(record: UploadRecord, expiresAt?: number): Promise<void> {
    const { id, createdAt, owner } = record.head
    const isNews = await this.#change((databases) => {
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
        for (const entry of digestEntriesOf(record))
          behind(databases.digests.put([entry, createdAt, id], true))
      }
      return old === undefined || isNewer(record, old.record)
    })
    if (isNews) this.#feed.tell({ is: 'put', record })
  }

  async get(id: string): Promise<UploadRecord | undefined> {
    return this.#read(({ records }) => records.get(id)?.record)
  }

  async remove(id: string): Promise<void> {
    const old = await this.#change((databases) => {
      const old = databases.records.get(id)
      if (old === undefined) return undefined
      removeIndexes(databases, id, old)
      behind(databases.records.remove(id))
      return old
    })
    if (old) this.#feed.tell({ is: 'removed', id, record: old.record })
  }

  async expiring(now: number, limit: number): Promise<string[]> {
    return this.#read(({ expiry }) =>
      Array.from(expiry.getKeys({ end: [now, AFTER_ALL_IDS], limit }), ([, id]) => id),
    )
  }

  async recent(limit: number): Promise<UploadRecord[]> {
    return this.#read(({ records, recent }) => {
      const ids = Array.from(recent.getKeys({ reverse: true, limit }), ([, id]) => id)
      return ids.map((id) => records.get(id)?.record).filter((record) => record !== undefined)
    })
  }

  async withDigest(digest: Digest, limit: number, owner?: string): Promise<string[]> {
    const entry = digestEntry(digest, owner)
    const range = { start: [entry, Number.MAX_VALUE, ''], end: [entry, 0, ''] } as const
    return this.#read(({ digests }) =>
      Array.from(digests.getKeys({ ...range, reverse: true, limit } as never), ([, , id]) => id),
    )
  }

  async list({ owner, after, limit }: ListQuery): Promise<RecordPage> {
    return this.#read((databases) => {
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
      const page = this.#read(({ records }) => Array.from(records.getKeys({ ...range, limit: idsAtOnce })))
      if (page.length === 0) return
      yield* page
      last = page.at(-1)
    }
  }

  async lastWalk(): Promise<Walk | undefined> {
    this.#require()
    return this.#lastWalk
  }

  async noteWalk(walk: Walk): Promise<void> {
    this.#require()
    this.#lastWalk = walk
  }

  async check(): Promise<void> {
    this.#read(({ records }) => records.get(''))
  }

  #open(): Databases {
    try {
      // In its batches of a turn LMDB makes a promise that nobody gets: when a commit fails, on a full disk, its rejection
      // would end the process. Without them commits are grouped all the same.
      const eventTurnBatching = false
      const root = open({ path: this.path, noSubdir: true, encoding: 'json', maxDbs: 5, eventTurnBatching })
      return {
        root,
        records: root.openDB({ name: 'records', encoding: 'json' }),
        expiry: root.openDB({ name: 'expiry', encoding: 'json' }),
        recent: root.openDB({ name: 'recent', encoding: 'json' }),
        digests: root.openDB({ name: 'digests', encoding: 'json' }),
        owners: root.openDB({ name: 'owners', encoding: 'json' }),
      }
    } catch (error) {
      throw asStoreError(error, this.path)
    }
  }

  #read<T>(read: (databases: Databases) => T): T {
    const databases = this.#require()
    try {
      return read(databases)
    } catch (error) {
      throw asStoreError(error, this.path)
    }
  }

  /** All changes of `change` are committed as one, together with those of others who ask at the same time. */
  async #change<T>(change: (databases: Databases) => T): Promise<T> {
    const databases = this.#require()
    this.#changing++
    try {
      return await databases.root.transaction(() => change(databases))
    } catch (error) {
      ignoreReason(error)
      throw asStoreError(error, this.path)
    } finally {
      this.#changing--
    }
  }

  #require(): Databases {
    if (this.#databases === undefined) throw new StoreError('unavailable', 'The record database is not open.')
    return this.#databases
  }
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

function readAll({ records, expiry, recent, owners, digests }: Databases): void {
  for (const database of [records, expiry, recent, owners, digests]) for (const _ of database.getRange());
}
