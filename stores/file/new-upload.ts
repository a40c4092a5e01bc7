/**
 * The two files of a new upload: its mark, exclusively, then that for its bytes. The upload exists once its head and first
 * slot were written, in one go; what fails before leaves nothing.
 */
import { StoreError, type UploadHead } from '../contracts.ts'
import { createMark } from './create-mark.ts'
import type { OpenUpload } from './file-appender.ts'
import { type FileLayout, ownId } from './file-layout.ts'
import {
  asStoreError,
  errnoOf,
  type FileSystem,
  type OpenFile,
  syncNames,
  tryToRemove,
} from './file-system.ts'
import type { Slot } from './mark-codec.ts'
import { checkPlace } from './published.ts'

interface Making {
  readonly fileSystem: FileSystem
  readonly layout: FileLayout
  /** Takes away the marks of later generations. */
  readonly removeClaims: (id: string) => Promise<void>
}

/** Leaves both files open for who writes next. */
export async function makeUpload(
  { fileSystem, layout, removeClaims }: Making,
  head: UploadHead,
  slot: Slot,
): Promise<OpenUpload> {
  const { id } = head
  if (head.storagePath !== undefined) await checkPlace(layout, head)
  const mark = await createMark(fileSystem, layout, id)
  let data: OpenFile | undefined
  try {
    data = await fileSystem.open(layout.data(id, 0), 'wx+')
    // A take-over that came too late may have left a claim on an earlier upload with this id.
    if (!ownId.test(id)) await removeClaims(id)
    await mark.fill(head, slot)
    return { head, slot, mark, data }
  } catch (error) {
    await Promise.allSettled([mark.close(), data?.close()])
    // The mark goes last: as long as it is there nobody else can have made the other file.
    const isClean = !data || (await tryToRemove(fileSystem, layout.data(id, 0)))
    if (isClean) await tryToRemove(fileSystem, mark.path)
    if (errnoOf(error) === 'EEXIST' || errnoOf(error) === 'EISDIR')
      throw new StoreError('exists', 'a file with this id exists already')
    throw asStoreError(error, 'create an upload')
  }
}

/**
 * Leaves both files open, whatever `slot` says of who writes to them. What can not be synced stays, for others may have
 * come upon it: it is to be removed under its lock.
 */
export async function makeAtRest(
  making: Making,
  head: UploadHead,
  slot: Slot,
  isSynced: boolean,
): Promise<OpenUpload> {
  const { fileSystem, layout } = making
  const made = await makeUpload(making, head, slot)
  if (!isSynced) return made
  const { mark, data } = made
  try {
    await Promise.all([data.datasync(), mark.sync()])
    await syncNames(fileSystem, layout.folder(head.id), layout.directory)
    return made
  } catch (error) {
    await Promise.allSettled([mark.close(), data.close()])
    throw asStoreError(error, 'sync a new upload')
  }
}
