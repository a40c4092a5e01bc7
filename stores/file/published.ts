/**
 * A second name for the bytes of a finished upload, where its creator wanted them (`storagePath`). It is made exclusively,
 * before the mark says finished, and taken away only while it still is a name of these very bytes: what others put there
 * is theirs. Nothing here decides about an upload.
 */
import type { Stats } from 'node:fs'
import { link, lstat, mkdir, realpath, unlink } from 'node:fs/promises'
import path from 'node:path'
import { StoreError, type UploadHead } from '../contracts.ts'
import { FileLayout } from './file-layout.ts'
import { asStoreError, errnoOf, nodeFileSystem, syncNames } from './file-system.ts'

type Head = Pick<UploadHead, 'id' | 'storagePath'>

/** Fails when the place can not be had: outside the folder, or taken. */
export async function checkPlace(layout: FileLayout, { storagePath }: Head): Promise<void> {
  if (storagePath === undefined) return
  try {
    const target = await placeOf(layout, storagePath)
    if (await statOf(target)) throw taken()
  } catch (error) {
    throw asStoreError(error, 'look at the place of an upload')
  }
}

/** Makes the name, unless it is there already. */
export async function publish(
  layout: FileLayout,
  { id, storagePath }: Head,
  generation: number,
  isSynced: boolean,
): Promise<void> {
  if (storagePath === undefined) return
  const data = layout.data(id, generation)
  try {
    const target = await placeOf(layout, storagePath)
    await link(data, target).catch(async (error: unknown) => {
      if (errnoOf(error) !== 'EEXIST') throw error
      if (!isSame(await statOf(target), await statOf(data))) throw taken()
    })
    if (isSynced) await syncNames(nodeFileSystem, path.dirname(target), layout.directory)
  } catch (error) {
    throw asStoreError(error, 'put an upload in its place')
  }
}

/** Takes the name away where it is one of a generation's bytes; to be called while these are still there. */
export async function withdraw(
  layout: FileLayout,
  { id, storagePath }: Head,
  generation: number,
): Promise<void> {
  if (storagePath === undefined) return
  const target = path.join(layout.directory, storagePath)
  try {
    if (!isSame(await statOf(target), await statOf(layout.data(id, generation)))) return
    await unlink(target)
  } catch (error) {
    throw asStoreError(error, 'take an upload from its place')
  }
}

/** Makes the folders; fails where a link would lead out of the folder of the uploads. */
async function placeOf(layout: FileLayout, storagePath: string): Promise<string> {
  if (!FileLayout.isValidId(storagePath))
    throw new StoreError('io', 'the place of an upload is not inside its folder')
  const target = path.join(layout.directory, storagePath)
  const root = await realpath(layout.directory)
  let folder = layout.directory
  for (const segment of storagePath.split('/').slice(0, -1)) {
    folder = path.join(folder, segment)
    await mkdir(folder).catch((error: unknown) => {
      if (errnoOf(error) !== 'EEXIST') throw error
    })
    if (!(await lstat(folder)).isDirectory())
      throw new StoreError('io', 'a part of the place of an upload is a file or a link')
  }
  if ((await realpath(folder)) !== path.join(root, path.relative(layout.directory, folder)))
    throw new StoreError('io', 'the place of an upload is not inside its folder')
  return target
}

function taken(): StoreError {
  return new StoreError('place-taken', 'another file is where this upload is to be')
}

async function statOf(file: string): Promise<Stats | undefined> {
  return lstat(file).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined
    throw error
  })
}

function isSame(a: Stats | undefined, b: Stats | undefined): boolean {
  return a !== undefined && b !== undefined && a.ino === b.ino && a.dev === b.dev
}
