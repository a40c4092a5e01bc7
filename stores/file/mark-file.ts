/**
 * One mark file, open. The mark is the truth about an upload: it is written before any answer carries its offset, and
 * whoever reads it sees the newest slot that was written whole.
 */
import type { FileHandle } from 'node:fs/promises'
import type { UploadHead } from '../contracts.ts'
import { errnoOf, type FileSystem } from './file-system.ts'
import {
  decodeHead,
  encodeHead,
  encodeSlot,
  firstReadBytes,
  headPosition,
  newestSlot,
  type Slot,
  slotPosition,
} from './mark-codec.ts'

export interface MarkContent {
  readonly head: UploadHead
  readonly slot: Slot
}

export class MarkFile {
  readonly #handle: FileHandle
  readonly path: string

  private constructor(handle: FileHandle, file: string) {
    this.#handle = handle
    this.path = file
  }

  /** Makes a mark file that is not there yet. Without a slot it only claims its name: readers pass it over. */
  static async create(
    fileSystem: FileSystem,
    file: string,
    head: UploadHead,
    slot: Slot | undefined,
  ): Promise<MarkFile> {
    const handle = await fileSystem.open(file, 'wx+')
    const mark = new MarkFile(handle, file)
    try {
      const content = Buffer.concat([Buffer.alloc(headPosition), encodeHead(head)])
      if (slot) encodeSlot(slot).copy(content, slotPosition(slot.sequence))
      await writeWhole(handle, content, 0)
      return mark
    } catch (error) {
      await handle.close()
      await fileSystem.unlink(file).catch(() => undefined)
      throw error
    }
  }

  /** Opens a mark for writing, or undefined when there is none. */
  static async open(fileSystem: FileSystem, file: string): Promise<MarkFile | undefined> {
    const handle = await openIfThere(fileSystem, file, 'r+')
    return handle && new MarkFile(handle, file)
  }

  /** Reads a mark without holding it: undefined when there is no file, `incomplete` when it never got a valid slot. */
  static async read(fileSystem: FileSystem, file: string): Promise<MarkContent | 'incomplete' | undefined> {
    const handle = await openIfThere(fileSystem, file, 'r')
    if (handle === undefined) return undefined
    try {
      return (await new MarkFile(handle, file).content()) ?? 'incomplete'
    } finally {
      await handle.close()
    }
  }

  async content(): Promise<MarkContent | undefined> {
    let bytes = await readFully(this.#handle, firstReadBytes)
    const slot = newestSlot(bytes)
    if (slot === undefined) return undefined
    let head = decodeHead(bytes.subarray(headPosition))
    if (typeof head === 'number') {
      bytes = await readFully(this.#handle, headPosition + head)
      head = decodeHead(bytes.subarray(headPosition))
    }
    return typeof head === 'object' ? { head, slot } : undefined
  }

  /** Overwrites the older slot in place. */
  async write(slot: Slot): Promise<void> {
    await writeWhole(this.#handle, encodeSlot(slot), slotPosition(slot.sequence))
  }

  async sync(): Promise<void> {
    await this.#handle.datasync()
  }

  /** Whether the file still has a name; it loses it when the upload is removed. */
  async isLinked(): Promise<boolean> {
    return (await this.#handle.stat()).nlink > 0
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }
}

async function openIfThere(
  fileSystem: FileSystem,
  file: string,
  flags: string,
): Promise<FileHandle | undefined> {
  try {
    return await fileSystem.open(file, flags)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ENAMETOOLONG') return undefined
    throw error
  }
}

async function readFully(handle: FileHandle, wanted: number): Promise<Buffer> {
  const bytes = Buffer.alloc(wanted)
  let filled = 0
  while (filled < wanted) {
    const { bytesRead } = await handle.read(bytes, filled, wanted - filled, filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return bytes.subarray(0, filled)
}

async function writeWhole(handle: FileHandle, bytes: Buffer, position: number): Promise<void> {
  let written = 0
  while (written < bytes.length) {
    const result = await handle.write(bytes, written, bytes.length - written, position + written)
    written += result.bytesWritten
  }
}
