/**
 * Uploads in a folder, on one disk or on one that several servers share. The mark file beside the bytes decides
 * whether an upload exists, how far it is, and whether it is finished; everything else may be lost.
 */
import { constants } from 'node:fs'
import type { Readable } from 'node:stream'
import { wallClock } from '../clock.ts'
import {
  type Adoption,
  type Appender,
  type ByteStore,
  type Now,
  StoreError,
  type UploadHead,
  type UploadRecord,
} from '../contracts.ts'
import type { Meter } from '../meter.ts'
import { PassingMap } from '../passing.ts'
import { linkFrom } from './adoption.ts'
import { checkFolder } from './create-mark.ts'
import { type Durability, FileAppender, type OpenUpload, recordOf, rewind } from './file-appender.ts'
import { FileConcatenation } from './file-concatenation.ts'
import { FileLayout } from './file-layout.ts'
import { FileNames } from './file-names.ts'
import { FileOutbox } from './file-outbox.ts'
import { asStoreError, errnoOf, type FileSystem, type OpenFile, syncFolders } from './file-system.ts'
import { type Current, openMarks, readMarks } from './mark-chain.ts'
import type { Slot } from './mark-codec.ts'
import type { MarkFile } from './mark-file.ts'
import { isNetworkFileSystem } from './network-file-system.ts'
import { makeAtRest, makeUpload } from './new-upload.ts'
import { hasSuccessor, Opening } from './opening.ts'
import { walkMarks } from './orphans.ts'
import { withdraw } from './published.ts'
import { type Pace, quickFiles } from './quick-files.ts'
import { readBytes } from './read-bytes.ts'
import { failUnless, Removal } from './removal.ts'
import { removeOrphans } from './remove-orphans.ts'
import { Claims, takeOver } from './take-over.ts'
import { writeWholeUpload } from './whole-upload.ts'
import { afterReboot, isWriterGone, newWriter, nextSlot } from './writer.ts'

export interface FileBytesOptions {
  readonly directory: string
  /** On a network file system `finish` becomes `checkpoint`: another server sees only what was synced. */
  readonly durability?: Durability
  /** False only when no other process can ever write to the folder; saves two look-ups per mark, and the openings. */
  readonly isShared?: boolean
  /** By which marks say when they moved. Default: the wall clock. */
  readonly now?: Now
  /** Unsynced bytes after which a running upload is synced in the background; 64 MiB. */
  readonly backgroundSyncBytes?: number
  readonly fileSystem?: FileSystem
  /** Where it is counted how long syncs take. */
  readonly meter?: Meter
}

export class FileBytes implements ByteStore {
  readonly extensions = [
    'creation',
    'creation-with-upload',
    'creation-defer-length',
    'termination',
    'expiration',
    'checksum',
    'checksum-trailer',
    'concatenation',
    'concatenation-unfinished',
  ]
  readonly keepsDigests = true
  readonly layout: FileLayout
  readonly concatenation: FileConcatenation
  readonly outbox: FileOutbox
  readonly names: FileNames
  readonly #fileSystem: FileSystem & { readonly pace?: Pace }
  readonly #isShared: boolean
  readonly #now: Now
  readonly #backgroundSyncBytes: number
  readonly #writer = newWriter()
  /** Who writes to an upload here, until its last write has returned. */
  readonly #writing = new PassingMap<string, FileAppender>()
  readonly #claims: Claims
  readonly #meter: Meter | undefined
  #durability: Durability
  #isOnNetwork = false

  constructor({
    directory,
    durability = 'finish',
    isShared = true,
    now = wallClock,
    backgroundSyncBytes = 64 * 1024 * 1024,
    fileSystem = quickFiles(),
    meter,
  }: FileBytesOptions) {
    this.layout = new FileLayout(directory)
    this.concatenation = new FileConcatenation(fileSystem, this.layout)
    this.outbox = new FileOutbox(fileSystem, this.layout, () => this.#durability)
    this.names = new FileNames(fileSystem, this.layout, {
      durability: () => this.#durability,
      isAtRest: (id) => this.#isAtRest(id),
    })
    this.#fileSystem = fileSystem
    this.#claims = new Claims(fileSystem, this.layout)
    this.#durability = durability
    this.#isShared = isShared
    this.#meter = meter
    this.#now = now
    this.#backgroundSyncBytes = backgroundSyncBytes
  }

  /** Makes the folder when it is missing. Fails with `io` when it cannot be used. */
  async start(): Promise<void> {
    const { directory } = this.layout
    try {
      const made = await this.#fileSystem.mkdir(directory, { recursive: true })
      if (made !== undefined && this.#durability !== 'none')
        await syncFolders(this.#fileSystem, directory, made)
      this.#isOnNetwork = await isNetworkFileSystem(this.#fileSystem, directory)
      if (this.#isOnNetwork && this.#durability === 'finish') this.#durability = 'checkpoint'
      if (this.#fileSystem.pace) this.#fileSystem.pace.isRemote = this.#isOnNetwork
    } catch (error) {
      throw new StoreError('io', 'could not use the upload folder', { cause: error })
    }
  }

  async close(): Promise<void> {}

  get keepsOpen(): boolean {
    return !this.#isOnNetwork
  }

  async create(head: UploadHead, length: number | undefined): Promise<Appender> {
    return this.#hold(await makeUpload(this.#making, head, this.#emptySlot(length)))
  }

  async createEmpty(
    head: UploadHead,
    length: number | undefined,
    keep?: (appender: Appender) => boolean,
  ): Promise<UploadRecord> {
    const slot = { ...this.#emptySlot(length), isReleased: keep === undefined }
    const isSynced = this.#durability === 'checkpoint' || this.#isOnNetwork
    const appender = this.#hold(await makeAtRest(this.#making, head, slot, isSynced))
    if (!keep?.(appender)) await appender.close()
    return appender.record
  }

  #emptySlot(length: number | undefined): Slot {
    const empty = { offset: 0, syncedOffset: 0, generation: 0, sequence: 0, movedAt: this.#now() }
    return this.#slot({ state: 'open', ...empty }, length)
  }

  get #making() {
    const removeClaims = (id: string) => this.#removal().removeMarksAbove(id, 0)
    return { fileSystem: this.#fileSystem, layout: this.layout, removeClaims }
  }

  async createFinished(head: UploadHead, body: Uint8Array): Promise<UploadRecord> {
    const { length } = body
    const mark = { state: 'finished', offset: length, syncedOffset: length, generation: 0 } as const
    const slot = { ...this.#slot({ ...mark, sequence: 1, movedAt: this.#now() }, length), isReleased: true }
    const isSynced = this.#durability !== 'none' || this.#isOnNetwork
    await writeWholeUpload({ fileSystem: this.#fileSystem, layout: this.layout, head, slot, body, isSynced })
    return recordOf(this.layout, head, { ...slot, sequence: slot.sequence + 1 })
  }

  async look(id: string): Promise<UploadRecord | undefined> {
    if (!FileLayout.isValidId(id)) return undefined
    const current = await readMarks(this.#fileSystem, this.layout, id)
    if (current !== undefined)
      return recordOf(this.layout, current.head, afterReboot(current.slot, this.#isOnNetwork))
    await checkFolder(this.#fileSystem, this.layout)
    return undefined
  }

  async open(id: string, isHeld: () => boolean = () => true): Promise<Appender | undefined> {
    if (!FileLayout.isValidId(id)) return undefined
    const current = await openMarks(this.#fileSystem, this.layout, id, 'r+')
    if (current === undefined) {
      await checkFolder(this.#fileSystem, this.layout)
      return undefined
    }
    const { highest, generation, slot, mark } = current
    const goesOn = slot.state === 'open' && highest === generation && this.#isWriterDone(id, slot)
    const appender = goesOn ? await this.#openInPlace(current, mark, isHeld) : undefined
    if (appender) return appender
    await mark.close()
    return slot.state === 'open' ? this.#openNextGeneration(id, current, isHeld) : undefined
  }

  async remove(id: string, isHeld: () => boolean = () => true): Promise<boolean> {
    if (!FileLayout.isValidId(id)) return false
    const current = await readMarks(this.#fileSystem, this.layout, id)
    if (current === undefined) return false
    const { slot, highest, generation, head } = current
    const removal = this.#removal()
    const wasThere = slot.state !== 'terminated'
    let last = highest
    if (wasThere) {
      failUnless(isHeld)
      const mayBeWritten = this.#isShared ? slot.state === 'open' : !this.#isWriterDone(id, slot)
      if (mayBeWritten || highest > generation) last = await removal.supersede(id, current, isHeld)
      this.#writing.get(id)?.supersede()
    }
    if (wasThere || generation > 0) await removal.bury(id, slot)
    if (head.concat !== undefined) await this.concatenation.forget(id)
    if (head.storagePath !== undefined) for (let n = last; n >= 0; n--) await withdraw(this.layout, head, n)
    await removal.removeFiles(id, last)
    return wasThere
  }

  async linkFrom(upload: UploadRecord, source: UploadRecord): Promise<Adoption | undefined> {
    const { id } = upload.head
    const supersede = () => this.#writing.get(id)?.supersede()
    return linkFrom({ ...this.#files, supersede }, upload, source)
  }

  read(record: UploadRecord, start: number, end: number): Promise<Readable> {
    return readBytes(this.#fileSystem, this.layout, record, start, end)
  }

  async *walk(): AsyncIterable<UploadRecord> {
    for await (const { id, generation } of walkMarks(this.#fileSystem, this.layout.directory)) {
      if (generation !== 0) continue
      const record = await this.look(id).catch((error: unknown) => {
        // One damaged mark must not end the walk over all the others; who asks for that upload is told.
        if (error instanceof StoreError && error.code === 'damaged') return undefined
        throw error
      })
      if (record) yield record
    }
  }

  async sweepOrphans(olderThanMs: number): Promise<number> {
    const parts = { fileSystem: this.#fileSystem, layout: this.layout, removal: this.#removal() }
    const forget = (id: string) => this.concatenation.forget(id)
    // Of what can not be read it is not known whether it is there.
    const isThere = (id: string) =>
      this.look(id).then(
        (record) => record !== undefined,
        () => true,
      )
    const named = await this.names.sweep(this.#now() - olderThanMs, isThere)
    const swept = named + (await this.outbox.sweep(olderThanMs))
    const removed = swept + (await this.outbox.undelivered.sweep(olderThanMs))
    return removed + (await removeOrphans({ ...parts, forget, now: this.#now() }, olderThanMs))
  }

  async freeBytes(): Promise<number | undefined> {
    const { bavail, bsize } = await this.#fileSystem.statfs(this.layout.directory)
    return bavail * bsize
  }

  async #isAtRest(id: string): Promise<boolean> {
    if (!FileLayout.isValidId(id)) return false
    const current = await readMarks(this.#fileSystem, this.layout, id)
    return current !== undefined && this.#isWriterDone(id, current.slot)
  }

  /** Whether the last writer can write no more: it let go, is provably gone, or was this store and is done. */
  #isWriterDone(id: string, slot: Slot): boolean {
    if (slot.writer === this.#writer) return !this.#writing.has(id)
    return slot.isReleased || isWriterGone(slot.writer)
  }

  /**
   * Undefined when somebody else may be about to go on in the same files. Where others can write to the folder the
   * order is: opening, mark read again, mark written, successor looked for, opening taken away.
   */
  async #openInPlace(current: Current, mark: MarkFile, isHeld: () => boolean): Promise<Appender | undefined> {
    const { head, generation } = current
    let opening: Opening | undefined
    let data: OpenFile | undefined
    let appender: FileAppender | undefined
    try {
      if (this.#isShared) {
        opening = await Opening.begin(this.#fileSystem, this.layout.opening(head.id, generation))
        if (opening === undefined) return undefined
        const [isLast] = await Promise.all([this.#isStillLast(current, mark), opening.close()])
        if (!isLast) throw new StoreError('superseded', 'another writer was faster')
      }
      const kept = afterReboot(current.slot, this.#isOnNetwork)
      data = await this.#openData(current)
      const { size } = await data.stat()
      const offset = Math.min(kept.offset, size)
      const slot = this.#slot({ ...kept, offset, syncedOffset: Math.min(kept.syncedOffset, offset) })
      failUnless(isHeld)
      // Before the mark names this store, lest another request here takes that for the end of a writer.
      appender = this.#hold({ head, slot, mark, data, rewound: rewind(current.slot.offset, offset) })
      await mark.write(slot)
      if (opening) await this.#standBy(head.id, generation, mark, opening)
      return appender
    } catch (error) {
      if (appender) this.#forget(head.id, appender)
      await Promise.allSettled([mark.close(), data?.close(), opening?.end()])
      throw asStoreError(error, 'open an upload')
    }
  }

  /** Whether a mark says what it said before, now that nobody else can begin to write to it. */
  async #isStillLast(current: Current, mark: MarkFile): Promise<boolean> {
    // An open file may show what it held when it was opened, where another machine writes to it; and the tombstone of
    // an upload that was taken over stands in another file.
    if (current.generation > 0 || this.#isOnNetwork) return this.#isUnchanged(current)
    const content = await mark.content()
    return content !== 'incomplete' && content.slot.sequence === current.slot.sequence
  }

  async #isUnchanged({ head, generation, slot }: Current): Promise<boolean> {
    const now = await readMarks(this.#fileSystem, this.layout, head.id)
    return now?.generation === generation && now.highest === generation && now.slot.sequence === slot.sequence
  }

  /** The first mark was written: from here on it keeps others away, or was written too late. */
  async #standBy(id: string, generation: number, mark: MarkFile, opening: Opening): Promise<void> {
    if (this.#isOnNetwork) await mark.sync()
    const isOver = hasSuccessor(this.#fileSystem, this.layout, { id, generation, mark })
    await Promise.allSettled([isOver, opening.end()])
    if (await isOver) throw new StoreError('superseded', 'another writer has taken this upload over')
  }

  /** The last writer may be alive but silent: it gets to keep its files. */
  async #openNextGeneration(id: string, seen: Current, isHeld: () => boolean): Promise<Appender | undefined> {
    failUnless(isHeld)
    this.#writing.get(id)?.supersede()
    const taken = await takeOver(this.#files, id, seen, isHeld)
    return taken && this.#hold(taken)
  }

  /** What those need who take over, link and remove. */
  get #files() {
    return {
      ...{ fileSystem: this.#fileSystem, layout: this.layout, claims: this.#claims },
      ...{ writer: this.#writer, now: this.#now },
      ...{ durability: this.#durability, isOnNetwork: this.#isOnNetwork },
    }
  }

  #removal(): Removal {
    return new Removal({ ...this.#files, isSynced: this.#durability !== 'none' })
  }

  /** Opens the bytes for writing; a file that the disk lost is made again, and its mark is then set back to 0. */
  async #openData(current: Current): Promise<OpenFile> {
    const { head, generation } = current
    const file = this.layout.data(head.id, generation)
    try {
      return await this.#fileSystem.open(file, constants.O_RDWR)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
    // More likely somebody has taken the upload over, or removed it: nothing of it shall come back.
    if (!(await this.#isUnchanged(current))) throw new StoreError('superseded', 'another writer was faster')
    return this.#fileSystem.open(file, constants.O_RDWR | constants.O_CREAT)
  }

  #hold(parts: OpenUpload): FileAppender {
    const { id } = parts.head
    const appender = new FileAppender({
      fileSystem: this.#fileSystem,
      layout: this.layout,
      durability: this.#durability,
      isShared: this.#isShared,
      now: this.#now,
      isOnNetwork: this.#isOnNetwork,
      backgroundSyncBytes: this.#backgroundSyncBytes,
      meter: this.#meter,
      onClose: (closed) => this.#forget(id, closed),
      ...parts,
    })
    this.#writing.set(id, appender)
    return appender
  }

  #forget(id: string, appender: FileAppender): void {
    if (this.#writing.get(id) === appender) this.#writing.delete(id)
  }

  #slot(from: Parameters<typeof nextSlot>[1], length = from.length): Slot {
    return nextSlot(this.#writer, from, length)
  }
}
