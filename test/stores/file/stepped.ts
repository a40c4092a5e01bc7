// File systems of several servers whose every operation waits for its turn: so a server can be stopped before any of
// them, for as long as a test likes, and any order of operations can be played again.

import { type FileSystem, nodeFileSystem, type OpenFile } from '../../../stores/file/file-system.ts'

type Waiting = { by: number; run: () => Promise<void> }

const pathMethods = [
  ...['copyFile', 'mkdir', 'opendir', 'stat', 'statfs', 'unlink'],
  ...['readdir', 'readlink', 'rmdir', 'symlink'],
] as (keyof FileSystem)[]
const handleMethods = ['write', 'writev', 'datasync', 'sync', 'truncate', 'stat', 'read', 'close'] as const

export class Steps {
  readonly #waiting: Waiting[] = []

  /** The file system of server number `by`. */
  fileSystemOf(by: number): FileSystem {
    const turn = <T>(work: () => Promise<T>) => this.#turn(by, work)
    const wrapped: Record<string, unknown> = {}
    for (const name of pathMethods) {
      const real = nodeFileSystem[name] as (...args: unknown[]) => Promise<unknown>
      wrapped[name] = (...args: unknown[]) => turn(() => real(...args))
    }
    wrapped.open = async (file: string, flags: string | number) => {
      const handle = await turn(() => nodeFileSystem.open(file, flags))
      const methods = handle as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>
      for (const name of handleMethods) {
        const real = methods[name]!.bind(handle as OpenFile)
        methods[name] = (...args: unknown[]) => turn(() => real(...args))
      }
      return handle
    }
    return wrapped as unknown as FileSystem
  }

  /** Runs one operation of a server, whose work goes on to its next one. False when it waits for none. */
  async step(by: number): Promise<boolean> {
    await settled()
    const at = this.#waiting.findIndex((waiting) => waiting.by === by)
    if (at < 0) return false
    const [next] = this.#waiting.splice(at, 1)
    await next!.run()
    await settled()
    return true
  }

  /** Lets a server do all that it has begun. */
  async finish<T>(by: number, work: Promise<T>): Promise<T> {
    while (await this.step(by));
    return work
  }

  #turn<T>(by: number, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const run = () => work().then(resolve, reject)
      this.#waiting.push({ by, run })
    })
  }
}

/** Until everybody waits for an operation, or has ended: beside those there are only promises. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
