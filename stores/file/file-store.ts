/**
 * The file store as @tus/server knows stores, so that it can be mounted in anyone's server. It keeps the same files as
 * Tidemark's own engine, which goes straight to `byteStore`; so both can work on one folder, one after the other.
 */
import path from 'node:path'
import { Readable } from 'node:stream'
import { FileStore as TusFileStore } from '@tus/file-store'
import { ERRORS, type KvStore, Metadata, Upload } from '@tus/utils'
import { wallClock } from '../clock.ts'
import { type Appender, type Now, StoreError, type UploadRecord } from '../contracts.ts'
import type { Meter } from '../meter.ts'
import type { Durability } from './file-appender.ts'
import { FileBytes } from './file-bytes.ts'

export interface FileStoreOptions {
  readonly directory: string
  readonly durability?: Durability
  /** False only when no other process can ever write to the folder. */
  readonly isShared?: boolean
  /** What time it is for all that expires. Default: the wall clock. */
  readonly now?: Now
  /** Where it is counted how long syncs take. */
  readonly meter?: Meter
  /** Told of every upload as @tus stores tell theirs; nothing here depends on it. */
  readonly configstore?: KvStore<Upload>
  /** For `deleteExpired`, as in @tus/file-store: milliseconds since the creation; 0 is never. */
  readonly expirationPeriodInMilliseconds?: number
}

export class FileStore extends TusFileStore {
  readonly byteStore: FileBytes
  readonly #told: KvStore<Upload> | undefined
  readonly #now: Now
  #started: Promise<void> | undefined

  constructor(options: FileStoreOptions) {
    const { directory, configstore, expirationPeriodInMilliseconds } = options
    const byteStore = new FileBytes(options)
    super({
      // The base class makes its folder here, where nobody could catch a failure; ours is made by the first use.
      directory: path.parse(path.resolve(directory)).root,
      configstore: configstore ?? new MarksAsConfigStore(byteStore),
      ...(expirationPeriodInMilliseconds !== undefined && { expirationPeriodInMilliseconds }),
    })
    this.directory = path.resolve(directory)
    this.byteStore = byteStore
    this.#told = configstore
    this.#now = options.now ?? wallClock
    // A plain @tus/server has no concatenation, whatever its store can do.
    this.extensions = byteStore.extensions.filter((name) => !name.startsWith('concatenation'))
  }

  override async create(upload: Upload): Promise<Upload> {
    await this.#start()
    const head = {
      id: upload.id,
      createdAt: this.#now(),
      dialect: 'tus' as const,
      ...(hasEntries(upload.metadata) && { metadata: Metadata.stringify(upload.metadata) }),
    }
    const appender = await asTusErrors(() => this.byteStore.create(head, upload.size))
    try {
      // Nobody sends bytes to an empty upload.
      if (upload.size === 0) await asTusErrors(() => appender.finish(0))
    } finally {
      await appender.close()
    }
    Object.assign(upload, uploadOf(appender.record))
    await this.#told?.set(upload.id, upload)
    return upload
  }

  override async write(source: Readable, id: string, offset: number): Promise<number> {
    await this.#start()
    return this.#writing(
      id,
      (appender) => receive(appender, source, offset),
      () => receiveNothing(source, offset),
    )
  }

  override async getUpload(id: string): Promise<Upload> {
    await this.#start()
    const record = await asTusErrors(() => this.byteStore.look(id))
    if (record === undefined || record.mark.state === 'terminated') throw ERRORS.FILE_NOT_FOUND
    return uploadOf(record)
  }

  override async declareUploadLength(id: string, length: number): Promise<void> {
    await this.#start()
    const upload = await this.#writing(id, async (appender) => {
      const { offset } = appender.record.mark
      if (length === offset) await appender.finish(length)
      else await appender.commit({ offset, length, last: true })
      return uploadOf(appender.record)
    })
    await this.#told?.set(id, upload)
  }

  override async remove(id: string): Promise<void> {
    await this.#start()
    if (!(await this.#remove(id))) throw ERRORS.FILE_NOT_FOUND
  }

  override read(id: string): ReturnType<TusFileStore['read']> {
    const bytes = this.byteStore
    async function* content() {
      const record = await bytes.look(id)
      if (record === undefined) throw ERRORS.FILE_NOT_FOUND
      yield* await bytes.read(record, 0, record.mark.offset)
    }
    // The base class promises a file's own stream; its callers only read it.
    return Readable.from(content()) as ReturnType<TusFileStore['read']>
  }

  /** Removes unfinished uploads past their time; never a finished one. */
  override async deleteExpired(): Promise<number> {
    await this.#start()
    const lifeMs = this.getExpiration()
    let removed = 0
    if (lifeMs <= 0) return removed
    for await (const { head, mark } of this.byteStore.walk()) {
      if (mark.state !== 'open' || this.#now() < head.createdAt + lifeMs) continue
      if (await this.#remove(head.id)) removed++
    }
    return removed
  }

  async #remove(id: string): Promise<boolean> {
    const wasThere = await asTusErrors(() => this.byteStore.remove(id))
    if (wasThere) await this.#told?.delete(id)
    return wasThere
  }

  /** Runs `work` with the hold on an unfinished upload; `sealed` when it is finished already. */
  async #writing<T>(
    id: string,
    work: (appender: Appender) => Promise<T>,
    sealed?: () => Promise<T>,
  ): Promise<T> {
    const appender = await asTusErrors(() => this.byteStore.open(id))
    if (appender === undefined) {
      const record = await asTusErrors(() => this.byteStore.look(id))
      if (record?.mark.state === 'finished' && sealed) return sealed()
      throw ERRORS.FILE_NOT_FOUND
    }
    try {
      return await asTusErrors(() => work(appender))
    } finally {
      await appender.close()
    }
  }

  async #start(): Promise<void> {
    this.#started ??= this.byteStore.start().catch((error: unknown) => {
      // The next request tries again: the disk may be there by then.
      this.#started = undefined
      throw error
    })
    await asTusErrors(() => this.#started!)
  }
}

/** An upload as @tus knows it. */
export function uploadOf({ head, mark, storage }: UploadRecord): Upload {
  const upload = new Upload({
    id: head.id,
    offset: mark.offset,
    creation_date: new Date(head.createdAt).toISOString(),
    ...(mark.length !== undefined && { size: mark.length }),
    ...(storage && { storage }),
  })
  if (head.metadata) upload.metadata = metadataOf(head.metadata)
  return upload
}

/** It was checked when the upload was created; the stricter parser of @tus/utils would refuse keys like `constructor`. */
function metadataOf(header: string): Record<string, string | null> {
  const pairs = header.split(',').map((pair) => pair.trim().split(' '))
  const decode = (value: string | undefined) =>
    value === undefined ? null : Buffer.from(value, 'base64').toString('utf8')
  return Object.fromEntries(pairs.map(([key, value]) => [key, decode(value)]))
}

/** What came before a failure is kept, as far as it was written. */
async function receive(appender: Appender, source: Readable, offset: number): Promise<number> {
  const { length } = appender.record.mark
  let written = offset
  try {
    for await (const chunk of source) {
      await appender.write([chunk as Buffer], written)
      written += (chunk as Buffer).length
    }
  } finally {
    if (written === length) await appender.finish(length)
    else await appender.commit({ offset: written, last: true })
  }
  return written
}

/** An append to a finished upload, at its end, which has nothing in it. */
async function receiveNothing(source: Readable, offset: number): Promise<number> {
  for await (const chunk of source) if ((chunk as Buffer).length > 0) throw ERRORS.ERR_SIZE_EXCEEDED
  return offset
}

function hasEntries(metadata: Upload['metadata']): metadata is NonNullable<Upload['metadata']> {
  return metadata !== undefined && Object.keys(metadata).length > 0
}

/** What passes is told as 423: clients begin again at byte 0 after a 5xx to HEAD. */
async function asTusErrors<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    switch (error.code) {
      case 'exists':
        throw { status_code: 409, body: 'An upload or a file with this id exists already\n' }
      case 'bad-id':
        throw { status_code: 400, body: 'This id can not name an upload\n' }
      case 'unavailable':
      case 'superseded':
        throw { status_code: 423, body: 'The upload can not be used right now\n' }
      default:
        throw ERRORS.FILE_WRITE_ERROR
    }
  }
}

/** The marks, seen as a store of settings: they are the truth, so nothing is ever written through it. */
class MarksAsConfigStore implements KvStore<Upload> {
  readonly #bytes: FileBytes

  constructor(bytes: FileBytes) {
    this.#bytes = bytes
  }

  async get(id: string): Promise<Upload | undefined> {
    const record = await this.#bytes.look(id)
    return record && uploadOf(record)
  }

  async set(): Promise<void> {}

  async delete(): Promise<void> {}

  async list(): Promise<string[]> {
    const ids: string[] = []
    for await (const { head } of this.#bytes.walk()) ids.push(head.id)
    return ids
  }
}
