/**
 * How uploads in a folder become one. Ties are links in a folder beside the part: making one is exclusive and complete
 * at once, listing them reads that small folder, and putting a file in the folder's place lets nobody tie any more.
 */
import path from 'node:path'
import { type Appender, type Concatenation, StoreError, type UploadRecord } from '../contracts.ts'
import { FileAppender } from './file-appender.ts'
import type { FileLayout } from './file-layout.ts'
import { asStoreError, errnoOf, type FileSystem, removeFile } from './file-system.ts'

/** What one assembly holds in memory. */
const bufferBytes = 1024 * 1024
/** An assembly that is cut off does again at most so much. */
const checkpointBytes = 64 * 1024 * 1024

export class FileConcatenation implements Concatenation {
  readonly #fileSystem: FileSystem
  readonly #layout: FileLayout

  constructor(fileSystem: FileSystem, layout: FileLayout) {
    this.#fileSystem = fileSystem
    this.#layout = layout
  }

  async tie(part: string, key: string, final: string): Promise<'tied' | 'sealed' | { takenBy: string }> {
    const link = this.#link(part, key)
    try {
      for (;;) {
        if (!(await this.#makeFolder(part))) return 'sealed'
        const errno = await errnoFrom(this.#fileSystem.symlink(final, link))
        if (errno === undefined) return 'tied'
        if (errno === 'ENOTDIR') return 'sealed'
        const takenBy = errno === 'EEXIST' ? await this.tiedTo(part, key) : undefined
        if (takenBy === final) return 'tied'
        if (takenBy !== undefined) return { takenBy }
        // The folder, or the tie in it, was taken away between two steps: once more.
      }
    } catch (error) {
      throw asStoreError(error, 'tie a final to a part')
    }
  }

  async tiedTo(part: string, key: string): Promise<string | undefined> {
    try {
      return await this.#fileSystem.readlink(this.#link(part, key))
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw asStoreError(error, 'read the tie of a part')
    }
  }

  async untie(part: string, key: string, final: string): Promise<void> {
    if ((await this.tiedTo(part, key)) !== final) return
    try {
      await removeFile(this.#fileSystem, this.#link(part, key))
      await errnoFrom(this.#fileSystem.rmdir(this.#layout.ties(part)))
    } catch (error) {
      throw asStoreError(error, 'untie a part')
    }
  }

  async finalsOf(part: string): Promise<string[]> {
    const finals = await Promise.all((await this.#keysOf(part)).map((key) => this.tiedTo(part, key)))
    return [...new Set(finals.filter((final) => final !== undefined))]
  }

  async seal(part: string, isNeeded: (final: string) => Promise<boolean>): Promise<boolean> {
    const folder = this.#layout.ties(part)
    try {
      for (;;) {
        for (const final of await this.finalsOf(part)) if (await isNeeded(final)) return false
        for (const key of await this.#keysOf(part)) {
          // One that was tied meanwhile must be asked about too.
          const final = await this.tiedTo(part, key)
          if (final !== undefined && (await isNeeded(final))) return false
          await removeFile(this.#fileSystem, path.join(folder, key))
        }
        const removed = await errnoFrom(this.#fileSystem.rmdir(folder))
        if (removed === 'ENOTDIR') return true
        if (removed !== undefined && removed !== 'ENOENT') continue
        const made = await this.#fileSystem.open(folder, 'wx').catch((error: unknown) => {
          if (errnoOf(error) === 'EEXIST') return undefined
          throw error
        })
        await made?.close()
        if (made) return true
      }
    } catch (error) {
      throw asStoreError(error, 'seal a part')
    }
  }

  /** Takes away all that is noted about a part that is gone. */
  async forget(part: string): Promise<void> {
    const folder = this.#layout.ties(part)
    try {
      for (const key of await this.#keysOf(part)) await removeFile(this.#fileSystem, path.join(folder, key))
      if ((await errnoFrom(this.#fileSystem.rmdir(folder))) === 'ENOTDIR')
        await removeFile(this.#fileSystem, folder)
    } catch (error) {
      throw asStoreError(error, 'forget the ties of a part')
    }
  }

  async assemble(final: Appender, parts: readonly UploadRecord[], signal: AbortSignal): Promise<void> {
    let begin = 0
    const buffer = Buffer.allocUnsafeSlow(bufferBytes)
    for (const part of parts) {
      const end = begin + part.mark.offset
      const isFirst = begin === 0 && final.record.mark.offset === 0
      // Only the first one can be had without copying: Node knows no cloning of a range.
      const isCloned = isFirst && end > 0 && (await this.#clone(final, part))
      if (!isCloned && end > final.record.mark.offset) await this.#copy(final, part, begin, buffer, signal)
      begin = end
    }
  }

  async #clone(final: Appender, { head, mark }: UploadRecord): Promise<boolean> {
    return (
      final instanceof FileAppender && (await final.cloneFrom(this.#layout.data(head.id, mark.generation)))
    )
  }

  /** Copies what is missing of a part, whose first byte is byte `begin` of the final. */
  async #copy(
    final: Appender,
    { head, mark }: UploadRecord,
    begin: number,
    buffer: Buffer,
    signal: AbortSignal,
  ): Promise<void> {
    const source = await this.#fileSystem
      .open(this.#layout.data(head.id, mark.generation), 'r')
      .catch((error: unknown) => {
        throw asStoreError(error, 'open a part')
      })
    try {
      let at = Math.max(final.record.mark.offset, begin)
      while (at < begin + mark.offset) {
        signal.throwIfAborted()
        const wanted = Math.min(bufferBytes, begin + mark.offset - at)
        const { bytesRead } = await source.read(buffer, 0, wanted, at - begin)
        if (bytesRead === 0) throw new StoreError('damaged', 'a part holds less than its mark says')
        await final.write([buffer.subarray(0, bytesRead)], at)
        at += bytesRead
        const { offset, length } = final.record.mark
        if (at - offset >= checkpointBytes && at !== length) await final.commit({ offset: at })
      }
    } catch (error) {
      if (signal.aborted) throw error
      throw asStoreError(error, 'copy a part')
    } finally {
      await source.close()
    }
  }

  /** False when ties are not taken any more, or there is nothing to tie to. */
  async #makeFolder(part: string): Promise<boolean> {
    const errno = await errnoFrom(this.#fileSystem.mkdir(this.#layout.ties(part)))
    return errno === undefined || errno === 'EEXIST'
  }

  async #keysOf(part: string): Promise<string[]> {
    try {
      return await this.#fileSystem.readdir(this.#layout.ties(part))
    } catch (error) {
      if (isAbsent(error)) return []
      throw asStoreError(error, 'read the ties of a part')
    }
  }

  #link(part: string, key: string): string {
    return path.join(this.#layout.ties(part), key)
  }
}

/** The system's word for why it did not work, where callers go on from there; other failures are thrown. */
async function errnoFrom(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    const errno = errnoOf(error)
    if (errno !== undefined && expected.has(errno)) return errno
    throw error
  }
}
const expected = new Set(['EEXIST', 'ENOENT', 'ENOTDIR', 'ENOTEMPTY'])

function isAbsent(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR'
}
