/**
 * One request's hold on an upload in a plain @tus store: a body becomes one call of the store's `write`, and what the
 * store says afterwards is the mark.
 *
 * The last buffer is held back until the engine says `finish` or `commit`: so the store cannot reach the length, and
 * with it success, before the engine agreed (hooks, locks). And a store that must know the length before its last byte
 * comes (one that completes a multipart upload then) is told it in time.
 */
import type { DataStore } from '@tus/utils'
import { type Appender, type Mark, StoreError, type UploadRecord } from '../contracts.ts'
import { Feed } from './feed.ts'
import { failureOf } from './tus-failures.ts'

/** How one call of the store's `write` ended. */
type Stored = { readonly is: 'stored'; readonly offset: number } | { readonly is: 'failed'; error: unknown }

interface Run {
  readonly feed: Feed
  readonly stored: Promise<Stored>
  /** Set once it has ended. */
  ended?: Stored
}

export class DataStoreAppender implements Appender {
  readonly #store: DataStore
  readonly #look: () => Promise<UploadRecord | undefined>
  #record: UploadRecord
  #run: Run | undefined
  #held: Uint8Array | undefined
  /** Where the next write begins. */
  #next: number
  /** Bytes beyond the length, which no store is given. */
  #dropped = 0
  #committed: number
  #hasFailed = false
  #queue: Promise<unknown> = Promise.resolve()
  #closing: Promise<void> | undefined

  constructor(store: DataStore, record: UploadRecord, look: () => Promise<UploadRecord | undefined>) {
    this.#store = store
    this.#look = look
    this.#record = record
    this.#next = record.mark.offset
    this.#committed = this.#next
  }

  get record(): UploadRecord {
    return this.#record
  }

  write(buffers: readonly Uint8Array[], position: number): Promise<void> {
    if (this.#closing) return Promise.reject(new RangeError('this hold was given up'))
    return this.#inTurn(() => this.#write(buffers, position))
  }

  /** Only checksums behind a body need it, and they are not announced. */
  // biome-ignore lint/correctness/useYield: nothing can be given
  async *read(): AsyncGenerator<Uint8Array> {
    throw new StoreError('io', 'what a @tus store is writing can not be read back')
  }

  commit({ offset, length, last = false }: Parameters<Appender['commit']>[0]): Promise<UploadRecord> {
    return this.#inTurn(async () => {
      const total = length ?? this.#mark.length
      if (total !== undefined && offset >= total)
        throw new RangeError('the mark reaches the length only by finish')
      if (offset < this.#mark.offset) throw new RangeError('the mark never goes back')
      this.#committed = offset
      // While the store is writing only it can say how far it is, and for a progress report it need not be able to.
      if (this.#run && !last) return this.#ask().catch(() => this.#record)
      if (last) this.#keepBack(this.#next - offset)
      await this.#end()
      if (total !== undefined && total !== this.#mark.length) await this.#declare(total)
      return this.#record
    })
  }

  finish(length: number): Promise<UploadRecord> {
    return this.#inTurn(async () => {
      const { offset, length: declared = length } = this.#mark
      if (length !== declared || length < offset)
        throw new RangeError('an upload finishes at its length, and never behind its mark')
      if (this.#next !== length)
        throw new StoreError(
          'damaged',
          `${this.#next} of ${length} bytes were stored; the upload is not finished`,
        )
      if (this.#mark.length === undefined) await this.#declareBeforeTheEnd(length)
      await this.#end()
      if (this.#mark.state !== 'finished')
        throw new StoreError(
          'io',
          `the store kept ${this.#mark.offset} of ${length} bytes; the upload is not finished`,
        )
      return this.#record
    })
  }

  async fail(): Promise<UploadRecord> {
    throw new StoreError('io', 'the uploads of a @tus store can not fail')
  }

  close(): Promise<void> {
    this.#closing ??= this.#inTurn(async () => {
      const run = this.#run
      if (!run) return
      if (this.#committed === this.#next) {
        await this.#end().catch(() => undefined)
        return
      }
      run.feed.destroy(new Error('the upload was let go'))
      await run.stored
    })
    return this.#closing
  }

  get #mark(): Mark {
    return this.#record.mark
  }

  async #write(buffers: readonly Uint8Array[], position: number): Promise<void> {
    if (position !== this.#next + this.#dropped) throw new RangeError('a @tus store is written to in order')
    const { length = Number.POSITIVE_INFINITY } = this.#mark
    for (const buffer of buffers) {
      const bytes = buffer.subarray(0, Math.max(0, Math.min(buffer.length, length - this.#next)))
      this.#dropped += buffer.length - bytes.length
      if (bytes.length === 0) continue
      await this.#putHeld()
      this.#held = bytes
      this.#next += bytes.length
    }
  }

  async #putHeld(): Promise<void> {
    const bytes = this.#held
    if (bytes === undefined) return
    this.#held = undefined
    this.#run ??= this.#begin()
    if (await this.#run.feed.put(bytes)) return
    const ended = this.#run.ended ?? (await this.#run.stored)
    this.#hasFailed = true
    if (ended.is === 'failed') throw ended.error
    throw new StoreError('io', `the store stopped at byte ${ended.offset} and takes no more`)
  }

  #begin(): Run {
    const feed = new Feed()
    const write = async () => this.#store.write(feed, this.#record.head.id, this.#mark.offset)
    const stored = write()
      .then(
        (offset): Stored => ({ is: 'stored', offset }),
        (error: unknown): Stored => ({
          is: 'failed',
          error: failureOf(error, 'write the bytes of an upload'),
        }),
      )
      .then((ended) => {
        run.ended = ended
        feed.destroy()
        return ended
      })
    const run: Run = { feed, stored }
    return run
  }

  /** What is not to count is not given to the store, as far as it was held back. */
  #keepBack(bytes: number): void {
    const held = this.#held
    if (held === undefined || bytes <= 0 || bytes > held.length) return
    this.#held = bytes === held.length ? undefined : held.subarray(0, held.length - bytes)
    this.#next -= bytes
  }

  /** Lets the store have all that came, waits for it, and sets the mark to what it says. */
  async #end(): Promise<void> {
    // What was told by `write` is not told again: now it only counts what is there.
    if (this.#hasFailed) {
      this.#run = undefined
      this.#held = undefined
      await this.#ask()
      this.#next = this.#mark.offset
      return
    }
    await this.#putHeld()
    const run = this.#run
    if (!run) return
    run.feed.end()
    const ended = await run.stored
    this.#run = undefined
    if (ended.is === 'failed') throw ended.error
    if (ended.offset === this.#next) this.#moveTo({ offset: ended.offset })
    else await this.#ask()
    this.#next = this.#mark.offset
  }

  /** The length is only known now: the store is told it before the last bytes come. */
  async #declareBeforeTheEnd(length: number): Promise<void> {
    const last = this.#held
    this.#held = undefined
    const before = length - (last?.length ?? 0)
    this.#next = before
    await this.#end()
    if (this.#mark.offset !== before)
      throw new StoreError('io', `the store kept ${this.#mark.offset} of ${before} bytes`)
    await this.#declare(length)
    this.#held = last
    this.#next = length
    // Stores that complete an upload do it in `write`, so there is one also when nothing is left to be written.
    if (last === undefined && length > 0) this.#run = this.#begin()
  }

  async #declare(length: number): Promise<void> {
    try {
      await this.#store.declareUploadLength(this.#record.head.id, length)
    } catch (error) {
      throw failureOf(error, 'keep the length of an upload')
    }
    this.#moveTo({ length })
  }

  async #ask(): Promise<UploadRecord> {
    const record = await this.#look()
    if (record === undefined) throw new StoreError('superseded', 'the upload was removed meanwhile')
    this.#record = record
    return record
  }

  #moveTo(change: { offset?: number; length?: number }): void {
    const { offset, length } = { ...this.#mark, ...change }
    this.#record = { ...this.#record, mark: markOf(offset, length, this.#mark.movedAt) }
  }

  /** One thing after another, whatever came of the one before. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(work)
    this.#queue = done.catch(() => undefined)
    return done
  }
}

/** The mark that a store's offset and size stand for. */
export function markOf(offset: number, length: number | undefined, movedAt: number): Mark {
  return {
    state: offset === length ? 'finished' : 'open',
    offset,
    syncedOffset: offset,
    ...(length !== undefined && { length }),
    generation: 0,
    // A store counts nothing; but bytes only become more, and a length that is known stays known.
    sequence: offset + (length === undefined ? 0 : 1),
    movedAt,
  }
}
