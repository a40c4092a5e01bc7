/**
 * Makes an upload of bytes that are all there. Until it is finished its mark says nothing, so nobody finds it, and nobody
 * has to be kept away: it needs no lock, no slot that says it is open, and no second look.
 */
import { bootClock } from '../clock.ts'
import { StoreError, type UploadHead } from '../contracts.ts'
import { createMark } from './create-mark.ts'
import type { FileLayout } from './file-layout.ts'
import {
  asStoreError,
  errnoOf,
  type FileSystem,
  type OpenFile,
  syncNames,
  tryToRemove,
} from './file-system.ts'
import type { Slot } from './mark-codec.ts'
import type { MarkFile } from './mark-file.ts'

/** A mark that says nothing is swept once it is an hour old: who took so long must not fill it any more. */
const longestMs = 60_000

const boot = bootClock()

export interface WholeUpload {
  readonly fileSystem: FileSystem
  readonly layout: FileLayout
  readonly head: UploadHead
  /** What both slots of the mark shall say. */
  readonly slot: Slot
  readonly body: Uint8Array
  readonly isSynced: boolean
}

/** The order is that of every upload: bytes and head, synced; their names; then the slots that say finished. */
export async function writeWholeUpload(upload: WholeUpload): Promise<void> {
  const { fileSystem, layout, head, slot, body, isSynced } = upload
  const startedAt = boot()
  const mark = await createMark(fileSystem, layout, head.id)
  let data: OpenFile | undefined
  let isPublished = false
  try {
    data = await fileSystem.open(layout.data(head.id, 0), 'wx')
    await writeAll(data, body)
    await mark.fill(head, undefined)
    if (isSynced) {
      await Promise.all([data.datasync(), mark.sync()])
      await syncNames(fileSystem, layout.folder(head.id), layout.directory)
    }
    isPublished = true
    await mark.seal(slot)
    if (isSynced) await mark.sync()
    if (boot() - startedAt > longestMs) throw new StoreError('superseded', 'the upload took too long to make')
  } catch (error) {
    await giveUp(upload, mark, data, isPublished)
    if (errnoOf(error) === 'EEXIST' || errnoOf(error) === 'EISDIR')
      throw new StoreError('exists', 'a file with this id exists already')
    throw asStoreError(error, 'create an upload')
  }
  await closeBoth(mark, data)
}

async function writeAll(data: OpenFile, body: Uint8Array): Promise<void> {
  let written = 0
  while (written < body.length) {
    const { bytesWritten } = await data.write(body, written, body.length - written, written)
    if (bytesWritten === 0) throw new StoreError('io', 'the system takes no more bytes')
    written += bytesWritten
  }
}

/** The mark goes last: as long as it is there nobody else can have made the other file. */
async function giveUp(
  { fileSystem, layout, head, slot }: WholeUpload,
  mark: MarkFile,
  data: OpenFile | undefined,
  isPublished: boolean,
): Promise<void> {
  if (isPublished) await mark.bury(slot).catch(() => undefined)
  await Promise.allSettled([mark.close(), data?.close()])
  const isClean = !data || (await tryToRemove(fileSystem, layout.data(head.id, 0)))
  if (isClean) await tryToRemove(fileSystem, mark.path)
}

/** Nothing that a file is closed for is still to be done; what fails here changes nothing. */
async function closeBoth(mark: MarkFile, data: OpenFile): Promise<void> {
  try {
    await data.close()
    await mark.close()
  } catch {
    await mark.close().catch(() => undefined)
  }
}
