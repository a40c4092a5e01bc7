/**
 * How a successor goes on in the files of a writer who let go, where nothing tells it from another successor: one that
 * was stopped before its first mark and wakes up after its lease is over.
 *
 * The one idea: whoever wants to go on in a generation makes its **opening** first, exclusively, and then reads the
 * mark again. Who finds the mark changed came too late. Who finds an opening was not the first, and takes the upload
 * over instead, which supersedes the other one whenever it wakes up.
 */
import type { FileLayout } from './file-layout.ts'
import { errnoOf, type FileSystem, isThere, type OpenFile } from './file-system.ts'
import type { MarkFile } from './mark-file.ts'

export class Opening {
  readonly #fileSystem: FileSystem
  readonly #file: string
  #handle: OpenFile | undefined

  private constructor(fileSystem: FileSystem, file: string, handle: OpenFile) {
    this.#fileSystem = fileSystem
    this.#file = file
    this.#handle = handle
  }

  /** Undefined when somebody else is opening this generation, or died while doing so. */
  static async begin(fileSystem: FileSystem, file: string): Promise<Opening | undefined> {
    try {
      return new Opening(fileSystem, file, await fileSystem.open(file, 'wx'))
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return undefined
      throw error
    }
  }

  /** The name is what counts; the open file is not needed. */
  async close(): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    await handle?.close()
  }

  /**
   * Lets others open the generation; call it once the mark names its writer, or never will. Only who made an opening
   * takes it away: another one by the same name could be somebody else's. One that stays costs its successor a copy.
   */
  async end(): Promise<void> {
    await Promise.allSettled([this.close(), this.#remove()])
  }

  #remove(): Promise<void> {
    const fileSystem = this.#fileSystem
    return fileSystem.unlinkEmpty?.(this.#file) ?? fileSystem.unlink(this.#file)
  }
}

/** Whether an upload was taken over from the writer of a generation, or removed. Asked after each write of its mark. */
export async function hasSuccessor(
  fileSystem: FileSystem,
  layout: FileLayout,
  { id, generation, mark }: { id: string; generation: number; mark: MarkFile },
): Promise<boolean> {
  const [isLinked, isClaimed] = await Promise.all([
    mark.isLinked(),
    isThere(fileSystem, layout.mark(id, generation + 1)),
  ])
  return isClaimed || !isLinked
}
