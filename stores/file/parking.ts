/**
 * Keeps the number of open files below the limit of the process: an upload has two, and a crowd of slow ones uses them
 * once in a second or less. Beyond a share of the limit those that were opened first are closed, and opened again when they
 * are used; by their path, and only when it is still the very same file: what was replaced or removed stays out of reach, as
 * it was for an open one.
 */
import fs from 'node:fs'

/** Of the limit, for files of uploads; connections need the larger part. */
const share = 0.25
/** What is usual where nobody says it. */
const usualLimit = 1024

export interface Parkable {
  /** Closes the file until it is used again. False while that can not be. */
  park(): boolean
}

/** Names a file beyond its path: numbers are given anew, with another time of birth. */
export interface Whereabouts {
  readonly device: bigint
  readonly inode: bigint
  readonly bornAt: bigint
}

export class Parking {
  readonly #limit: number
  /** Oldest first. */
  readonly #open = new Set<Parkable>()

  constructor(limit = Math.floor(limitOfOpenFiles() * share)) {
    this.#limit = limit
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size
  }

  /** A file was opened, perhaps again. */
  add(file: Parkable): void {
    this.#open.add(file)
    if (this.#open.size > this.#limit) this.#makeRoom(file)
  }

  remove(file: Parkable): void {
    this.#open.delete(file)
  }

  #makeRoom(last: Parkable): void {
    let tries = 8
    for (const file of this.#open) {
      if (file === last || --tries < 0) return
      this.#open.delete(file)
      if (file.park()) return
      this.#open.add(file)
    }
  }
}

export function whereaboutsOf(fd: number): Whereabouts {
  const { dev, ino, birthtimeNs } = fs.fstatSync(fd, { bigint: true })
  return { device: dev, inode: ino, bornAt: birthtimeNs }
}

/** Opens a file that was parked. Fails with ESTALE when another one, or none, has its path. */
export function reopen(file: string, wanted: Whereabouts): number {
  let fd: number
  try {
    fd = fs.openSync(file, fs.constants.O_RDWR)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    throw stale()
  }
  const { device, inode, bornAt } = whereaboutsOf(fd)
  if (device === wanted.device && inode === wanted.inode && bornAt === wanted.bornAt) return fd
  fs.closeSync(fd)
  throw stale()
}

function stale(): Error {
  return Object.assign(new Error('ESTALE: the file was removed or replaced'), { code: 'ESTALE' })
}

let limit: number | undefined

/** Node raises the soft limit to the hard one when it starts. */
function limitOfOpenFiles(): number {
  limit ??= readLimit()
  return limit
}

function readLimit(): number {
  try {
    const line = /^Max open files\s+(\d+|unlimited)/m.exec(fs.readFileSync('/proc/self/limits', 'utf8'))
    const value = Number(line?.[1])
    return value > 0 ? value : Number.POSITIVE_INFINITY
  } catch {
    return usualLimit
  }
}
