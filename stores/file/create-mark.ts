/**
 * How a creation gets its name: by making the mark file, exclusively. Whoever made it owns every other file of that id,
 * until it is filled, or removed as the last thing of a creation that failed.
 */
import { StoreError } from '../contracts.ts'
import type { FileLayout } from './file-layout.ts'
import { asStoreError, errnoOf, type FileSystem } from './file-system.ts'
import { MarkFile } from './mark-file.ts'

/** Makes the empty mark of a new upload, and the folder that its id names. */
export async function createMark(fileSystem: FileSystem, layout: FileLayout, id: string): Promise<MarkFile> {
  const file = layout.mark(id, 0)
  for (let isFirst = true; ; isFirst = false) {
    try {
      return await MarkFile.create(fileSystem, file)
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'EEXIST') throw new StoreError('exists', 'an upload with this id exists already')
      if (errno === 'ENOTDIR') {
        await checkFolder(fileSystem, layout)
        throw new StoreError('exists', 'a part of this id is the name of another upload')
      }
      if (errno !== 'ENOENT' || !isFirst) throw asStoreError(error, 'create the mark of an upload')
    }
    await checkFolder(fileSystem, layout)
    await makeFolder(fileSystem, layout, id)
  }
}

/** A folder that is away, as one whose disk is not mounted, must not look like one without uploads. */
export async function checkFolder(fileSystem: FileSystem, { directory }: FileLayout): Promise<void> {
  const stat = await fileSystem.stat(directory).catch((cause: unknown) => {
    throw new StoreError('unavailable', 'the upload folder is not there', { cause })
  })
  if (!stat.isDirectory()) throw new StoreError('unavailable', 'the upload folder is not a folder')
}

async function makeFolder(fileSystem: FileSystem, layout: FileLayout, id: string): Promise<void> {
  try {
    await fileSystem.mkdir(layout.folder(id), { recursive: true })
  } catch (error) {
    const isTaken = errnoOf(error) === 'EEXIST' || errnoOf(error) === 'ENOTDIR'
    if (isTaken) throw new StoreError('exists', 'a part of this id is the name of another upload')
    throw asStoreError(error, 'make the folder of an upload')
  }
}
