/**
 * Where the files of an upload lie. The bytes stand under the upload's own name; what belongs to Tidemark stands
 * beside them under names that begin with a dot, which no id may do, so that no id can ever name another's file.
 *
 *     <id>              bytes of generation 0
 *     .<id>.0.mark      mark of generation 0; it decides whether the upload exists
 *     .<id>.1.data      bytes of generation 1, after a take-over from a writer not known to be gone
 *     .<id>.1.mark
 *     .<id>.0.opening   while somebody is about to go on in generation 0
 *     .<id>.finals/     of a part: one link for every final that was made of it; a file in its place takes no more
 *     .tidemark/outbox/ a file for every event that somebody is still to be told of
 *     .tidemark/names/  a folder for every name, with a link for every upload that was made under it
 *     .tidemark/undelivered/   a file for every event that was given up
 */
import path from 'node:path'
import { StoreError } from '../contracts.ts'

const longestSegment = 200
const longestId = 1024
const markName = /^\.(.+)\.(\d{1,9})\.(mark|data|opening)$/

/** Ids that this server makes by itself: random bits in hex. */
export const ownId = /^[0-9a-f]{32}$/

export type FileKind = 'mark' | 'data' | 'opening'

export class FileLayout {
  readonly directory: string
  /** What stands before an id in the path of its file. */
  readonly #before: string

  constructor(directory: string) {
    this.directory = path.resolve(directory)
    this.#before = path.join(this.directory, '/')
  }

  /** Whether `id` can name an upload here: relative, no segment empty, hidden, too long or with control characters. */
  static isValidId(id: string): boolean {
    if (ownId.test(id)) return true
    if (id.length === 0 || id.length > longestId || !id.isWellFormed()) return false
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused here
    if (/[\u0000-\u001f\u007f\\]/.test(id)) return false
    return id
      .split('/')
      .every(
        (segment) =>
          segment.length > 0 && !segment.startsWith('.') && Buffer.byteLength(segment) <= longestSegment,
      )
  }

  data(id: string, generation: number): string {
    return generation === 0 ? this.#inside(id) : this.#hidden(id, `${generation}.data`)
  }

  mark(id: string, generation: number): string {
    return this.#hidden(id, `${generation}.mark`)
  }

  /** Made by who is about to go on in a generation. */
  opening(id: string, generation: number): string {
    return this.#hidden(id, `${generation}.opening`)
  }

  /** Where the ties of a part lie. */
  ties(id: string): string {
    return this.#hidden(id, 'finals')
  }

  /** Where the notes of what is still to be told lie. */
  get outbox(): string {
    return path.join(this.directory, '.tidemark', 'outbox')
  }

  /** Where the links of all names lie. */
  get names(): string {
    return path.join(this.directory, '.tidemark', 'names')
  }

  /** Where what could not be told lies, until somebody asks for it. */
  get undelivered(): string {
    return path.join(this.directory, '.tidemark', 'undelivered')
  }

  folder(id: string): string {
    return path.dirname(this.#inside(id))
  }

  /** What a directory entry is to an upload's generation; undefined for anything that is not Tidemark's. */
  static parse(folder: string, name: string): { id: string; generation: number; kind: FileKind } | undefined {
    const match = markName.exec(name)
    if (!match) return undefined
    const [, base, generation, kind] = match as unknown as [string, string, string, FileKind]
    const id = folder === '' ? base : `${folder}/${base}`
    return FileLayout.isValidId(id) ? { id, generation: Number(generation), kind } : undefined
  }

  #hidden(id: string, suffix: string): string {
    const file = this.#inside(id)
    const name = file.lastIndexOf('/') + 1
    return `${file.slice(0, name)}.${file.slice(name)}.${suffix}`
  }

  /** Nothing of a valid id has to be normalised. */
  #inside(id: string): string {
    if (!FileLayout.isValidId(id)) throw new StoreError('bad-id', 'this id can not name a file')
    return `${this.#before}${id}`
  }
}
