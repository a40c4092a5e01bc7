/**
 * Copies of marks for which nobody waits: of each upload the newest, all of them written together some milliseconds later.
 * A commit costs more than what is in it, and most copies are replaced by the next request.
 */
import type { UploadRecord } from '../contracts.ts'

/** A copy of a mark; `expiresAt` in milliseconds since the epoch. */
export interface Copy {
  readonly record: UploadRecord
  readonly expiresAt?: number | undefined
}

/** As long as a copy may be older than its mark. */
const collectMs = 20

export class Soon {
  readonly #write: (copies: Iterable<Copy>) => Promise<void>
  #waiting = new Map<string, Copy>()
  /** What is being written; what is dropped meanwhile may be written, or not. */
  #underWay = new Map<string, Copy>()
  /** Settles when what waits was written. */
  #batch: Promise<void> | undefined
  #batchUnderWay: Promise<void> | undefined
  #begin: (() => void) | undefined

  /** `write` is called one at a time, and takes the copies when it is about to write them. */
  constructor(write: (copies: Iterable<Copy>) => Promise<void>) {
    this.#write = write
  }

  /** Settles as the writing does. */
  add(copy: Copy): Promise<void> {
    this.#waiting.set(copy.record.head.id, copy)
    this.#batch ??= this.#collect(this.#batchUnderWay)
    return this.#batch
  }

  /** What was added of an upload and is not known to be written. */
  get(id: string): UploadRecord | undefined {
    return (this.#waiting.get(id) ?? this.#underWay.get(id))?.record
  }

  drop(id: string): void {
    this.#waiting.delete(id)
    this.#underWay.delete(id)
  }

  /** Writes what waits without waiting for more. Never fails: who added something is told. */
  async flush(): Promise<void> {
    this.#begin?.()
    await Promise.allSettled([this.#batchUnderWay, this.#batch])
  }

  async #collect(before: Promise<void> | undefined): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, collectMs)
      this.#begin = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    await before?.catch(() => undefined)
    this.#batchUnderWay = this.#batch
    this.#batch = this.#begin = undefined
    this.#underWay = this.#waiting
    this.#waiting = new Map()
    try {
      await this.#write(this.#underWay.values())
    } finally {
      this.#underWay = new Map()
    }
  }
}
