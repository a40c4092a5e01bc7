/**
 * How a successor gets files of its own from a writer that may still be alive: by claiming the next generation, which
 * supersedes that writer, and by copying what it was acknowledged for.
 */
import { constants } from 'node:fs'
import { StoreError } from '../contracts.ts'
import { type Durability, type OpenUpload, rewind } from './file-appender.ts'
import { type FileLayout, ownId } from './file-layout.ts'
import {
  asStoreError,
  errnoOf,
  type FileSystem,
  type OpenFile,
  removeFile,
  syncFile,
  syncNames,
  tryToRemove,
} from './file-system.ts'
import { type Current, readMarks } from './mark-chain.ts'
import { MarkFile } from './mark-file.ts'
import { withdraw } from './published.ts'
import { failUnless } from './removal.ts'
import { afterReboot, nextSlot } from './writer.ts'

export interface Claim {
  readonly mark: MarkFile
  readonly generation: number
}

/** Claims of one store. One that nothing came of is used again, else every failed take-over would leave one more. */
export class Claims {
  readonly #fileSystem: FileSystem
  readonly #layout: FileLayout
  readonly #spare = new Map<string, number>()

  constructor(fileSystem: FileSystem, layout: FileLayout) {
    this.#fileSystem = fileSystem
    this.#layout = layout
  }

  /** Claims a generation above all others. From then on every earlier writer is superseded. */
  async take(id: string, highest: number): Promise<Claim> {
    const spare = this.#spare.get(id)
    this.#spare.delete(id)
    try {
      if (spare === highest) {
        const mark = await MarkFile.open(this.#fileSystem, this.#layout.mark(id, spare), 'r+')
        if (mark) return { mark, generation: spare }
      }
      return await this.#next(id, highest + 1)
    } catch (error) {
      throw asStoreError(error, 'take an upload over')
    }
  }

  giveBack(id: string, generation: number): void {
    // Another id may be used again, and the same claim then be somebody else's.
    if (ownId.test(id)) this.#spare.set(id, generation)
  }

  forget(id: string): void {
    this.#spare.delete(id)
  }

  async #next(id: string, from: number): Promise<Claim> {
    for (let generation = from; ; generation++) {
      try {
        const mark = await MarkFile.create(this.#fileSystem, this.#layout.mark(id, generation))
        return { mark, generation }
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw error
      }
    }
  }
}

export interface TakeOverParts {
  readonly fileSystem: FileSystem
  readonly layout: FileLayout
  readonly claims: Claims
  /** Who takes over. */
  readonly writer: string
  readonly durability: Durability
  readonly isOnNetwork: boolean
}

/**
 * Makes the next generation of an upload whose last writer may be alive. The claim comes first, the mark is read after it;
 * the other side writes its mark first and looks for claims after it. So either its mark is seen here, or it sees the
 * claim. Undefined when there is nothing to go on with.
 */
export async function takeOver(
  { fileSystem, layout, claims, writer, durability, isOnNetwork }: TakeOverParts,
  id: string,
  seen: Current,
  isHeld: () => boolean,
): Promise<OpenUpload | undefined> {
  const { mark, generation } = await claims.take(id, seen.highest)
  const target = layout.data(id, generation)
  let data: OpenFile | undefined
  let isPublished = false
  try {
    await mark.fill(seen.head, undefined)
    const current = await copyKept(fileSystem, layout, id, generation)
    if (current === undefined) {
      await mark.close()
      return undefined
    }
    const { slot: before, head } = current
    const kept = afterReboot(before, isOnNetwork)
    data = await fileSystem.open(target, 'r+').catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error
      throw new StoreError('superseded', 'another writer has taken this upload over, or removed it')
    })
    const { size } = await data.stat()
    const offset = Math.min(kept.offset, size)
    if (size > offset) await data.truncate(offset)
    const isSynced = durability === 'checkpoint' || (durability !== 'none' && kept.syncedOffset > 0)
    if (durability !== 'none') await syncCopy(fileSystem, layout, id, isSynced ? [data, mark] : [])
    const changed = { ...kept, generation, offset, syncedOffset: isSynced ? offset : 0 }
    const slot = nextSlot(writer, changed, kept.length)
    failUnless(isHeld)
    isPublished = true
    await mark.write(slot)
    if (isSynced) await mark.sync()
    if (!(await mark.isLinked())) {
      await tryToRemove(fileSystem, target)
      throw new StoreError('superseded', 'the upload was removed meanwhile')
    }
    // What cannot be removed now the sweep will find; the take-over stands.
    for (let old = 0; old < generation; old++) {
      await withdraw(layout, head, old).catch(() => undefined)
      await tryToRemove(fileSystem, layout.data(id, old))
    }
    return { head, slot, mark, data, rewound: rewind(before.offset, offset) }
  } catch (error) {
    await Promise.allSettled([mark.close(), data?.close()])
    // Once the mark may be there its bytes must be.
    if (!isPublished) {
      await tryToRemove(fileSystem, target)
      claims.giveBack(id, generation)
    }
    throw asStoreError(error, 'take an upload over')
  }
}

/**
 * Copies what counts into the file of a claimed generation, again when the mark moved meanwhile: the other writer can
 * move it once more, and may even finish. Undefined when there is nothing to go on with.
 */
async function copyKept(
  fileSystem: FileSystem,
  layout: FileLayout,
  id: string,
  generation: number,
): Promise<Current | undefined> {
  const target = layout.data(id, generation)
  for (;;) {
    const current = await readMarks(fileSystem, layout, id)
    if (current === undefined) await tryToRemove(fileSystem, layout.mark(id, generation))
    if (current?.slot.state !== 'open') return undefined
    if (current.highest > generation)
      throw new StoreError('superseded', 'another writer has claimed this upload')
    await copy(fileSystem, layout.data(id, current.generation), target)
    const after = await readMarks(fileSystem, layout, id)
    if (after?.generation === current.generation && after.slot.sequence === current.slot.sequence)
      return after
    await removeFile(fileSystem, target)
  }
}

async function copy(fileSystem: FileSystem, source: string, target: string): Promise<void> {
  const { COPYFILE_EXCL, COPYFILE_FICLONE } = constants
  try {
    await fileSystem.copyFile(source, target, COPYFILE_EXCL | COPYFILE_FICLONE)
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') {
      // Left by a take-over whose claim was lost with the power: who has the claim owns this name.
      await removeFile(fileSystem, target)
      return copy(fileSystem, source, target)
    }
    if (errnoOf(error) !== 'ENOENT') throw error
    // The disk has lost the bytes: the upload begins again, and its mark says so.
    await removeFile(fileSystem, target)
    await (await fileSystem.open(target, 'wx')).close()
  }
}

/**
 * Bytes that were synced once stay so when they are copied: `files` are the copy and its mark. Names are synced in any case: a
 * loss that left this generation and took an earlier one would hide it, until a later take-over closes the gap and shows it
 * again.
 */
async function syncCopy(
  fileSystem: FileSystem,
  layout: FileLayout,
  id: string,
  files: readonly [data: OpenFile, mark: MarkFile] | readonly [],
): Promise<void> {
  const [data, mark] = files
  // Without the mark of generation 0 none of the others counts.
  if (data && mark)
    await Promise.all([data.datasync(), mark.sync(), syncFile(fileSystem, layout.mark(id, 0))])
  await syncNames(fileSystem, layout.folder(id), layout.directory)
}
