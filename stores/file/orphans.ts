/**
 * What creations, removals and take-overs that were cut off leave in the folder, and how it is found. Only files that
 * Tidemark made itself are ever touched: they are told by their hidden names, or by an id of our own making.
 */
import path from 'node:path'
import { FileLayout, ownId } from './file-layout.ts'
import { errnoOf, type FileSystem } from './file-system.ts'
import { MarkFile } from './mark-file.ts'

interface FoundFile {
  readonly id: string
  readonly generation: number
  readonly kind: 'mark' | 'data'
  readonly file: string
}

export async function* walkMarks(fileSystem: FileSystem, directory: string): AsyncIterable<FoundFile> {
  for await (const found of walkFiles(fileSystem, directory, '')) if (found.kind === 'mark') yield found
}

/**
 * What is left over: single files, and whole uploads whose removal was cut off (those lose their marks in order, from
 * generation 0 up, or an older generation would seem alive again).
 */
export type Orphan =
  | { readonly is: 'file'; readonly file: string }
  | { readonly is: 'upload'; readonly id: string; readonly highest: number }

export async function* findOrphans(
  fileSystem: FileSystem,
  layout: FileLayout,
  olderThanMs: number,
): AsyncIterable<Orphan> {
  for await (const found of walkFiles(fileSystem, layout.directory, '')) {
    const stat = await fileSystem.stat(found.file).catch(() => undefined)
    if (stat === undefined || Date.now() - stat.mtimeMs <= olderThanMs) continue
    const orphan = await judge(fileSystem, layout, found, stat.size)
    if (orphan) yield orphan
  }
}

async function judge(
  fileSystem: FileSystem,
  layout: FileLayout,
  found: FoundFile,
  size: number,
): Promise<Orphan | undefined> {
  const file = { is: 'file' as const, file: found.file }
  const isUnderOwnName = found.kind === 'data' && found.generation === 0
  const anchor = await MarkFile.read(fileSystem, layout.mark(found.id, 0))
  // Bytes come only after a mark: a file with content and without one is somebody else's, or needs a person to look at.
  if (anchor === undefined) return isUnderOwnName && size > 0 ? undefined : file
  if (anchor === 'incomplete') {
    const isAnchor = found.kind === 'mark' && found.generation === 0
    const data = await fileSystem.stat(layout.data(found.id, 0)).catch(() => ({ size: 0 }))
    return isAnchor && data.size === 0 ? file : undefined
  }
  const newest = await newestMark(fileSystem, layout, found.id)
  if (newest?.state === 'terminated') return { is: 'upload', id: found.id, highest: newest.highest }
  return newest && found.kind === 'data' && found.generation < newest.generation ? file : undefined
}

async function newestMark(
  fileSystem: FileSystem,
  layout: FileLayout,
  id: string,
): Promise<{ state: string; generation: number; highest: number } | undefined> {
  let newest: { state: string; generation: number } | undefined
  for (let generation = 0; ; generation++) {
    const found = await MarkFile.read(fileSystem, layout.mark(id, generation))
    if (found === undefined) return newest && { ...newest, highest: generation - 1 }
    if (found !== 'incomplete') newest = { state: found.slot.state, generation }
  }
}

async function* walkFiles(
  fileSystem: FileSystem,
  directory: string,
  folder: string,
): AsyncIterable<FoundFile> {
  const entries = await fileSystem.opendir(path.join(directory, folder)).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  })
  if (entries === undefined) return
  for await (const entry of entries) {
    const file = path.join(directory, folder, entry.name)
    if (entry.isDirectory()) {
      if (!entry.name.startsWith('.'))
        yield* walkFiles(fileSystem, directory, folder ? `${folder}/${entry.name}` : entry.name)
      continue
    }
    const own = FileLayout.parse(folder, entry.name)
    if (own) yield { ...own, file }
    else if (folder === '' && ownId.test(entry.name))
      yield { id: entry.name, generation: 0, kind: 'data', file }
  }
}
