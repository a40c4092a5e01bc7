/**
 * The file operations that the file store uses, and no others. Tests hand in a recording one, to play every loss and
 * reordering that a power failure allows.
 */
import type { Stats } from 'node:fs'
import fs from 'node:fs/promises'
import path from 'node:path'
import type { Readable } from 'node:stream'
import { StoreError } from '../contracts.ts'

export type FileSystem = Pick<
  typeof fs,
  | 'copyFile'
  | 'link'
  | 'mkdir'
  | 'opendir'
  | 'readdir'
  | 'readFile'
  | 'readlink'
  | 'rename'
  | 'rmdir'
  | 'statfs'
  | 'symlink'
  | 'unlink'
> & {
  open(file: string, flags: string | number): Promise<OpenFile>
  stat(file: string): Promise<Stats>
  /** Whether `stat` would find it: without an error to make, and to catch, for what nearly never is there. */
  isThere?(file: string): Promise<boolean>
  /** `unlink` of a file in which nothing is: no bytes have to be given back, so it takes no time. */
  unlinkEmpty?(file: string): Promise<void>
}

/** What is done with an open file. A `FileHandle` is one. */
export interface OpenFile {
  readonly fd: number
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>
  write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesWritten: number }>
  writev(buffers: readonly Uint8Array[], position: number): Promise<{ bytesWritten: number }>
  stat(): Promise<Stats>
  truncate(length: number): Promise<void>
  datasync(): Promise<void>
  sync(): Promise<void>
  close(): Promise<void>
  createReadStream(options: { start: number; end: number; highWaterMark: number }): Readable
}

export const nodeFileSystem: FileSystem = fs

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
}

/** The store's own error for what the system said; `what` completes "could not ...". */
export function asStoreError(error: unknown, what: string): StoreError {
  if (error instanceof StoreError) return error
  const errno = errnoOf(error)
  if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EFBIG')
    return new StoreError('full', `no room left: could not ${what}`, { cause: error })
  if (errno === 'ENAMETOOLONG' || errno === 'ENOTDIR' || errno === 'EISDIR')
    return new StoreError('bad-id', `the id does not fit the file system: could not ${what}`, {
      cause: error,
    })
  // A file that was removed, or replaced, while its writer had it: somebody else has taken over.
  if (errno === 'ESTALE')
    return new StoreError('superseded', `the file is gone: could not ${what}`, { cause: error })
  return new StoreError('io', `could not ${what}`, { cause: error })
}

/** Makes the names of files survive a power loss: their folder's, and those of the folders above it up to `top`. */
export async function syncNames(fileSystem: FileSystem, folder: string, top: string): Promise<void> {
  for (let at = folder; ; at = path.dirname(at)) {
    const handle = await fileSystem.open(at, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
    if (at === top || at === path.dirname(at)) return
  }
}

/** A folder that was just made is gone after a power loss, with all that is in it, when nobody syncs its name. */
export async function syncFolders(fileSystem: FileSystem, last: string, first: string): Promise<void> {
  try {
    await syncNames(fileSystem, path.dirname(last), path.dirname(first))
  } catch (error) {
    // One may be allowed to make folders there, and not to open it.
    if (errnoOf(error) !== 'EACCES') throw error
  }
}

/** Writes all of `bytes`, however little the system takes at a time. */
export async function writeWhole(handle: OpenFile, bytes: Buffer, position: number): Promise<void> {
  let written = 0
  while (written < bytes.length) {
    const result = await handle.write(bytes, written, bytes.length - written, position + written)
    if (result.bytesWritten === 0) throw new StoreError('io', 'the system takes no more bytes')
    written += result.bytesWritten
  }
}

/** Makes what is in a file survive a power loss, whoever wrote it. */
export async function syncFile(fileSystem: FileSystem, file: string): Promise<void> {
  const handle = await fileSystem.open(file, 'r')
  try {
    await handle.datasync()
  } finally {
    await handle.close()
  }
}

export async function isThere(fileSystem: FileSystem, file: string): Promise<boolean> {
  if (fileSystem.isThere) return fileSystem.isThere(file)
  try {
    await fileSystem.stat(file)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}

/** Removes a file; false when it was not there. */
export async function removeFile(fileSystem: FileSystem, file: string): Promise<boolean> {
  try {
    await fileSystem.unlink(file)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}

/** Removes a file that somebody else will find when it cannot be removed now; false when it may still be there. */
export async function tryToRemove(fileSystem: FileSystem, file: string): Promise<boolean> {
  return removeFile(fileSystem, file).then(
    () => true,
    () => false,
  )
}
