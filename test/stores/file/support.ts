// File systems that fail at a chosen step, and what is in a folder.

import { readdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { FileBytes, type FileBytesOptions } from '../../../stores/file/file-bytes.ts'
import { type FileSystem, nodeFileSystem, type OpenFile } from '../../../stores/file/file-system.ts'
import { decodeSlot, encodeSlot, slotBytes } from '../../../stores/file/mark-codec.ts'
import { temporaryFolder } from '../../support/folder.ts'

export interface Operation {
  /** `open`, `unlink`, ...; of a file handle: `handle.write`, `handle.datasync`, ... */
  readonly name: string
  readonly file: string
  /** How many came before it. */
  readonly count: number
}

/** Throws to make the operation fail, and may say how many bytes of a write get through. */
export type Fault = (operation: Operation) => { readonly atMostBytes: number } | undefined

const pathMethods = [
  ...['copyFile', 'mkdir', 'opendir', 'stat', 'statfs', 'unlink'],
  ...['readdir', 'readFile', 'readlink', 'rename', 'rmdir', 'symlink', 'link'],
] as (keyof FileSystem)[]
const handleMethods = ['write', 'writev', 'datasync', 'sync', 'truncate', 'stat', 'read', 'close'] as const

/** A real file system whose every operation is first shown to `fault`. */
export function faulty(fault: Fault): FileSystem & { readonly operations: Operation[] } {
  const operations: Operation[] = []
  const step = (name: string, file: string) => {
    const operation = { name, file: path.basename(file), count: operations.length }
    operations.push(operation)
    return fault(operation)
  }
  const wrapped: Record<string, unknown> = { operations }
  for (const name of pathMethods) {
    const real = nodeFileSystem[name] as (...args: unknown[]) => Promise<unknown>
    wrapped[name] = async (...args: unknown[]) => {
      step(name, String(args[0]))
      return real(...args)
    }
  }
  wrapped.open = async (file: string, flags: string | number) => {
    step('open', file)
    return watched(await nodeFileSystem.open(file, flags), (name) => step(`handle.${name}`, file))
  }
  return wrapped as unknown as FileSystem & { operations: Operation[] }
}

function watched(handle: OpenFile, step: (name: string) => ReturnType<Fault>): OpenFile {
  const methods = handle as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>
  for (const name of handleMethods) {
    const real = methods[name]!.bind(handle)
    methods[name] = async (...args: unknown[]) => {
      const limit = step(name)
      if (limit && name === 'writev') return shortWritev(handle, limit.atMostBytes, args)
      return real(...args)
    }
  }
  return handle
}

async function shortWritev(handle: OpenFile, atMostBytes: number, args: unknown[]): Promise<unknown> {
  const [buffers, position] = args as [Uint8Array[], number]
  const short = Buffer.concat(buffers).subarray(0, atMostBytes)
  const real = Object.getPrototypeOf(handle) as OpenFile
  return real.writev.call(handle, [short], position)
}

export function errno(code: string): Error {
  return Object.assign(new Error(`${code}: played`), { code })
}

/** A file system that stops working before step `n`, as for a process that is killed there. */
export function cutOffBefore(n: number): FileSystem & { readonly operations: Operation[] } {
  return faulty(({ count, name }) => {
    // A process that is gone has closed its files.
    if (count >= n && name !== 'handle.close') throw errno('EIO')
    return undefined
  })
}

/** Every file in a folder, by its path there. */
export async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
    .sort()
}

/** A store in a folder of its own. */
export async function start() {
  const folder = await temporaryFolder()
  return { folder, store: await storeIn(folder) }
}

export async function storeIn(
  directory: string,
  options: Partial<FileBytesOptions> = {},
): Promise<FileBytes> {
  const store = new FileBytes({ directory, ...options })
  await store.start()
  return store
}

/** Makes the slots of a mark those of a writer in another boot. */
export async function forge(folder: string, id: string, change: object): Promise<void> {
  const file = path.join(folder, `.${id}.0.mark`)
  const content = await readFile(file)
  for (const at of [0, slotBytes]) {
    const slot = decodeSlot(content.subarray(at, at + slotBytes))
    if (slot === undefined) continue
    const writer = slot.writer.replace(/^[^/]+/, '00000000-0000-4000-8000-000000000000')
    encodeSlot({ ...slot, ...change, writer }).copy(content, at)
  }
  await writeFile(file, content)
}
