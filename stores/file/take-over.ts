/**
 * How a successor gets files of its own from a writer that may still be alive: by claiming the next generation, which
 * supersedes that writer, and by copying what it was acknowledged for.
 */
import { constants } from 'node:fs'
import { StoreError } from '../contracts.ts'
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

/**
 * Copies what counts into the file of a claimed generation, again when the mark moved meanwhile: the other writer can
 * move it once more, and may even finish. Undefined when there is nothing to go on with.
 */
export async function copyKept(
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
export async function syncCopy(
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
