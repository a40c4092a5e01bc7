/**
 * How an upload ends. Whoever may still write to it is superseded first, as by a take-over, so that a removal which
 * comes too late takes nothing away from who went on meanwhile; then the tombstone, then the bytes, the marks last.
 */
import { type Now, StoreError } from '../contracts.ts'
import type { FileLayout } from './file-layout.ts'
import { asStoreError, type FileSystem, isThere, removeFile } from './file-system.ts'
import type { Current } from './mark-chain.ts'
import type { Slot } from './mark-codec.ts'
import { MarkFile, tombstoneOf } from './mark-file.ts'
import type { Claims } from './take-over.ts'

export interface RemovalParts {
  readonly fileSystem: FileSystem
  readonly layout: FileLayout
  readonly claims: Claims
  readonly writer: string
  /** Whether the tombstone that counts is synced. */
  readonly isSynced: boolean
  /** Whether other machines write to the folder; they see a mark when it was synced. */
  readonly isOnNetwork: boolean
  readonly now: Now
}

export class Removal {
  readonly #fileSystem: FileSystem
  readonly #layout: FileLayout
  readonly #claims: Claims
  readonly #writer: string
  readonly #isSynced: boolean
  readonly #isOnNetwork: boolean
  readonly #now: Now

  constructor({ fileSystem, layout, claims, writer, isSynced, isOnNetwork, now }: RemovalParts) {
    this.#fileSystem = fileSystem
    this.#layout = layout
    this.#claims = claims
    this.#writer = writer
    this.#isSynced = isSynced
    this.#isOnNetwork = isOnNetwork
    this.#now = now
  }

  /**
   * Ends an upload as a take-over would: in a generation of its own, which supersedes every writer, and in which the
   * tombstone counts unless somebody has taken over from this one meanwhile. The generation, when the end is certain.
   */
  async supersede(id: string, { slot, head, highest }: Current, isHeld: () => boolean): Promise<number> {
    const { mark, generation } = await this.#claims.take(id, highest)
    try {
      failUnless(isHeld)
      const tombstone = tombstoneOf({ ...slot, generation, writer: this.#writer, movedAt: this.#now() })
      await mark.fill(head, tombstone).catch(unlessFull)
      if (this.#isOnNetwork) await mark.sync()
      if (await isThere(this.#fileSystem, this.#layout.mark(id, generation + 1)))
        throw new StoreError('superseded', 'another writer has taken this upload over')
      return generation
    } catch (error) {
      throw asStoreError(error, 'remove an upload')
    } finally {
      await mark.close()
    }
  }

  /** The tombstone stands in generation 0, which every reader asks first and which is removed last. */
  async bury(id: string, slot: Slot): Promise<void> {
    try {
      const mark = await MarkFile.open(this.#fileSystem, this.#layout.mark(id, 0), 'r+')
      try {
        await mark?.bury({ ...slot, writer: this.#writer, movedAt: this.#now() })
        if (this.#isSynced) await mark?.sync()
      } finally {
        await mark?.close()
      }
    } catch (error) {
      throw asStoreError(error, 'remove an upload')
    }
  }

  /** Bytes first, then the marks from the highest down to generation 0, whose tombstone covers them all. */
  async removeFiles(id: string, last: number): Promise<void> {
    this.#claims.forget(id)
    try {
      for (let n = last; n >= 0; n--) await removeFile(this.#fileSystem, this.#layout.data(id, n))
      await this.removeMarksAbove(id, last)
      for (let n = last; n >= 0; n--) await removeFile(this.#fileSystem, this.#layout.mark(id, n))
    } catch (error) {
      throw asStoreError(error, 'remove the files of an upload')
    }
  }

  async removeMarksAbove(id: string, last: number): Promise<void> {
    for (let n = last + 1; await removeFile(this.#fileSystem, this.#layout.mark(id, n)); n++);
  }
}

export function failUnless(isHeld: () => boolean): void {
  if (!isHeld()) throw new StoreError('superseded', 'the lock was lost before the first write')
}

/** On a full disk uploads must be removable most of all; then the tombstone of generation 0 has to do. */
function unlessFull(error: unknown): void {
  if (asStoreError(error, 'remove an upload').code !== 'full') throw error
}
