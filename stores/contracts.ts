/**
 * What the engine asks of whatever keeps uploads: a byte store with its marks, a record store, a locker.
 *
 * The one idea: the **mark** beside the bytes is the truth. Records are a copy for lists and progress, and a lock
 * keeps writers apart; either may be lost without losing an upload. Every sentence here has a test with the same
 * wording in test/contracts/, which runs over every implementation.
 *
 * The record store and the locker have files of their own, record-store.ts and locker.ts, and are imported from here as
 * all the others.
 */
import type { Readable } from 'node:stream'

export * from './locker.ts'
export type * from './record-store.ts'

/** What time it is for all that expires: whole milliseconds since the epoch. One clock for engine and stores. */
export type Now = () => number

/** What the bytes of a whole upload hash to. */
export interface Digest {
  readonly algorithm: 'sha-256' | 'sha-512'
  /** With padding. */
  readonly base64: string
}

/** What is fixed when an upload is created, and never changes afterwards. */
export interface UploadHead {
  readonly id: string
  /** `Upload-Metadata` exactly as the client sent it; undefined when there was none. */
  readonly metadata?: string
  /** Milliseconds since the epoch. */
  readonly createdAt: number
  /** What created the upload: the tus protocol, a plain PUT, or a form. */
  readonly dialect: 'tus' | 'put' | 'form'
  /** `Upload-Concat` exactly as sent: `partial`, or `final;...`. */
  readonly concat?: string
  /** A final: the ids of its parts, in their order; one may be there twice. */
  readonly parts?: readonly string[]
  /** A final: names the request that made it. Who repeats that request is given the same final. */
  readonly concatKey?: string
  /** Who created the upload; undefined when nobody was asked. */
  readonly owner?: string
  /** Network address that created the upload, as far as it is counted; undefined where addresses are not. */
  readonly client?: string
  /** What the client says that the upload hashes to. It is never finished with anything else. */
  readonly digest?: Digest
  /** Where the bytes are to be found too once the upload is finished, relative to the folder of the uploads. */
  readonly storagePath?: string
  /** An unfinished upload lives no longer than this, whatever is the rule for others. */
  readonly expireAfterMs?: number
}

/**
 * - `open`: bytes may be appended
 * - `finished`: sealed, all bytes are there and will never change
 * - `failed`: sealed, never to be finished (a whole-upload digest did not match)
 * - `terminated`: gone, only its tombstone is left until the files are removed
 */
export type UploadState = 'open' | 'finished' | 'failed' | 'terminated'

/** What changes while an upload is being received. Written as one, or not at all. */
export interface Mark {
  readonly state: UploadState
  /** Bytes that are kept; never goes back but by a logged rewind. */
  readonly offset: number
  /** Bytes that were synced to the disk; what is left after a power loss. */
  readonly syncedOffset: number
  /** Total bytes; undefined while the client has not said. */
  readonly length?: number
  /** Which copy of the bytes is the current one; grows by every take-over from a writer not known to be gone. */
  readonly generation: number
  /** Counts the writes of this mark. Of two copies of a mark the one with higher (generation, sequence) is newer. */
  readonly sequence: number
  /** When the offset last moved, or the upload was created; in milliseconds since the epoch. Sliding expiry counts from here. */
  readonly movedAt: number
  /** Of a finished upload: what its bytes were found to hash to; undefined when nobody asked. */
  readonly digest?: Digest
}

/** An upload as it is known at one moment: its head, its mark, and where its bytes are. */
export interface UploadRecord {
  readonly head: UploadHead
  readonly mark: Mark
  /** Where the bytes are, as @tus stores say it. Never shown to clients. */
  readonly storage?: { readonly type: string; readonly path: string; readonly bucket?: string }
}

/**
 * A failure of something that keeps uploads. Callers branch on `code`:
 * - `exists`: an upload, or a file in its place, is already there
 * - `bad-id`: the id can not name an upload in this store
 * - `full`: no room (disk full, quota, file size limit)
 * - `unavailable`: passing; the store or the coordinator cannot be reached now
 * - `superseded`: another writer has taken the upload over; nothing that this one writes counts
 * - `damaged`: what is stored contradicts itself
 * - `io`: the system refused; see `cause`
 */
export class StoreError extends Error {
  readonly code: StoreErrorCode
  constructor(code: StoreErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'StoreError'
    this.code = code
  }
}
export type StoreErrorCode =
  | 'exists'
  | 'bad-id'
  | 'place-taken'
  | 'full'
  | 'unavailable'
  | 'superseded'
  | 'damaged'
  | 'io'

// ---------------------------------------------------------------------------------------------------------- bytes

/**
 * Keeps the bytes of uploads, and beside them the mark that says how many of them count.
 *
 * - `create` is exclusive: of two creations of one id exactly one succeeds, the other fails with `exists`.
 * - A creation that failed or was cut off leaves nothing that `look` would find.
 * - `look` needs no lock and answers undefined for an upload that never was, or is gone.
 * - Once `remove` has begun, `look` never again shows the upload as open or finished.
 */
export interface ByteStore {
  /** Set where an offset may look smaller while somebody writes: who asks for it then looks under the lock. */
  readonly wavers?: true
  /** Extension names of the tus standard that this store can serve. */
  readonly extensions: readonly string[]
  /** Set where digests are kept beside the bytes, and uploads can fail. */
  readonly keepsDigests?: true
  /** Whether uploads may be left open from one request to the next. */
  readonly keepsOpen?: boolean
  start(): Promise<void>
  close(): Promise<void>
  /** Makes an empty upload and leaves it open for its creator to append to. Call under the lock. */
  create(head: UploadHead, length: number | undefined): Promise<Appender>
  /**
   * Makes an upload of bytes that are all there, finished. `look` finds it finished or not at all, so no lock is needed;
   * but the id must be one that nobody else can know or make before this returns. Undefined in a store that cannot.
   */
  createFinished?(head: UploadHead, body: Uint8Array): Promise<UploadRecord>
  /**
   * Makes an empty upload that its creator does not write to; again `look` finds it so or not at all, no lock is needed, and
   * nobody else can know the id. What failed once it was there stays, empty, and is to be removed. Undefined in a store
   * that cannot. Where it can stay open for its first bytes, `keep` is asked to take it; who gives it has had its lock before.
   */
  createEmpty?(
    head: UploadHead,
    length: number | undefined,
    keep?: (appender: Appender) => boolean,
  ): Promise<UploadRecord>
  look(id: string): Promise<UploadRecord | undefined>
  /**
   * Opens an unfinished upload for one writer. Call under the lock. Undefined when it is gone or sealed: `look` tells.
   * What an earlier writer may still write late, after this returned, is never read, acknowledged or finished.
   * Fails with `superseded`, having written nothing, when `isHeld` says that the lock was lost meanwhile.
   */
  open(id: string, isHeld?: () => boolean): Promise<Appender | undefined>
  /**
   * Removes upload and bytes: the tombstone first, the mark last. Call under the lock. False when it was not there.
   * Fails with `superseded` when `isHeld` says that the lock was lost, or when another writer took the upload over.
   */
  remove(id: string, isHeld?: () => boolean): Promise<boolean>
  /** The bytes [start, end) of an upload, as they were when this was called; also while it is removed meanwhile. */
  read(record: UploadRecord, start: number, end: number): Promise<Readable>
  /**
   * Readies the bytes of `source`, a finished upload, for one that was just created and has none; shared where that is
   * possible. Removing either never hurts the other. Undefined, and nothing is left of it, when that can not be done: the
   * source is gone, or can not be shared once more. Not there in a store that never can. Call under the lock.
   */
  linkFrom?(upload: UploadRecord, source: UploadRecord): Promise<Adoption | undefined>
  /** Every upload that is there, in no order; for the walk that rebuilds lost indexes. */
  walk(): AsyncIterable<UploadRecord>
  /** Removes what creations and removals that were cut off left behind more than `olderThanMs` ago. Returns how many. */
  sweepOrphans(olderThanMs: number): Promise<number>
  /** Bytes that are free for new uploads; undefined when the store does not know. */
  freeBytes(): Promise<number | undefined>
  /** How uploads become one; undefined in a store that can not do it, and then concatenation is not announced. */
  readonly concatenation?: Concatenation
  /** Where it is noted what is still to be told; undefined in a store that keeps no notes, and then a crash is silent. */
  readonly outbox?: Outbox
  /** How uploads are found by names; undefined in a store that can not do it, and then nothing can be uploaded by name. */
  readonly names?: Names
}

/** Bytes of another upload that are ready to be an upload's own. Exactly one of the two is called. */
export interface Adoption {
  /** Seals the upload with them; its appender is superseded. */
  finish(isHeld: () => boolean): Promise<UploadRecord>
  /** Gives them up; the upload goes on as if nothing had been. */
  discard(): Promise<void>
}

/**
 * Makes one upload, the final, of the bytes of others, its parts. What a final needs is noted beside each part, by a
 * **tie**: so whoever finishes a part finds the finals that wait for it, on every server, without a search.
 *
 * - `tie` is exclusive: one part has one tie of a key. Ties outlive every process, and go with their part.
 * - Of a `tie` and a `seal` that run at the same time one fails: no final is ever tied to a part that is being removed.
 * - A tie may name a final that is gone, and then means nothing. Look at the final.
 * - `assemble` never changes a part, and holds no more than a buffer in memory.
 */
export interface Concatenation {
  /** Ties a final to a part, under the key of the final. `sealed` when the part takes no more ties, or is not there. */
  tie(part: string, key: string, final: string): Promise<'tied' | 'sealed' | { readonly takenBy: string }>
  /** The final that is tied to a part under a key. */
  tiedTo(part: string, key: string): Promise<string | undefined>
  /** Takes the tie away when it is this final's. */
  untie(part: string, key: string, final: string): Promise<void>
  /** Every final that is tied to a part. */
  finalsOf(part: string): Promise<string[]>
  /** Makes a part take no more ties, because it will be removed. False while `isNeeded` says so of a tied final. */
  seal(part: string, isNeeded: (final: string) => Promise<boolean>): Promise<boolean>
  /**
   * Writes the bytes of finished parts, one after the other, to a final, from its mark on; the mark follows, and an
   * assembly that was cut off goes on from it. All is written when this returns, and nothing is finished. Fails with the reason of `signal`
   * when that aborts.
   */
  assemble(final: Appender, parts: readonly UploadRecord[], signal: AbortSignal): Promise<void>
}

/**
 * One writer's hold on an unfinished upload, from `create` or `open` until `close`.
 *
 * - `write` puts bytes at an explicit position; they do not count until `commit` says so.
 * - `commit` moves the mark to bytes that were written, before it returns.
 * - The mark reaches the length only by `finish`.
 * - After another writer took over, `commit` and `finish` fail with `superseded`, and nothing was acknowledged.
 * - `close` waits for the last write to return; only then may the lock be given up.
 */
export interface Appender {
  readonly record: UploadRecord
  /** Set when storage was found to hold less than the mark said, and the mark was set back. To be logged and counted. */
  readonly rewound?: { readonly from: number; readonly to: number } | undefined
  /** Whether nothing refers to the buffers of a `write` any more once it returned. Their memory may then be given back at once. */
  readonly keepsNoBuffers?: boolean
  /** Writes all of `buffers`, in order, at `position`. Fails with `full` or `io`; then what was written is unknown. */
  write(buffers: readonly Uint8Array[], position: number): Promise<void>
  /** Bytes [start, end) that were written through this hold or before it, also those that do not count yet. */
  read(start: number, end: number): AsyncIterable<Uint8Array>
  /** Moves the mark to `offset`, and fixes the length when one is given. After a `last` commit nothing more is written. */
  commit(change: { offset: number; length?: number; last?: boolean }): Promise<UploadRecord>
  /**
   * Seals the upload: the bytes [0, length) are made durable as configured, then the mark says finished, and with it what
   * they hash to. An upload that declares a digest finishes with no other.
   */
  finish(length: number, digest?: Digest): Promise<UploadRecord>
  /** Seals the upload as failed: it is never finished, and its bytes are given up. */
  fail(): Promise<UploadRecord>
  /** Whether it may be left open for the next request that has the lock. Its writer is then still the one in the mark. */
  readonly mayStay?: boolean
  /** Asked by that request. False when the files are not what they were: then it is to be closed, and the upload opened. */
  goOn?(): Promise<boolean>
  /** Gives the hold up. A mark that was not committed stays where it was. */
  close(): Promise<void>
}

// ---------------------------------------------------------------------------------------------------------- names

/**
 * Finds uploads by a name that their clients gave, on every server, without a search. A name is 64 hexadecimal digits, and
 * may have many uploads.
 *
 * - A name may have uploads that are gone, or were never made. Look at the upload.
 * - What a `lasting` `add` noted outlives what the bytes of a finished upload outlive.
 * - Adding what is there and removing what is not there is no error.
 */
export interface Names {
  add(name: string, id: string, options: { lasting: boolean; now: number }): Promise<void>
  remove(name: string, id: string): Promise<void>
  /** In no order. `addedAt` is what `now` was, in milliseconds since the epoch. */
  list(name: string): Promise<{ readonly id: string; readonly addedAt: number }[]>
  /** Whether the last writer of an upload is done with it, or provably dead. False for one that is not there. */
  isAtRest(id: string): Promise<boolean>
}

// --------------------------------------------------------------------------------------------------------- outbox

export type EventKind = 'created' | 'finished' | 'terminated'

/** What is known of a request beside its bytes. */
export interface RequestSummary {
  readonly method: string
  readonly uri: string
  /** Address and port that it came from; empty where nobody knows. */
  readonly remoteAddress: string
  readonly headers: Readonly<Record<string, string | readonly string[]>>
}

/** What happened to an upload. `record` shows it as it was then; before a removal, for `terminated`. */
export interface UploadEvent {
  /** The same however often this is told, by whichever server: 32 hexadecimal digits. */
  readonly id: string
  readonly kind: EventKind
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly record: UploadRecord
  /** The request that made it true, without its secrets; only where somebody is told of it. */
  readonly request?: RequestSummary | undefined
}

/** An event that somebody is still to be told of. */
export interface Note {
  readonly event: UploadEvent
  /** Names of those who are to be told. */
  readonly waiting: readonly string[]
  /** The process that is about to make it true and tell it, as its outbox names it. */
  readonly teller: string
  /** Another process leaves it alone until then, unless the teller is dead. Milliseconds since the epoch. */
  readonly notBefore: number
  /** How often telling it has failed. */
  readonly failures: number
  /** Whether it is known to be true; else the mark of the upload says so. */
  readonly isTrue: boolean
  /** Since when telling it fails. Milliseconds since the epoch. */
  readonly since?: number
}

/**
 * What is still to be told of uploads. A note is made before the thing becomes true and removed when everybody was
 * told: a server that dies in between leaves a note, and never silence.
 *
 * - When `put` returned the note outlives what the bytes of a finished upload outlive.
 * - `put` replaces a note of the same event as a whole, or not at all.
 * - `get` answers undefined for a note that is not there, or cannot be read because it was never completed.
 * - A note outlives its upload.
 */
export interface Outbox {
  /** Names this process. */
  readonly teller: string
  /** Whether the process of that name is provably dead. */
  isGone(teller: string): boolean
  put(note: Note): Promise<void>
  get(eventId: string): Promise<Note | undefined>
  /** Removing what is not there is no error. */
  remove(eventId: string): Promise<void>
  /** The ids of all events that are noted. */
  list(): Promise<string[]>
  /** Keeps what could not be told where nobody tries to any more, until somebody asks for it. */
  setAside(note: Note): Promise<void>
}
