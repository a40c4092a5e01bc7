/**
 * Which uploads were made under a name: a small folder for each name, with a link for each upload in it. A link is made
 * whole or not at all, so nobody needs a lock, and servers that share the folder find the same.
 */
import { createHash } from 'node:crypto'
import path from 'node:path'
import { type Names, StoreError } from '../contracts.ts'
import type { Durability } from './file-appender.ts'
import type { FileLayout } from './file-layout.ts'
import { asStoreError, errnoOf, type FileSystem, removeFile, syncNames } from './file-system.ts'

const targetPattern = /^(\d{1,16}) (.+)$/s

export class FileNames implements Names {
  readonly isAtRest: Names['isAtRest']
  readonly #fileSystem: FileSystem
  readonly #layout: FileLayout
  readonly #durability: () => Durability

  constructor(
    fileSystem: FileSystem,
    layout: FileLayout,
    { durability, isAtRest }: { durability: () => Durability; isAtRest: Names['isAtRest'] },
  ) {
    this.#fileSystem = fileSystem
    this.#layout = layout
    this.#durability = durability
    this.isAtRest = isAtRest
  }

  async add(name: string, id: string, { lasting, now }: { lasting: boolean; now: number }): Promise<void> {
    const folder = this.#folder(name)
    try {
      await this.#link(`${Math.trunc(now)} ${id}`, path.join(folder, linkOf(id)))
      if (lasting && this.#durability() !== 'none')
        await syncNames(this.#fileSystem, folder, this.#layout.directory)
    } catch (error) {
      throw asStoreError(error, 'note the name of an upload')
    }
  }

  async remove(name: string, id: string): Promise<void> {
    const folder = this.#folder(name)
    try {
      await removeFile(this.#fileSystem, path.join(folder, linkOf(id)))
      // Others may have links in it, or make one just now.
      await this.#fileSystem.rmdir(folder).catch(() => undefined)
    } catch (error) {
      throw asStoreError(error, 'forget the name of an upload')
    }
  }

  async list(name: string): Promise<{ id: string; addedAt: number }[]> {
    const folder = this.#folder(name)
    try {
      const links = await this.#entries(folder)
      const found = await Promise.all(links.map((link) => this.#read(path.join(folder, link))))
      return found.filter((entry) => entry !== undefined)
    } catch (error) {
      throw asStoreError(error, 'look for a name')
    }
  }

  /** Removes links that were made before `before`, of uploads that are not there any more. Returns how many. */
  async sweep(before: number, isThere: (id: string) => Promise<boolean>): Promise<number> {
    const { names } = this.#layout
    let removed = 0
    for (const first of await this.#entries(names)) {
      for (const rest of await this.#entries(path.join(names, first))) {
        const name = `${first}${rest}`
        if (!isName(name)) continue
        for (const { id, addedAt } of await this.list(name)) {
          if (addedAt >= before || (await isThere(id))) continue
          await this.remove(name, id)
          removed++
        }
      }
    }
    return removed
  }

  async #link(target: string, link: string): Promise<void> {
    for (;;) {
      try {
        await this.#fileSystem.symlink(target, link)
        return
      } catch (error) {
        if (errnoOf(error) === 'EEXIST') return
        if (errnoOf(error) !== 'ENOENT') throw error
      }
      // A folder that is not mounted is not made: the names would be out of sight when it is there again.
      await this.#fileSystem.stat(this.#layout.directory)
      // The last link of the name may be taken away before ours is there, and the folder with it: then once more.
      await this.#fileSystem.mkdir(path.dirname(link), { recursive: true })
    }
  }

  async #read(link: string): Promise<{ id: string; addedAt: number } | undefined> {
    try {
      const [, addedAt, id] = targetPattern.exec(await this.#fileSystem.readlink(link)) ?? []
      return id === undefined ? undefined : { id, addedAt: Number(addedAt) }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EINVAL') return undefined
      throw error
    }
  }

  async #entries(folder: string): Promise<string[]> {
    try {
      return await this.#fileSystem.readdir(folder)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return []
      throw error
    }
  }

  /** Two levels, so that no folder has a link for every name that there is. */
  #folder(name: string): string {
    if (!isName(name)) throw new StoreError('bad-id', 'this is not a name as they are kept')
    return path.join(this.#layout.names, name.slice(0, 3), name.slice(3))
  }
}

const isName = (name: string): boolean => /^[0-9a-f]{64}$/.test(name)

/** Ids may have slashes in them, and be longer than a file name. */
function linkOf(id: string): string {
  return createHash('sha256').update(id).digest('hex').slice(0, 32)
}
