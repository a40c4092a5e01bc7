/**
 * All marks of one upload, one for every generation. Generation 0 decides whether the upload exists; the highest one
 * that was completed says how far it is; one that was only claimed says that a writer is, or was, about to take over.
 *
 * Claims are never taken back: a gap would hide every generation above it.
 */
import type { FileLayout } from './file-layout.ts'
import { asStoreError, type FileSystem, isThere } from './file-system.ts'
import { type MarkContent, MarkFile } from './mark-file.ts'

/** The mark that counts, the file it is in, and the highest generation that anybody has claimed. */
export interface Current extends MarkContent {
  readonly generation: number
  readonly highest: number
}

/**
 * What is known of an upload; undefined when it is not there. The tombstone of generation 0 counts whatever else is
 * there; one of a higher generation, until a generation above it was completed: then its writer was superseded.
 */
export async function readMarks(
  fileSystem: FileSystem,
  layout: FileLayout,
  id: string,
): Promise<Current | undefined> {
  const opened = await openMarks(fileSystem, layout, id, 'r')
  await opened?.mark.close()
  return opened
}

/** The same, with the file of the mark that counts left open. */
export async function openMarks(
  fileSystem: FileSystem,
  layout: FileLayout,
  id: string,
  flags: 'r' | 'r+',
): Promise<(Current & { readonly mark: MarkFile }) | undefined> {
  let live: (MarkContent & { mark: MarkFile; generation: number }) | undefined
  try {
    for (let generation = 0; ; generation++) {
      const file = layout.mark(id, generation)
      // Hardly ever is there a later one; to look costs less than an open that fails.
      const mayBeThere = generation === 0 || (await isThere(fileSystem, file))
      const mark = mayBeThere ? await MarkFile.open(fileSystem, file, flags) : undefined
      if (mark === undefined) return live && { highest: generation - 1, ...live }
      const content = await contentOrClosed(mark)
      // Where a file system folds upper and lower case, the file may be another upload's.
      const isGone = live?.generation === 0 && live.slot.state === 'terminated'
      const counts = content !== 'incomplete' && content.head.id === id && !isGone
      const replaced = counts ? live?.mark : mark
      if (counts) live = { mark, generation, ...content }
      await replaced?.close()
      if (live === undefined) return undefined
    }
  } catch (error) {
    await live?.mark.close()
    throw asStoreError(error, 'read the mark of an upload')
  }
}

async function contentOrClosed(mark: MarkFile): Promise<MarkContent | 'incomplete'> {
  try {
    return await mark.content()
  } catch (error) {
    await mark.close()
    throw error
  }
}
