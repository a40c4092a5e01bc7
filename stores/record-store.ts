/**
 * What the engine asks of whatever keeps records, the copies of marks that lists, progress and expiry are read from.
 * It is one of the contracts, and imported from contracts.ts.
 */
import type { Digest, UploadRecord } from './contracts.ts'

/**
 * A current copy of every upload, so that any server can answer lists and progress, and find what expires.
 *
 * - `get` answers what the last `put` said, on every server.
 * - `put` never replaces a newer copy: the higher (generation, sequence) stays.
 * - `remove` takes the record and all its index entries; removing what is not there is no error.
 * - `lastWalk` answers what the last `noteWalk` said, on every server, or undefined when that was lost.
 * - `list` shows no parts: they are shown with their final.
 * - `watch` tells of what is put or removed afterwards, on every server, and of each upload in order; nothing is sent
 *   anywhere while nobody watches. What may have been missed is said to be, and found by looking.
 * - `expiring`, `recent`, `list`, `ids` and `withDigest` are hints: they may name uploads that are gone, never only what is there. Check the mark.
 * - It may come back empty or older than it was; nothing here decides about an upload.
 * - When it cannot be reached every method fails with `unavailable` and nothing hangs.
 */
export interface RecordStore {
  /** Whether a thread of this process is at work here, for which its end would wait. */
  readonly isBusy?: boolean
  start(): Promise<void>
  close(): Promise<void>
  /** `expiresAt` in milliseconds since the epoch; undefined takes the upload out of the expiry index. */
  put(record: UploadRecord, expiresAt?: number): Promise<void>
  /**
   * As `put`, of an upload whose record is there and whose mark has moved, for who does not wait: `get` answers it at once
   * here, and on other servers within a twentieth of a second. Resolves when it was written. Nothing that is asked by an index may
   * depend on it, but for its expiry.
   */
  putSoon?(record: UploadRecord, expiresAt?: number): Promise<void>
  get(id: string): Promise<UploadRecord | undefined>
  remove(id: string): Promise<void>
  /** Ids that expire at or before `now`, soonest first. */
  expiring(now: number, limit: number): Promise<string[]>
  /** Newest creations first. */
  recent(limit: number): Promise<UploadRecord[]>
  /** Finished uploads with this digest, no parts, the newest first; those of one owner when there is one given. */
  withDigest(digest: Digest, limit: number, owner?: string): Promise<string[]>
  /**
   * Newest creations first, from behind `after` on; of one owner, or of all. A page may hold fewer than `limit`, or none,
   * and is the last one when it has no `next`.
   */
  list(query: ListQuery): Promise<RecordPage>
  /** Tells `listener` what happens, until the returned function is called. Never fails; what is away comes back by itself. */
  watch(listener: (news: RecordNews) => void): () => void
  /** Every id that has a record, in no order, perhaps twice; for the walk that finds records without an upload. */
  ids(): AsyncIterable<string>
  /** Names what is kept here; after a walk under another name records may have been lost. */
  readonly epoch: string
  lastWalk(): Promise<Walk | undefined>
  /** Notes that a walk through all uploads has ended, which made these records whole. */
  noteWalk(walk: Walk): Promise<void>
  /** Fails with `unavailable` when the store cannot be used now. */
  check(): Promise<void>
}

export interface ListQuery {
  readonly owner?: string | undefined
  readonly after?: ListPlace | undefined
  readonly limit: number
}

/** The place of an upload in every list: its creation, in milliseconds since the epoch, and its id. */
export type ListPlace = readonly [createdAt: number, id: string]

export interface RecordPage {
  readonly records: readonly UploadRecord[]
  /** Where the next page begins; undefined behind the last upload. */
  readonly next?: ListPlace
}

/**
 * - `put`: there is a newer copy of the upload
 * - `removed`: the upload is gone; with what was known of it last
 * - `missed`: something may have happened that was not told
 */
export type RecordNews =
  | { readonly is: 'put'; readonly record: UploadRecord }
  | { readonly is: 'removed'; readonly id: string; readonly record?: UploadRecord | undefined }
  | { readonly is: 'missed' }

/** A walk through all uploads: when it began, and the epoch of the records at that moment. */
export interface Walk {
  readonly at: number
  readonly epoch: string
}
