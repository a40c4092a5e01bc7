// Real files, and a record of all that was done to them: operations as values, in the order in which they returned.
// What was acknowledged meanwhile is noted between them, so that for every moment it is known what must hold.

import { constants } from 'node:fs'
import { type FileHandle, readFile } from 'node:fs/promises'
import path from 'node:path'
import { type FileSystem, nodeFileSystem } from '../../../stores/file/file-system.ts'
import { errno } from '../../stores/file/support.ts'

/** A file, folder or link, whatever its name is by now; the folder that everything is in has number 0. */
export type Inode = number

export type Made = { readonly kind: 'file' | 'folder' } | { readonly kind: 'link'; readonly target: string }

type Write = (bytes: Buffer, offset: number, length: number, position: number) => Promise<object>

export type Operation =
  | { does: 'make'; node: Made; inode: Inode; in: Inode; name: string }
  | { does: 'remove'; in: Inode; name: string }
  | { does: 'write'; inode: Inode; position: number; bytes: Buffer }
  | { does: 'truncate'; inode: Inode; size: number }
  /** Covers what had returned before operation number `began` was recorded, and nothing that came meanwhile. */
  | { does: 'sync'; inode: Inode; began: number }
  /** From now on no sync says anything about what was not synced before. */
  | { does: 'fail to sync'; inode: Inode }

export interface Recorded<Note> {
  /** Undefined when nothing was done but to promise something. */
  readonly operation?: Operation
  /** What had been promised by then, for every upload. */
  readonly notes: ReadonlyMap<string, Note>
}

export class Recording<Note> {
  readonly root: string
  readonly trace: Recorded<Note>[] = []
  readonly fileSystem: FileSystem
  /** While true every sync of a file fails, as that of a broken disk. */
  failsToSync = false
  #notes = new Map<string, Note>()
  #inodes = 0
  readonly #tree = new Map<string, Inode>()
  readonly #open = new Map<number, Inode>()

  constructor(root: string) {
    this.root = root
    this.#tree.set(root, 0)
    this.fileSystem = this.#wrap()
  }

  /** Says what may be relied on from now on. */
  note(id: string, note: Note): void {
    this.#notes = new Map(this.#notes).set(id, note)
    this.trace.push({ notes: this.#notes })
  }

  #record(operation: Operation): void {
    this.trace.push({ operation, notes: this.#notes })
  }

  #wrap(): FileSystem {
    const made = (file: string, node: Made) => {
      const inode = ++this.#inodes
      this.#tree.set(file, inode)
      this.#record({ does: 'make', node, inode, in: this.#parentOf(file), name: path.basename(file) })
      return inode
    }
    const removed = (file: string) => {
      this.#tree.delete(file)
      this.#record({ does: 'remove', in: this.#parentOf(file), name: path.basename(file) })
    }
    const wrapped = {
      ...nodeFileSystem,
      open: async (file: string, flags: string | number) => {
        const handle = await nodeFileSystem.open(file, flags)
        const isKnown = this.#tree.has(file)
        return this.#watch(handle, isKnown ? this.#tree.get(file)! : made(file, { kind: 'file' }))
      },
      mkdir: async (folder: string, options?: { recursive?: boolean }) => {
        const first = await nodeFileSystem.mkdir(folder, options)
        const missing: string[] = []
        for (let at = folder; !this.#tree.has(at); at = path.dirname(at)) missing.unshift(at)
        for (const each of missing) made(each, { kind: 'folder' })
        return first
      },
      rmdir: async (folder: string) => {
        await nodeFileSystem.rmdir(folder)
        removed(folder)
      },
      unlink: async (file: string) => {
        await nodeFileSystem.unlink(file)
        removed(file)
      },
      symlink: async (target: string, file: string) => {
        await nodeFileSystem.symlink(target, file)
        made(file, { kind: 'link', target })
      },
      copyFile: async (from: string, to: string, mode: number) => {
        const descriptor = /^\/proc\/self\/fd\/(\d+)$/.exec(to)?.[1]
        if (descriptor !== undefined) return this.#clone(from, Number(descriptor))
        await nodeFileSystem.copyFile(from, to, mode & constants.COPYFILE_EXCL)
        const inode = made(to, { kind: 'file' })
        this.#record({ does: 'write', inode, position: 0, bytes: await readFile(to) })
      },
    }
    return wrapped as unknown as FileSystem
  }

  /** As a file system does it that can share blocks. */
  async #clone(from: string, descriptor: number): Promise<void> {
    const bytes = await readFile(from)
    const target = await nodeFileSystem.open(`/proc/self/fd/${descriptor}`, 'r+')
    await target.writev([bytes], 0)
    await target.close()
    this.#record({ does: 'write', inode: this.#open.get(descriptor)!, position: 0, bytes })
  }

  #watch(handle: FileHandle, inode: Inode): FileHandle {
    const real = Object.getPrototypeOf(handle) as FileHandle
    const descriptor = handle.fd
    const close = handle.close.bind(handle)
    this.#open.set(descriptor, inode)
    const sync = (name: 'sync' | 'datasync') => async () => {
      const began = this.trace.length
      if (this.failsToSync) {
        this.#record({ does: 'fail to sync', inode })
        throw errno('EIO')
      }
      await real[name].call(handle)
      this.#record({ does: 'sync', inode, began })
    }
    return Object.assign(handle, {
      sync: sync('sync'),
      datasync: sync('datasync'),
      write: async (buffer: Buffer, offset: number, length: number, position: number) => {
        const result = await (real.write as Write).call(handle, buffer, offset, length, position)
        this.#record({
          does: 'write',
          inode,
          position,
          bytes: Buffer.from(buffer.subarray(offset, offset + length)),
        })
        return result
      },
      writev: async (buffers: Uint8Array[], position: number) => {
        const bytes = Buffer.concat(buffers)
        const result = await real.writev.call(handle, buffers, position)
        this.#record({ does: 'write', inode, position, bytes })
        return result
      },
      truncate: async (size: number) => {
        await real.truncate.call(handle, size)
        this.#record({ does: 'truncate', inode, size })
      },
      close: async () => {
        if (this.#open.get(descriptor) === inode) this.#open.delete(descriptor)
        await close()
      },
    })
  }

  #parentOf(file: string): Inode {
    const parent = this.#tree.get(path.dirname(file))
    if (parent === undefined) throw new Error(`nobody made the folder of ${file}`)
    return parent
  }
}
