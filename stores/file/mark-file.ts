/**
 * One mark file, open. The mark is the truth about an upload: it is written before any answer carries its offset, and
 * whoever reads it sees the newest slot that was written whole.
 */
import { StoreError, type UploadHead } from '../contracts.ts'
import { errnoOf, type FileSystem, type OpenFile, writeWhole } from './file-system.ts'
import {
  decodeHead,
  encodeHead,
  encodeSlot,
  firstReadBytes,
  headPosition,
  holdsHead,
  newestSlot,
  type Slot,
  slotBytes,
  slotPosition,
  tombstoneSequence,
} from './mark-codec.ts'
import { isOfEarlierBoot } from './writer.ts'

const noSlots = Buffer.alloc(headPosition)

export interface MarkContent {
  readonly head: UploadHead
  readonly slot: Slot
}

export class MarkFile {
  readonly #handle: OpenFile
  readonly path: string

  private constructor(handle: OpenFile, file: string) {
    this.#handle = handle
    this.path = file
  }

  /** Makes a mark file that is not there yet, empty: it only claims its name, and readers pass it over. */
  static async create(fileSystem: FileSystem, file: string): Promise<MarkFile> {
    return new MarkFile(await fileSystem.open(file, 'wx+'), file)
  }

  /** Opens a mark, or answers undefined when there is none. */
  static async open(fileSystem: FileSystem, file: string, flags: 'r' | 'r+'): Promise<MarkFile | undefined> {
    try {
      return new MarkFile(await fileSystem.open(file, flags), file)
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ENAMETOOLONG') return undefined
      throw error
    }
  }

  /**
   * What the mark says, or `incomplete` when it was never completed: cut off while it was made, only claimed, or lost
   * with the power before it was ever synced.
   * Fails with `damaged` when it was complete once, and is not any more.
   */
  async content(): Promise<MarkContent | 'incomplete'> {
    let bytes = await readFully(this.#handle, firstReadBytes)
    const slot = newestSlot(bytes)
    let head = decodeHead(bytes.subarray(headPosition))
    if (typeof head === 'number') {
      bytes = await readFully(this.#handle, headPosition + head)
      head = decodeHead(bytes.subarray(headPosition))
    }
    const isWhole = typeof head === 'object'
    if (slot && isWhole) return { head: head as UploadHead, slot }
    // The first slot is written with the head, in one go. A second one says that both had been there.
    const wasWhole = slot ? slot.sequence > 1 && !isPerhapsUnsynced(slot) : hasBothSlots(bytes)
    if (wasWhole) throw new StoreError('damaged', 'the mark of an upload is damaged')
    return 'incomplete'
  }

  /** Whether anything in the file says that it is a mark of this upload. */
  async isOf(id: string): Promise<boolean> {
    const bytes = await readFully(this.#handle, firstReadBytes)
    if (newestSlot(bytes) !== undefined) return true
    const head = decodeHead(bytes.subarray(headPosition))
    if (typeof head !== 'number') return head?.id === id
    const whole = await readFully(this.#handle, headPosition + head)
    const longHead = decodeHead(whole.subarray(headPosition))
    return typeof longHead === 'object' && longHead.id === id
  }

  /** Writes head and slots of a new mark. Without a slot it stays a claim. */
  async fill(head: UploadHead, slot: Slot | undefined): Promise<void> {
    const content = Buffer.concat([noSlots, encodeHead(head)])
    if (slot) encodeSlot(slot).copy(content, slotPosition(slot.sequence))
    await writeWhole(this.#handle, content, 0)
  }

  /** Overwrites the older slot in place. */
  async write(slot: Slot): Promise<void> {
    await writeWhole(this.#handle, encodeSlot(slot), slotPosition(slot.sequence))
  }

  /** Writes both slots at once, so that either of them may be lost. */
  async seal(slot: Slot): Promise<void> {
    const slots = Buffer.allocUnsafe(2 * slotBytes)
    for (const sequence of [slot.sequence, slot.sequence + 1])
      encodeSlot({ ...slot, sequence }).copy(slots, slotPosition(sequence))
    await writeWhole(this.#handle, slots, 0)
  }

  /** Writes a tombstone into both slots, newer than anything that a writer who comes too late could put over one. */
  async bury(slot: Slot): Promise<void> {
    const tombstone = encodeSlot(tombstoneOf(slot))
    await writeWhole(this.#handle, Buffer.concat([tombstone, tombstone]), 0)
  }

  async sync(): Promise<void> {
    await this.#handle.datasync()
  }

  /** Whether the file still has a name; it loses it when the upload is removed. */
  async isLinked(): Promise<boolean> {
    try {
      return (await this.#handle.stat()).nlink > 0
    } catch (error) {
      // A network file system's word for a file that another machine has removed.
      if (errnoOf(error) === 'ESTALE') return false
      throw error
    }
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }
}

/** The slot after which there is no other. */
export function tombstoneOf(slot: Slot): Slot {
  return { ...slot, state: 'terminated', isReleased: true, sequence: tombstoneSequence }
}

/** Whether a loss of power may have kept this slot without the head, which is synced before any slot speaks of a sync. */
function isPerhapsUnsynced({ state, syncedOffset, writer }: Slot): boolean {
  return (state === 'terminated' || (state === 'open' && syncedOffset === 0)) && isOfEarlierBoot(writer)
}

function hasBothSlots(bytes: Buffer): boolean {
  const isWritten = (from: number) => bytes.subarray(from, from + slotBytes).some((byte) => byte !== 0)
  return bytes.length >= 2 * slotBytes && isWritten(0) && isWritten(slotBytes)
}

/** Reads until the head is there, so that a small mark costs one read; a damaged one is read to its end. */
async function readFully(handle: OpenFile, wanted: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(wanted)
  let filled = 0
  while (filled < wanted) {
    const { bytesRead } = await handle.read(bytes, filled, wanted - filled, filled)
    if (bytesRead === 0) break
    filled += bytesRead
    if (holdsHead(bytes.subarray(headPosition, filled))) break
  }
  return bytes.subarray(0, filled)
}
