/** Where servers keep what they are sent: in memory, so that a disk is not what is measured, and nothing of it stays. */
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'

const tmpfsType = 0x01021994

/** A folder in memory with room for `bytes`, or why there is none. */
export function memoryFolder(bytes: number): { path: string } | { reason: string } {
  const path = '/dev/shm'
  try {
    const { type, bavail, bsize } = statfsSync(path)
    if (type !== tmpfsType) return { reason: `${path} is no tmpfs` }
    const free = bavail * bsize
    return free < bytes
      ? {
          reason: `${path} has ${Math.floor(free / 2 ** 20)} MiB free, and ${Math.ceil(bytes / 2 ** 20)} are needed`,
        }
      : { path }
  } catch {
    return { reason: `${path} is not there` }
  }
}

/** Folders of this run; each is emptied by being removed and made anew. */
export class Folders {
  readonly #made = new Set<string>()
  readonly #parents = new Set<string>()

  make(parent: string): string {
    const created = mkdirSync(parent, { recursive: true })
    if (created !== undefined) this.#parents.add(parent)
    const path = mkdtempSync(join(parent, 'tidemark-bench-'))
    this.#made.add(path)
    return path
  }

  remove(path: string): void {
    // Whoever is being killed may still write for a moment.
    rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
    this.#made.delete(path)
  }

  removeAll(): void {
    for (const path of this.#made) this.remove(path)
    for (const path of this.#parents) rmSync(path, { recursive: true, force: true })
  }
}
