/**
 * Uploads in a folder, on one disk or on one that several servers share. The mark file beside the bytes decides
 * whether an upload exists, how far it is, and whether it is finished; everything else may be lost.
 */
import { constants } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { Readable } from 'node:stream'
import {
  type Appender,
  type ByteStore,
  StoreError,
  type UploadHead,
  type UploadRecord,
} from '../contracts.ts'
import { type Durability, FileAppender, recordOf } from './file-appender.ts'
import { FileLayout, ownId } from './file-layout.ts'
import { asStoreError, errnoOf, type FileSystem, nodeFileSystem, removeFile } from './file-system.ts'
import type { Slot } from './mark-codec.ts'
import { type MarkContent, MarkFile } from './mark-file.ts'
import { isNetworkFileSystem } from './network-file-system.ts'
import { findOrphans, walkMarks } from './orphans.ts'
import { isOfEarlierBoot, isWriterGone, newWriter } from './writer.ts'

export interface FileBytesOptions {
  readonly directory: string
  readonly durability?: Durability
  /** False only when no other process can ever write to the folder; saves two look-ups per mark. */
  readonly isShared?: boolean
  readonly fileSystem?: FileSystem
}

/** The generation that counts, and the highest number that anybody has claimed. */
interface Current extends MarkContent {
  readonly highest: number
}

export class FileBytes implements ByteStore {
  readonly extensions = [
    'creation',
    'creation-with-upload',
    'creation-defer-length',
    'termination',
    'expiration',
  ]
  readonly layout: FileLayout
  readonly #fileSystem: FileSystem
  readonly #durability: Durability
  readonly #isShared: boolean
  readonly #writer = newWriter()
  readonly #writing = new Set<string>()
  #trustsEarlierBoots = false

  constructor({
    directory,
    durability = 'finish',
    isShared = true,
    fileSystem = nodeFileSystem,
  }: FileBytesOptions) {
    this.layout = new FileLayout(directory)
    this.#fileSystem = fileSystem
    this.#durability = durability
    this.#isShared = isShared
  }

  /** Makes the folder when it is missing. Fails with `io` when it cannot be used. */
  async start(): Promise<void> {
    const { directory } = this.layout
    try {
      await this.#fileSystem.mkdir(directory, { recursive: true })
      // Another machine's boot says nothing about the storage of a network file system.
      this.#trustsEarlierBoots = await isNetworkFileSystem(this.#fileSystem, directory)
    } catch (error) {
      throw asStoreError(error, 'use the upload folder')
    }
  }

  async close(): Promise<void> {}

  async create(head: UploadHead, length: number | undefined): Promise<Appender> {
    const slot = this.#slot({ state: 'open', offset: 0, syncedOffset: 0, generation: 0, sequence: 0 }, length)
    const made = await this.#createData(head.id)
    try {
      const mark = await MarkFile.create(this.#fileSystem, this.layout.mark(head.id, 0), head, slot)
      // A removal that was cut off may have left later marks of an earlier upload with this id.
      if (!ownId.test(head.id)) await this.#removeMarks(head.id, 1)
      return this.#hold({ head, slot, mark, data: made.data })
    } catch (error) {
      await made.data.close()
      if (errnoOf(error) === 'EEXIST') throw new StoreError('exists', 'an upload with this id exists already')
      if (made.isNew) await removeFile(this.#fileSystem, this.layout.data(head.id, 0)).catch(() => false)
      throw asStoreError(error, 'create the mark of an upload')
    }
  }

  async look(id: string): Promise<UploadRecord | undefined> {
    const current = await this.#current(id)
    if (current === undefined) return undefined
    return recordOf(this.layout, current.head, this.#afterReboot(current.slot))
  }

  async open(id: string, isHeld: () => boolean = () => true): Promise<Appender | undefined> {
    const current = await this.#current(id)
    if (current?.slot.state !== 'open') return undefined
    return this.#mayGoOn(id, current.slot)
      ? this.#openInPlace(id, current, isHeld)
      : this.#openNextGeneration(id, current)
  }

  async remove(id: string): Promise<boolean> {
    const current = await this.#current(id)
    if (current === undefined) return false
    const { head, slot, highest } = current
    const tombstone = { ...slot, ...this.#own(), state: 'terminated' as const, isReleased: true }
    let last = highest
    if (this.#mayGoOn(id, slot)) {
      const mark = await MarkFile.open(this.#fileSystem, this.layout.mark(id, slot.generation))
      if (mark === undefined) return false
      await this.#buryUnder(mark, { ...tombstone, sequence: slot.sequence + 1 })
    } else {
      const next = await this.#claim(id, head, highest + 1, (generation) => ({ ...tombstone, generation }))
      last = next.generation
      await this.#buryUnder(next.mark, undefined)
    }
    await this.#removeFiles(id, last)
    return true
  }

  async read(record: UploadRecord, start: number, end: number): Promise<Readable> {
    if (end <= start) return Readable.from([])
    try {
      const handle = await this.#fileSystem.open(
        this.layout.data(record.head.id, record.mark.generation),
        'r',
      )
      return handle.createReadStream({ start, end: end - 1, highWaterMark: 256 * 1024 })
    } catch (error) {
      throw asStoreError(error, 'read the bytes of an upload')
    }
  }

  async *walk(): AsyncIterable<UploadRecord> {
    for await (const { id, generation } of walkMarks(this.#fileSystem, this.layout.directory)) {
      const record = generation === 0 ? await this.look(id) : undefined
      if (record) yield record
    }
  }

  async sweepOrphans(olderThanMs: number): Promise<number> {
    let removed = 0
    for await (const orphan of findOrphans(this.#fileSystem, this.layout, olderThanMs)) {
      if (orphan.is === 'upload') await this.#removeFiles(orphan.id, orphan.highest)
      else await removeFile(this.#fileSystem, orphan.file)
      removed++
    }
    return removed
  }

  async freeBytes(): Promise<number | undefined> {
    const { bavail, bsize } = await this.#fileSystem.statfs(this.layout.directory)
    return bavail * bsize
  }

  /** The highest generation with a mark that was ever completed. Generation 0 is removed first, so without it there is nothing. */
  async #current(id: string): Promise<Current | undefined> {
    if (!FileLayout.isValidId(id)) return undefined
    let live: MarkContent | undefined
    for (let generation = 0; ; generation++) {
      const found = await this.#readMark(id, generation)
      if (found === undefined) return live && { ...live, highest: generation - 1 }
      if (found !== 'incomplete') live = found
    }
  }

  async #readMark(id: string, generation: number): Promise<MarkContent | 'incomplete' | undefined> {
    try {
      return await MarkFile.read(this.#fileSystem, this.layout.mark(id, generation))
    } catch (error) {
      throw asStoreError(error, 'read the mark of an upload')
    }
  }

  /** Whether nobody can still be writing: the last writer let go, is gone, or was this store and is done. */
  #mayGoOn(id: string, slot: Slot): boolean {
    if (slot.writer === this.#writer) return !this.#writing.has(id)
    return slot.isReleased || isWriterGone(slot.writer)
  }

  async #openInPlace(id: string, current: Current, isHeld: () => boolean): Promise<Appender | undefined> {
    const mark = await MarkFile.open(this.#fileSystem, this.layout.mark(id, current.slot.generation))
    if (mark === undefined) return undefined
    let data: FileHandle | undefined
    try {
      const kept = this.#afterReboot(current.slot)
      data = await this.#openData(this.layout.data(id, kept.generation))
      const { size } = await data.stat()
      const offset = Math.min(kept.offset, size)
      const slot = this.#slot({ ...kept, offset, syncedOffset: Math.min(kept.syncedOffset, offset) })
      if (!isHeld()) throw new StoreError('superseded', 'the lock was lost before the first write')
      await mark.write(slot)
      const rewound = offset < current.slot.offset ? { from: current.slot.offset, to: offset } : undefined
      return this.#hold({ head: current.head, slot, mark, data, ...(rewound && { rewound }) })
    } catch (error) {
      await Promise.allSettled([mark.close(), data?.close()])
      throw asStoreError(error, 'open an upload')
    }
  }

  /**
   * The last writer may be alive but silent: it gets to keep its files, and what it was acknowledged for is copied into
   * new ones. The claim comes first, the mark is read after it; the other side writes its mark first and looks for
   * claims after it. So either its mark is seen here, or it sees the claim.
   */
  async #openNextGeneration(id: string, seen: Current): Promise<Appender | undefined> {
    const { mark, generation } = await this.#claim(id, seen.head, seen.highest + 1, () => undefined)
    let data: FileHandle | undefined
    try {
      const current = await this.#current(id)
      if (current?.slot.state !== 'open') {
        await mark.close()
        return undefined
      }
      const kept = this.#afterReboot(current.slot)
      const target = this.layout.data(id, generation)
      const { COPYFILE_EXCL, COPYFILE_FICLONE } = constants
      await this.#fileSystem.copyFile(
        this.layout.data(id, kept.generation),
        target,
        COPYFILE_EXCL | COPYFILE_FICLONE,
      )
      data = await this.#openData(target)
      const { size } = await data.stat()
      const offset = Math.min(kept.offset, size)
      if (size > offset) await data.truncate(offset)
      const slot = this.#slot({ ...kept, generation, offset, syncedOffset: 0 })
      await mark.write(slot)
      for (let old = 0; old < generation; old++) await removeFile(this.#fileSystem, this.layout.data(id, old))
      const rewound = offset < current.slot.offset ? { from: current.slot.offset, to: offset } : undefined
      return this.#hold({ head: current.head, slot, mark, data, ...(rewound && { rewound }) })
    } catch (error) {
      await Promise.allSettled([mark.close(), data?.close()])
      await removeFile(this.#fileSystem, this.layout.data(id, generation)).catch(() => false)
      throw asStoreError(error, 'take an upload over')
    }
  }

  /** Makes the mark file of the first generation from `from` on that nobody has claimed. */
  async #claim(
    id: string,
    head: UploadHead,
    from: number,
    slotOf: (generation: number) => Slot | undefined,
  ): Promise<{ mark: MarkFile; generation: number }> {
    for (let generation = from; ; generation++) {
      try {
        const file = this.layout.mark(id, generation)
        const mark = await MarkFile.create(this.#fileSystem, file, head, slotOf(generation))
        return { mark, generation }
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw asStoreError(error, 'take an upload over')
      }
    }
  }

  async #buryUnder(mark: MarkFile, tombstone: Slot | undefined): Promise<void> {
    try {
      if (tombstone) await mark.write(tombstone)
      if (this.#durability !== 'none') await mark.sync()
    } catch (error) {
      throw asStoreError(error, 'remove an upload')
    } finally {
      await mark.close()
    }
  }

  /** Bytes first, then the marks from generation 0 up: without that one the upload is gone for every reader. */
  async #removeFiles(id: string, last: number): Promise<void> {
    try {
      for (let n = 0; n <= last; n++) await removeFile(this.#fileSystem, this.layout.data(id, n))
      await this.#removeMarks(id, 0)
    } catch (error) {
      throw asStoreError(error, 'remove the files of an upload')
    }
  }

  async #removeMarks(id: string, from: number): Promise<void> {
    for (let n = from; await removeFile(this.#fileSystem, this.layout.mark(id, n)); n++);
  }

  /** Makes the file for the bytes. An empty one without a mark is what a creation left that was cut off: it is used. */
  async #createData(id: string): Promise<{ data: FileHandle; isNew: boolean }> {
    const file = this.layout.data(id, 0)
    try {
      return { data: await this.#fileSystem.open(file, 'wx'), isNew: true }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') {
        await this.#makeFolder(id)
        return this.#createData(id)
      }
      if (errnoOf(error) !== 'EEXIST') throw asStoreError(error, 'create the file of an upload')
    }
    return { data: await this.#adoptEmptyData(id, file), isNew: false }
  }

  async #adoptEmptyData(id: string, file: string): Promise<FileHandle> {
    const isFree = (await this.#readMark(id, 0)) === undefined
    const { size } = await this.#fileSystem.stat(file).catch(() => ({ size: 1 }))
    if (!isFree || size > 0) throw new StoreError('exists', 'an upload or a file with this id exists already')
    return this.#openData(file)
  }

  async #makeFolder(id: string): Promise<void> {
    try {
      await this.#fileSystem.mkdir(this.layout.folder(id), { recursive: true })
    } catch (error) {
      const isTaken = errnoOf(error) === 'EEXIST' || errnoOf(error) === 'ENOTDIR'
      if (isTaken) throw new StoreError('exists', 'a part of this id is the name of another upload')
      throw asStoreError(error, 'make the folder of an upload')
    }
  }

  /** Opens the bytes for writing; a file that the disk lost is made again, and its mark is then set back to 0. */
  async #openData(file: string): Promise<FileHandle> {
    try {
      return await this.#fileSystem.open(file, constants.O_RDWR | constants.O_CREAT)
    } catch (error) {
      throw asStoreError(error, 'open the file of an upload')
    }
  }

  #hold(parts: {
    head: UploadHead
    slot: Slot
    mark: MarkFile
    data: FileHandle
    rewound?: { from: number; to: number }
  }): Appender {
    const { id } = parts.head
    this.#writing.add(id)
    return new FileAppender({
      ...parts,
      fileSystem: this.#fileSystem,
      layout: this.layout,
      durability: this.#durability,
      isShared: this.#isShared,
      onClose: () => this.#writing.delete(id),
    })
  }

  /** The next slot of an upload that this store writes to. */
  #slot(
    from: Pick<Slot, 'state' | 'offset' | 'syncedOffset' | 'generation' | 'sequence'> & { length?: number },
    length = from.length,
  ): Slot {
    const { state, offset, syncedOffset, generation, sequence } = from
    return {
      state,
      offset,
      syncedOffset,
      ...(length !== undefined && { length }),
      generation,
      sequence: sequence + 1,
      ...this.#own(),
      isReleased: false,
    }
  }

  #own(): { writer: string; writtenAt: number } {
    return { writer: this.#writer, writtenAt: Date.now() }
  }

  /** After the machine was started again only what was synced is certain; the size of a file says nothing. */
  #afterReboot(slot: Slot): Slot {
    if (slot.state !== 'open' || this.#trustsEarlierBoots || !isOfEarlierBoot(slot.writer)) return slot
    return { ...slot, offset: Math.min(slot.offset, slot.syncedOffset) }
  }
}
