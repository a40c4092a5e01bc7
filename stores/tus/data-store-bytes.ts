/**
 * Any @tus `DataStore` as a byte store of Tidemark's engine. The store's own offset is the truth: an upload stands where
 * `getUpload` says, and is finished when that is its size. What a plain store cannot promise stands in `notPromised`.
 */
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { type DataStore, Metadata, type Upload } from '@tus/utils'
import {
  type Appender,
  type ByteStore,
  StoreError,
  type UploadHead,
  type UploadRecord,
} from '../contracts.ts'
import { FileLayout } from '../file/file-layout.ts'
import { uploadOf } from '../file/file-store.ts'
import { DataStoreAppender, markOf } from './data-store-appender.ts'
import { failureOf, statusOf } from './tus-failures.ts'

/** What of the contracts in stores/contracts.ts does not hold over a plain store, and why. */
export const notPromised = {
  'whole-head': 'Of a head, id, metadata and creation are kept: a @tus Upload has no place for more.',
  'exclusive-create':
    'Two creations of one id are kept apart by the lock alone; under it, the second fails with `exists`.',
  'clean-creation': 'What a creation that was cut off leaves is known to the store alone.',
  'clean-removal': 'While a removal is running, or after one was cut off, the store shows what it shows.',
  'late-writers': 'There are no generations: what keeps a paused writer away from its successor is the lock.',
  'free-position': 'Bytes come in order, as a stream.',
  checkpoints: 'While a body is running the store is asked how far it is; it may be behind what was written.',
  uncommitted: 'Bytes that were not committed may be kept: the store writes them as they come.',
  'read-back':
    "What was handed over is the store's alone until its write has ended; so there are no checksums.",
  walk: 'A plain store cannot be asked for its uploads.',
} as const

export type NotPromised = keyof typeof notPromised

/** Extensions that need nothing of a store but its @tus methods. */
const servable = [
  'creation',
  'creation-with-upload',
  'creation-defer-length',
  'termination',
  'expiration',
] as const

/** Stores that can be downloaded from have `read`, though their common class does not. */
interface ReadableStore {
  read(id: string): Readable | Promise<Readable>
}

export class DataStoreBytes implements ByteStore {
  /** A store may rearrange its parts while it writes, and count fewer bytes meanwhile. */
  readonly wavers = true
  readonly #store: DataStore

  constructor(store: DataStore) {
    this.#store = store
  }

  /** What both the store and this can do. */
  get extensions(): readonly string[] {
    return servable.filter((name) => this.#store.hasExtension(name))
  }

  get canRead(): boolean {
    return isReadable(this.#store)
  }

  async start(): Promise<void> {}

  async close(): Promise<void> {}

  async create(head: UploadHead, length: number | undefined): Promise<Appender> {
    if (!FileLayout.isValidId(head.id)) throw new StoreError('bad-id', 'this id can not name an upload')
    if (await this.look(head.id)) throw new StoreError('exists', 'an upload with this id exists already')
    const mark = markOf(0, length, head.createdAt)
    try {
      const upload = await this.#store.create(uploadOf({ head, mark }))
      const { storage } = upload
      return this.#appender({ head, mark, ...(storage && { storage }) })
    } catch (error) {
      throw failureOf(error, 'create an upload')
    }
  }

  /** A store that knows of an upload that is no more says so with 410, and that is what is thrown here. */
  async look(id: string): Promise<UploadRecord | undefined> {
    if (!FileLayout.isValidId(id)) return undefined
    try {
      return recordOf(await this.#store.getUpload(id))
    } catch (error) {
      if (statusOf(error) === 404) return undefined
      throw failureOf(error, 'say how far an upload is')
    }
  }

  async open(id: string, isHeld: () => boolean = () => true): Promise<Appender | undefined> {
    const record = await this.look(id)
    if (record?.mark.state !== 'open') return undefined
    if (!isHeld()) throw new StoreError('superseded', 'the lock was lost while the upload was opened')
    return this.#appender(record)
  }

  async remove(id: string, isHeld: () => boolean = () => true): Promise<boolean> {
    if (!this.#store.hasExtension('termination'))
      throw new StoreError('io', 'this store can not remove uploads')
    // A store that keeps several files for an upload may hold other things under names that are none of its uploads.
    if ((await this.look(id)) === undefined) return false
    if (!isHeld()) throw new StoreError('superseded', 'the lock was lost while the upload was removed')
    try {
      await this.#store.remove(id)
      return true
    } catch (error) {
      if (statusOf(error) === 404) return false
      throw failureOf(error, 'remove an upload')
    }
  }

  /** A store gives uploads from their first byte: what lies before `start` is read and thrown away. */
  async read({ head, mark }: UploadRecord, start: number, end: number): Promise<Readable> {
    const store = this.#store
    if (!isReadable(store)) throw new StoreError('io', 'this store can not be read')
    if (end > mark.offset) throw new StoreError('damaged', 'there are fewer bytes than that')
    if (start === end) return Readable.from([])
    try {
      const source = await store.read(head.id)
      // What cannot be opened is to fail now, and not in the middle of an answer.
      if (source.errored) throw source.errored
      if (source.readableLength === 0) await once(source, 'readable')
      const bytes = Readable.from(slice(source, start, end), { objectMode: false })
      return bytes.once('close', () => source.destroy())
    } catch (error) {
      throw failureOf(error, 'read an upload')
    }
  }

  async *walk(): AsyncGenerator<UploadRecord> {}

  async sweepOrphans(): Promise<number> {
    return 0
  }

  async freeBytes(): Promise<number | undefined> {
    return undefined
  }

  #appender(record: UploadRecord): Appender {
    return new DataStoreAppender(this.#store, record, () => this.look(record.head.id))
  }
}

function recordOf(upload: Upload): UploadRecord {
  const { id, offset, storage, metadata, creation_date } = upload
  const length = upload.size ?? undefined
  if (!isCount(offset) || (length !== undefined && (!isCount(length) || offset > length)))
    throw new StoreError('damaged', `the store says that ${offset} of ${length} bytes are there`)
  // Where it is not known, now, as in @tus/utils: an upload must not have expired because of it.
  const createdAt = Date.parse(creation_date ?? '') || Date.now()
  const header = metadata && Metadata.stringify(metadata)
  return {
    head: { id, createdAt, dialect: 'tus', ...(header && { metadata: header }) },
    mark: markOf(offset, length, createdAt),
    ...(storage && { storage }),
  }
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isReadable(store: DataStore): store is DataStore & ReadableStore {
  return 'read' in store && typeof store.read === 'function'
}

async function* slice(source: Readable, start: number, end: number): AsyncGenerator<Uint8Array> {
  let at = 0
  for await (const chunk of source as AsyncIterable<Uint8Array>) {
    const from = Math.max(0, start - at)
    at += chunk.length
    if (at <= start) continue
    yield chunk.subarray(from, chunk.length - Math.max(0, at - end))
    if (at >= end) return
  }
  throw new StoreError('damaged', 'there are fewer bytes than the store said')
}
