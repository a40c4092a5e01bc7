/**
 * Notes of what is still to be told, a small file for each, where every server that shares the folder finds them.
 * A note is written aside and renamed into its place, so it is there whole or not at all.
 */
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { type Note, type Outbox, StoreError } from '../contracts.ts'
import { decodeIdentity, encodeIdentity, isProvablyDead, ownIdentity } from '../process-identity.ts'
import type { Durability } from './file-appender.ts'
import type { FileLayout } from './file-layout.ts'
import {
  asStoreError,
  errnoOf,
  type FileSystem,
  removeFile,
  syncNames,
  tryToRemove,
  writeWhole,
} from './file-system.ts'

const noteName = /^([0-9a-f]{32})\.json$/

export class FileOutbox implements Outbox {
  readonly teller = encodeIdentity(ownIdentity())
  readonly #fileSystem: FileSystem
  readonly #layout: FileLayout
  readonly #durability: () => Durability
  readonly #folder: string

  constructor(
    fileSystem: FileSystem,
    layout: FileLayout,
    durability: () => Durability,
    folder = layout.outbox,
  ) {
    this.#fileSystem = fileSystem
    this.#layout = layout
    this.#durability = durability
    this.#folder = folder
  }

  /** What was set aside, kept in the same way. */
  get undelivered(): FileOutbox {
    return new FileOutbox(this.#fileSystem, this.#layout, this.#durability, this.#layout.undelivered)
  }

  setAside(note: Note): Promise<void> {
    return this.undelivered.put(note)
  }

  isGone(teller: string): boolean {
    const identity = decodeIdentity(teller)
    return identity !== undefined && isProvablyDead(identity)
  }

  async put(note: Note): Promise<void> {
    const aside = path.join(this.#folder, `.${note.event.id}.${randomBytes(6).toString('hex')}`)
    try {
      await this.#write(aside, JSON.stringify(note))
      await this.#fileSystem.rename(aside, this.#file(note.event.id))
      if (this.#durability() !== 'none')
        await syncNames(this.#fileSystem, this.#folder, this.#layout.directory)
    } catch (error) {
      await tryToRemove(this.#fileSystem, aside)
      throw asStoreError(error, 'note an event')
    }
  }

  async get(eventId: string): Promise<Note | undefined> {
    try {
      return parse(await this.#fileSystem.readFile(this.#file(eventId), 'utf8'), eventId)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw asStoreError(error, 'read a note')
    }
  }

  async remove(eventId: string): Promise<void> {
    try {
      await removeFile(this.#fileSystem, this.#file(eventId))
    } catch (error) {
      throw asStoreError(error, 'remove a note')
    }
  }

  async list(): Promise<string[]> {
    const names = await this.#names()
    return names.flatMap((name) => noteName.exec(name)?.[1] ?? [])
  }

  /** Removes what writers that were cut off left aside more than `olderThanMs` ago. Returns how many. */
  async sweep(olderThanMs: number): Promise<number> {
    let removed = 0
    for (const name of await this.#names()) {
      if (!name.startsWith('.')) continue
      const file = path.join(this.#folder, name)
      const stat = await this.#fileSystem.stat(file).catch(() => undefined)
      if (stat === undefined || Date.now() - stat.mtimeMs <= olderThanMs) continue
      if (await removeFile(this.#fileSystem, file)) removed++
    }
    return removed
  }

  async #write(file: string, text: string): Promise<void> {
    const handle = await this.#open(file)
    try {
      await writeWhole(handle, Buffer.from(text), 0)
      if (this.#durability() !== 'none') await handle.datasync()
    } finally {
      await handle.close()
    }
  }

  /** The folder is made by the first note, and when somebody took it away. */
  async #open(file: string) {
    try {
      return await this.#fileSystem.open(file, 'wx')
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
      // A folder that is not mounted is not made: the notes would be out of sight when it is there again.
      await this.#fileSystem.stat(this.#layout.directory)
      await this.#fileSystem.mkdir(this.#folder, { recursive: true })
      return await this.#fileSystem.open(file, 'wx')
    }
  }

  async #names(): Promise<string[]> {
    try {
      return await this.#fileSystem.readdir(this.#folder)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw asStoreError(error, 'list notes')
    }
  }

  #file(eventId: string): string {
    if (!/^[0-9a-f]{32}$/.test(eventId)) throw new StoreError('bad-id', 'this is not the id of an event')
    return path.join(this.#folder, `${eventId}.json`)
  }
}

/** Undefined for what a loss of power left of a note that was never synced; nothing had become true by it. */
function parse(text: string, eventId: string): Note | undefined {
  try {
    const note = JSON.parse(text) as Note
    return note.event.id === eventId && Array.isArray(note.waiting) ? note : undefined
  } catch {
    return undefined
  }
}
