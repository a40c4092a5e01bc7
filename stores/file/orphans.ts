/**
 * What creations, removals and take-overs that were cut off leave in the folder, and how it is found. Only files that
 * Tidemark made itself are ever touched: they are told by their hidden names and by what is in them.
 */
import path from 'node:path'
import { StoreError } from '../contracts.ts'
import { type FileKind, FileLayout, ownId } from './file-layout.ts'
import { errnoOf, type FileSystem } from './file-system.ts'
import { type Current, readMarks } from './mark-chain.ts'
import { MarkFile } from './mark-file.ts'

interface FoundFile {
  readonly id: string
  readonly generation: number
  readonly kind: FileKind
  readonly file: string
}

export async function* walkMarks(fileSystem: FileSystem, directory: string): AsyncIterable<FoundFile> {
  for await (const found of walkFiles(fileSystem, directory, '')) if (found.kind === 'mark') yield found
}

/** What is left over: single files, and whole uploads whose removal was cut off. */
export type Orphan =
  | { readonly is: 'file'; readonly file: string }
  | ({ readonly is: 'upload'; readonly id: string } & Pick<
      Current,
      'slot' | 'head' | 'generation' | 'highest'
    >)

export async function* findOrphans(
  fileSystem: FileSystem,
  layout: FileLayout,
  olderThanMs: number,
  now: number,
): AsyncIterable<Orphan> {
  // Files are dated by the wall clock. One that was set makes nothing older: what is left over can wait.
  const before = Math.min(now, Date.now()) - olderThanMs
  for await (const found of walkFiles(fileSystem, layout.directory, '')) {
    const stat = await fileSystem.stat(found.file).catch(() => undefined)
    if (stat === undefined || stat.mtimeMs >= before) continue
    const orphans = await judge(fileSystem, layout, found, stat.size, now - olderThanMs).catch(
      (error: unknown) => {
        // A damaged upload is for a person to look at.
        if (error instanceof StoreError && error.code === 'damaged') return []
        throw error
      },
    )
    yield* orphans
  }
}

async function judge(
  fileSystem: FileSystem,
  layout: FileLayout,
  found: FoundFile,
  size: number,
  before: number,
): Promise<Orphan[]> {
  const { id, generation, kind, file } = found
  const self: Orphan = { is: 'file', file }
  const current = await readMarks(fileSystem, layout, id)
  if (kind === 'opening') {
    // While its generation counts, who made it may still be alive, and about to write; it only costs a copy.
    const mayCount = current?.slot.state === 'open' && generation >= current.generation
    return size === 0 && !mayCount ? [self] : []
  }
  if (current === undefined) {
    if (kind === 'data')
      return ownId.test(id) && !(await isThere(fileSystem, layout.mark(id, 0))) ? [self] : []
    if (generation > 0) return (await isOwnMark(fileSystem, found, size)) ? [self] : []
    if (!(await isOwnMark(fileSystem, found, size))) return []
    // Bytes come only after a complete mark: with content it is somebody else's file, or for a person to look at, or
    // the power was lost before the mark was on the disk.
    const data = { is: 'file' as const, file: layout.data(id, 0) }
    const dataSize = await sizeOf(fileSystem, data.file)
    if (dataSize === 0 || (await isOwnData(fileSystem, found, data.file))) return [data, self]
    return dataSize === undefined || size === 0 ? [self] : []
  }
  if (current.slot.state === 'terminated') {
    return current.slot.movedAt < before ? [{ is: 'upload', id, ...current }] : []
  }
  if (generation >= current.generation) return []
  // A take-over that was cut off had no time to remove the bytes that it copied; those of generation 0 have no hidden name.
  if (kind === 'data') return [self]
  const old = layout.data(id, 0)
  return generation === 0 && (await isThere(fileSystem, old)) ? [{ is: 'file', file: old }] : []
}

/** Whether a file with a mark's name is one: never written, or with our own head or slot in it. */
async function isOwnMark(fileSystem: FileSystem, { id, file }: FoundFile, size: number): Promise<boolean> {
  if (size === 0 || ownId.test(id)) return true
  const mark = await MarkFile.open(fileSystem, file, 'r')
  try {
    return (await mark?.isOf(id)) ?? false
  } finally {
    await mark?.close()
  }
}

/** Whether bytes beside a mark that says nothing are ours: under a name that we made, and made after the mark was. */
async function isOwnData(fileSystem: FileSystem, { id, file }: FoundFile, data: string): Promise<boolean> {
  if (!ownId.test(id)) return false
  const [mark, bytes] = await Promise.all(
    [file, data].map((each) => fileSystem.stat(each).catch(() => undefined)),
  )
  return mark !== undefined && bytes !== undefined && bytes.birthtimeMs >= mark.birthtimeMs
}

async function isThere(fileSystem: FileSystem, file: string): Promise<boolean> {
  return (await sizeOf(fileSystem, file)) !== undefined
}

async function sizeOf(fileSystem: FileSystem, file: string): Promise<number | undefined> {
  try {
    return (await fileSystem.stat(file)).size
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
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
  }
}
