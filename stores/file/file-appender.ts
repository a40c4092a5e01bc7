/**
 * One writer's hold on the two files of an upload: bytes first, mark second, answer third. All writes of the mark pass
 * through one queue, so that a sync in the background and a commit never mix.
 */
import { constants } from 'node:fs'
import {
  type Appender,
  type Digest,
  type Now,
  StoreError,
  type UploadHead,
  type UploadRecord,
} from '../contracts.ts'
import type { Meter } from '../meter.ts'
import type { FileLayout } from './file-layout.ts'
import { asStoreError, type FileSystem, type OpenFile, syncFile, syncNames } from './file-system.ts'
import type { Slot } from './mark-codec.ts'
import type { MarkFile } from './mark-file.ts'
import { hasSuccessor } from './opening.ts'
import { publish, withdraw } from './published.ts'

/**
 * When bytes reach the disk: `finish` before a finished upload is acknowledged, `checkpoint` before every mark,
 * `none` when the system likes.
 */
export type Durability = 'finish' | 'checkpoint' | 'none'

const readBytes = 1024 * 1024

export interface AppenderParts {
  readonly fileSystem: FileSystem
  readonly layout: FileLayout
  readonly durability: Durability
  /** Whether other processes write to the folder; then every commit looks for a successor. */
  readonly isShared: boolean
  readonly now: Now
  /** Whether other machines write to it; they see a mark when it was synced. */
  readonly isOnNetwork: boolean
  /** Unsynced bytes after which a running upload is synced in the background; what a power loss can cost. */
  readonly backgroundSyncBytes: number
  readonly head: UploadHead
  readonly slot: Slot
  readonly mark: MarkFile
  readonly data: OpenFile
  readonly rewound?: { readonly from: number; readonly to: number } | undefined
  readonly meter?: Meter | undefined
  readonly onClose: (appender: FileAppender) => void
}

/** One generation of an upload, open for its writer. */
export type OpenUpload = Pick<AppenderParts, 'head' | 'slot' | 'mark' | 'data' | 'rewound'>

export class FileAppender implements Appender {
  readonly keepsNoBuffers = true
  readonly #parts: AppenderParts
  #slot: Slot
  #queue: Promise<unknown> = Promise.resolve()
  #writes = new Set<Promise<void>>()
  #backgroundSync: Promise<void> | undefined
  #failedSync: unknown
  #isSuperseded = false
  #closing: Promise<void> | undefined
  #hasStayed = false

  constructor(parts: AppenderParts) {
    this.#parts = parts
    this.#slot = parts.slot
  }

  get record(): UploadRecord {
    return recordOf(this.#parts.layout, this.#parts.head, this.#slot)
  }

  get rewound(): { readonly from: number; readonly to: number } | undefined {
    return this.#hasStayed ? undefined : this.#parts.rewound
  }

  get mayStay(): boolean {
    const isSound = this.#failedSync === undefined && !this.#isSuperseded
    // Files on a network file system are not closed while they are not used.
    return isSound && !this.#parts.isOnNetwork && this.#slot.state === 'open'
  }

  /** The mark names this writer all the time, so whoever could not know that it is done has taken the upload over. */
  async goOn(): Promise<boolean> {
    const { data, mark, isShared } = this.#parts
    const { size, nlink } = await data.stat()
    if (!this.mayStay || nlink === 0 || size < this.#slot.offset) return false
    if (isShared ? await this.#hasSuccessor() : !(await mark.isLinked())) return false
    this.#hasStayed = true
    return true
  }

  write(buffers: readonly Uint8Array[], position: number): Promise<void> {
    const write = writeAll(this.#parts.data, buffers, position)
      .catch((error: unknown) => {
        throw asStoreError(error, 'write the bytes of an upload')
      })
      .finally(() => this.#writes.delete(write))
    this.#writes.add(write)
    return write
  }

  /**
   * Makes the first bytes those of another file, by sharing its blocks. False where the file system can not do that;
   * then the file may be empty, so this is for one of which nothing counts yet. The target is named by its open file:
   * a path could be another's by now.
   */
  async cloneFrom(file: string): Promise<boolean> {
    const { fileSystem, data } = this.#parts
    return fileSystem.copyFile(file, `/proc/self/fd/${data.fd}`, constants.COPYFILE_FICLONE_FORCE).then(
      () => true,
      () => false,
    )
  }

  async *read(start: number, end: number): AsyncIterable<Uint8Array> {
    const buffer = Buffer.allocUnsafe(Math.min(readBytes, end - start))
    for (let at = start; at < end; ) {
      const { bytesRead } = await this.#parts.data.read(buffer, 0, Math.min(buffer.length, end - at), at)
      if (bytesRead === 0) throw new StoreError('damaged', 'bytes that were written are not there')
      yield buffer.subarray(0, bytesRead)
      at += bytesRead
    }
  }

  /** A writer of this same store has taken the upload over: from now on nothing of this one counts. */
  supersede(): void {
    this.#isSuperseded = true
  }

  async commit(change: { offset: number; length?: number; last?: boolean }): Promise<UploadRecord> {
    const { durability, mark } = this.#parts
    const { offset, length = this.#slot.length } = change
    if (length !== undefined && offset >= length)
      throw new RangeError('the mark reaches the length only by finish')
    if (offset < this.#slot.offset) throw new RangeError('the mark never goes back')
    await this.#failAfterFailedSync()
    if (durability === 'checkpoint') {
      await this.#syncOrRewind(() => this.#syncBytes())
    }
    await this.#move({
      offset: change.offset,
      ...(change.length !== undefined && { length: change.length }),
      ...(durability === 'checkpoint' && { syncedOffset: change.offset }),
      // A sync in the background moves the mark once more, when it is done; then `close` lets go.
      isReleased: change.last === true && this.#backgroundSync === undefined,
    })
    if (durability === 'checkpoint') await this.#syncOrRewind(() => mark.sync())
    else if (!change.last) this.#syncInBackground()
    return this.record
  }

  async finish(length: number, digest?: Digest): Promise<UploadRecord> {
    const { data, mark, durability, layout, head } = this.#parts
    const declared = this.#slot.length ?? length
    if (length !== declared || length < this.#slot.offset)
      throw new RangeError('an upload finishes at its length, and never behind its mark')
    if (head.digest && !isSameDigest(head.digest, digest))
      throw new RangeError('an upload that declares a digest finishes with no other')
    await this.#backgroundSync
    await this.#failAfterFailedSync()
    const { size } = await data.stat()
    if (size < length)
      throw new StoreError(
        'damaged',
        `only ${size} of ${length} bytes are stored; the upload is not finished`,
      )
    if (size > length) await data.truncate(length)
    if (durability !== 'none') {
      await this.#syncOrRewind(() => this.#syncBytes())
    }
    const before = this.#slot
    if (head.storagePath !== undefined) await publish(layout, head, before.generation, durability !== 'none')
    try {
      await this.#move({
        ...{ state: 'finished', offset: length, syncedOffset: length, length, isReleased: true },
        ...(digest && { digest }),
      })
    } catch (error) {
      await withdraw(layout, head, before.generation).catch(() => undefined)
      throw error
    }
    if (durability === 'none') return this.record
    try {
      await this.#timed(() => mark.sync())
    } catch (error) {
      await this.#undo(before)
      throw new StoreError('io', 'the mark could not be synced; the upload is not finished', { cause: error })
    }
    return this.record
  }

  async #undo({ offset, syncedOffset }: Slot): Promise<void> {
    const { digest: _, ...slot } = this.#slot
    this.#slot = slot
    await this.#move({ state: 'open', offset, syncedOffset })
  }

  async fail(): Promise<UploadRecord> {
    const { data, mark, durability } = this.#parts
    await this.#backgroundSync
    await this.#move({ state: 'failed', isReleased: true })
    if (durability !== 'none') await mark.sync()
    // After a loss of power without them the upload is open, and begins again.
    await data.truncate(0)
    return this.record
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    await Promise.allSettled([...this.#writes, this.#backgroundSync])
    await this.#queue
    try {
      const { isReleased, offset, syncedOffset } = this.#slot
      const isSuspect = this.#failedSync !== undefined && offset > syncedOffset
      // Says that the last write has returned; a successor may then go on in the same files.
      if ((!isReleased || isSuspect) && !this.#isSuperseded)
        await this.#move({ isReleased: true, ...(isSuspect && { offset: syncedOffset }) })
    } catch {
      // The next writer finds the mark not released, and copies what is kept instead of trusting this one.
    }
    this.#parts.onClose(this)
    await Promise.allSettled([this.#parts.data.close(), this.#parts.mark.close()])
  }

  /**
   * Bytes that were synced stand beside a head and under names that were synced, so these are done once for an upload:
   * before a slot says so, for the sectors of a mark reach the disk in any order. Of a later generation nothing counts
   * without the mark of the first.
   */
  async #syncBytes(): Promise<void> {
    const { fileSystem, layout, head, mark, data } = this.#parts
    const { syncedOffset, generation } = this.#slot
    if (syncedOffset > 0) return data.datasync()
    const first = generation > 0 ? syncFile(fileSystem, layout.mark(head.id, 0)) : undefined
    await Promise.all([data.datasync(), mark.sync(), first])
    await syncNames(fileSystem, layout.folder(head.id), layout.directory)
  }

  /** Writes the mark, then looks whether another writer took over: a holder must not acknowledge what it lost. */
  #move(change: Partial<Slot>): Promise<void> {
    const moved = this.#queue.then(async () => {
      const { offset, sequence, movedAt } = this.#slot
      const hasMoved = change.offset !== undefined && change.offset !== offset
      const next: Slot = {
        ...this.#slot,
        ...change,
        sequence: sequence + 1,
        movedAt: hasMoved ? this.#parts.now() : movedAt,
      }
      this.#failWhenSuperseded()
      try {
        await this.#parts.mark.write(next)
        if (this.#parts.isOnNetwork) await this.#parts.mark.sync()
      } catch (error) {
        throw asStoreError(error, 'write the mark of an upload')
      }
      if (this.#parts.isShared && (await this.#hasSuccessor())) this.#isSuperseded = true
      this.#failWhenSuperseded()
      this.#slot = next
    })
    this.#queue = moved.catch(() => undefined)
    return moved
  }

  #failWhenSuperseded(): void {
    if (this.#isSuperseded) throw new StoreError('superseded', 'another writer has taken this upload over')
  }

  async #hasSuccessor(): Promise<boolean> {
    const { fileSystem, layout, head, mark } = this.#parts
    const { generation } = this.#slot
    try {
      return await hasSuccessor(fileSystem, layout, { id: head.id, generation, mark })
    } catch (error) {
      throw asStoreError(error, 'look for another writer')
    }
  }

  #syncInBackground(): void {
    const { offset, syncedOffset } = this.#slot
    const { durability, backgroundSyncBytes } = this.#parts
    if (durability === 'none' || this.#backgroundSync !== undefined) return
    if (offset - syncedOffset < backgroundSyncBytes) return
    this.#backgroundSync = this.#syncUpTo(offset)
      .catch(() => undefined) // A mark that could not move will be tried again, and then tell its writer.
      .finally(() => {
        this.#backgroundSync = undefined
      })
  }

  async #syncUpTo(offset: number): Promise<void> {
    try {
      await this.#timed(() => this.#syncBytes())
    } catch (error) {
      this.#failedSync = error
      return
    }
    await this.#move({ syncedOffset: offset })
    // Without its mark the upload would not be there after a power loss, however many of its bytes were.
    await this.#parts.mark.sync()
  }

  async #syncOrRewind(sync: () => Promise<void>): Promise<void> {
    try {
      await this.#timed(sync)
    } catch (error) {
      this.#failedSync = error
      await this.#failAfterFailedSync()
    }
  }

  #timed(sync: () => Promise<void>): Promise<void> {
    const { meter } = this.#parts
    return meter ? meter.syncs.time(sync) : sync()
  }

  /** After a failed sync the system may have dropped any byte: trust what was synced before, never sync again and hope. */
  async #failAfterFailedSync(): Promise<void> {
    if (this.#failedSync === undefined) return
    const { syncedOffset } = this.#slot
    if (this.#slot.offset !== syncedOffset) await this.#move({ offset: syncedOffset })
    throw new StoreError('io', `a sync failed; the upload goes on from byte ${syncedOffset}`, {
      cause: this.#failedSync,
    })
  }
}

/** Said of an upload whose storage holds less than its mark said. */
export function rewind(from: number, to: number): { from: number; to: number } | undefined {
  return to < from ? { from, to } : undefined
}

/** The record that a mark stands for. */
export function recordOf(layout: FileLayout, head: UploadHead, slot: Slot): UploadRecord {
  const { state, offset, syncedOffset, length, generation, sequence, movedAt, digest } = slot
  return {
    head,
    mark: {
      state,
      offset,
      syncedOffset,
      ...(length !== undefined && { length }),
      generation,
      sequence,
      movedAt,
      ...(digest && { digest }),
    },
    storage: { type: 'file', path: layout.data(head.id, generation) },
  }
}

function isSameDigest(a: Digest, b: Digest | undefined): boolean {
  return a.algorithm === b?.algorithm && a.base64 === b.base64
}

async function writeAll(data: OpenFile, buffers: readonly Uint8Array[], position: number): Promise<void> {
  let rest = buffers
  let at = position
  while (rest.length > 0) {
    const { bytesWritten } = await data.writev(rest as Uint8Array[], at)
    if (bytesWritten === 0 && rest.some((buffer) => buffer.byteLength > 0))
      throw new StoreError('io', 'the system takes no more bytes')
    at += bytesWritten
    rest = dropBytes(rest, bytesWritten)
  }
}

/** What is left of a list of buffers when its first `count` bytes are gone. */
function dropBytes(buffers: readonly Uint8Array[], count: number): readonly Uint8Array[] {
  let left = count
  for (const [index, buffer] of buffers.entries()) {
    if (left < buffer.byteLength) return [buffer.subarray(left), ...buffers.slice(index + 1)]
    left -= buffer.byteLength
  }
  return []
}
