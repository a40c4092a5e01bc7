/**
 * How a new upload gets the bytes of a finished one without a copy: by a second name for the same file, which goes when
 * its own upload does, and keeps the bytes as long as one of them is there.
 *
 * It happens as a take-over does, in a generation of its own: so no name that anybody writes to ever stands for a file
 * that is shared, and a crash at any point leaves what one in a take-over leaves.
 */
import { type Adoption, type Now, StoreError, type UploadRecord } from '../contracts.ts'
import { recordOf } from './file-appender.ts'
import { asStoreError, syncFile, syncNames, tryToRemove } from './file-system.ts'
import { readMarks } from './mark-chain.ts'
import type { Slot } from './mark-codec.ts'
import type { MarkFile } from './mark-file.ts'
import { failUnless } from './removal.ts'
import type { TakeOverParts } from './take-over.ts'

export interface AdoptionParts extends TakeOverParts {
  readonly now: Now
  /** Keeps who holds the upload from moving its mark any more. */
  readonly supersede: () => void
}

/** Undefined where the file can not have one more name, or is not that of the source any more. */
export async function linkFrom(
  parts: AdoptionParts,
  { head, mark }: UploadRecord,
  source: UploadRecord,
): Promise<Adoption | undefined> {
  const { fileSystem, layout } = parts
  const generation = mark.generation + 1
  const target = layout.data(head.id, generation)
  try {
    await fileSystem.link(layout.data(source.head.id, source.mark.generation), target)
  } catch {
    return undefined
  }
  const discard = async () => void (await tryToRemove(fileSystem, target))
  try {
    if (await isStill(parts, source, target))
      return { discard, finish: (isHeld) => finish(parts, { head, mark }, source, isHeld) }
  } catch {
    // What can not be looked at now can be uploaded.
  }
  await discard()
  return undefined
}

/** Looked at after the link: its name could have become another upload's before. */
async function isStill(
  { fileSystem, layout }: AdoptionParts,
  { head, mark }: UploadRecord,
  target: string,
): Promise<boolean> {
  const { size } = await fileSystem.stat(target)
  const now = await readMarks(fileSystem, layout, head.id)
  return (
    size === mark.length &&
    now?.slot.state === 'finished' &&
    now.head.createdAt === head.createdAt &&
    now.generation === mark.generation &&
    now.slot.sequence === mark.sequence
  )
}

async function finish(
  parts: AdoptionParts,
  { head, mark: before }: UploadRecord,
  source: UploadRecord,
  isHeld: () => boolean,
): Promise<UploadRecord> {
  const { fileSystem, layout, claims } = parts
  const target = layout.data(head.id, before.generation + 1)
  let mark: MarkFile | undefined
  let isPublished = false
  try {
    failUnless(isHeld)
    parts.supersede()
    const claim = await claims.take(head.id, before.generation)
    mark = claim.mark
    if (claim.generation !== before.generation + 1)
      throw new StoreError('superseded', 'another writer has claimed this upload')
    await mark.fill(head, undefined)
    if (parts.durability !== 'none') {
      const first = syncFile(fileSystem, layout.mark(head.id, 0))
      await Promise.all([syncFile(fileSystem, target), mark.sync(), first])
      await syncNames(fileSystem, layout.folder(head.id), layout.directory)
    }
    const slot = finishedSlot(parts, before, source)
    failUnless(isHeld)
    isPublished = true
    await mark.write(slot)
    if (parts.durability !== 'none' || parts.isOnNetwork) await mark.sync()
    if (!(await mark.isLinked())) {
      await tryToRemove(fileSystem, target)
      throw new StoreError('superseded', 'the upload was removed meanwhile')
    }
    await tryToRemove(fileSystem, layout.data(head.id, before.generation))
    return recordOf(layout, head, slot)
  } catch (error) {
    // Once the mark may be there its bytes must be.
    if (!isPublished) await tryToRemove(fileSystem, target)
    throw asStoreError(error, 'give an upload the bytes of another one')
  } finally {
    await mark?.close()
  }
}

function finishedSlot(
  { writer, now }: AdoptionParts,
  { generation, sequence }: UploadRecord['mark'],
  source: UploadRecord,
): Slot {
  const { length, digest } = source.mark
  return {
    state: 'finished',
    offset: length!,
    syncedOffset: length!,
    length: length!,
    generation: generation + 1,
    sequence: sequence + 1,
    movedAt: now(),
    ...(digest && { digest }),
    writer,
    isReleased: true,
  }
}
