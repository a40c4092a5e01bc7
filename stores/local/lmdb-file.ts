/**
 * Looks at an LMDB file before LMDB does: opening one that is foreign or cut short ends the process (SIGSEGV, SIGBUS)
 * where this can still say what is wrong.
 *
 * Both meta pages must be there, and the file as long as they say. A file that is a little shorter may be sound: the
 * last pages of a commit can be free and unwritten. It is filled up, so that touching them cannot kill the process;
 * whether something that counts was lost is for the caller to find out by reading everything.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeFileSync } from 'node:fs'
import { StoreError } from '../contracts.ts'

// lmdb-js 3.5 writes data version 2: a page header of 24 bytes, then the meta.
const MAGIC = 0xbeefc0de
const DATA_VERSION = 2
const AT = { magic: 24, version: 28, pageSize: 48, lastPage: 144, transaction: 152, end: 160 } as const

/** `new`: nothing is there yet; `filled`: it was shorter than it said, read all of it before use. */
export type LmdbFileState = 'new' | 'sound' | 'filled'

export function examineLmdbFile(path: string): LmdbFileState {
  let file: number
  try {
    file = openSync(path, 'r+')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'new'
    throw new StoreError('io', 'The record database cannot be opened.', { cause: error })
  }
  try {
    const { size } = fstatSync(file)
    if (size === 0) return 'new'
    const first = readMeta(file, 0)
    const second = first && readMeta(file, first.pageSize)
    if (first === undefined || second === undefined) throw damagedLmdb(path, 'it is no LMDB database')
    const { lastPage } = first.transaction > second.transaction ? first : second
    const needed = (lastPage + 1) * first.pageSize
    if (size >= needed) return 'sound'
    ftruncateSync(file, needed)
    return 'filled'
  } finally {
    closeSync(file)
  }
}

export function damagedLmdb(path: string, what: string, cause?: unknown): StoreError {
  const advice = 'It is only a copy: remove it, and it is made anew from the uploads.'
  return new StoreError('damaged', `The record database ${path} is damaged: ${what}. ${advice}`, { cause })
}

/** What LMDB needs for its 126 readers, and a little more. */
const lockFileBytes = 12 * 1024

interface Meta {
  readonly pageSize: number
  readonly lastPage: number
  readonly transaction: number
}

function readMeta(file: number, position: number): Meta | undefined {
  const meta = Buffer.alloc(AT.end)
  if (readSync(file, meta, 0, AT.end, position) < AT.end) return undefined
  if (meta.readUInt32LE(AT.magic) !== MAGIC || meta.readUInt32LE(AT.version) !== DATA_VERSION)
    return undefined
  const pageSize = meta.readUInt32LE(AT.pageSize)
  if (pageSize < 256 || pageSize > 65_536) return undefined
  return {
    pageSize,
    lastPage: Number(meta.readBigUInt64LE(AT.lastPage)),
    transaction: Number(meta.readBigUInt64LE(AT.transaction)),
  }
}

/** A change inside a transaction, which tells all of them how it ended; a rejection that nobody heard ends the process. */
export function behind(change: Promise<unknown>): void {
  change.catch(ignoreReason)
}

/** The reason of a commit that failed, as on a full disk, comes as a rejection of its own, which LMDB has logged. */
export function ignoreReason(error: unknown): void {
  const { commitError } = error as { commitError?: Promise<unknown> }
  commitError?.catch(() => undefined)
}

export function asStoreError(error: unknown, path: string): StoreError {
  const message = error instanceof Error ? error.message : String(error)
  if (/MDB_(CORRUPTED|PAGE_NOTFOUND|INVALID|BAD_|PANIC)/.test(message))
    return damagedLmdb(path, message, error)
  const isFull = /ENOSPC|No space left|MDB_MAP_FULL/.test(message)
  return new StoreError(isFull ? 'full' : 'io', `The record database could not be used: ${message}`, {
    cause: error,
  })
}

/**
 * LMDB maps its lock file, and would make it with a hole in it. Whoever touches a hole of a mapped file on a full disk
 * is killed by the system (SIGBUS), so the file is given its blocks as long as there are some.
 */
export function makeLockFile(file: string): void {
  try {
    writeFileSync(file, Buffer.alloc(lockFileBytes), { flag: 'wx' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw asStoreError(error, file)
  }
}
