/**
 * One LMDB file with its databases, as one process has it open: how it is opened, read and changed, and how that fails.
 * What the databases hold is for others to know.
 */
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Database, type Key, open, type RootDatabase } from 'lmdb'
import { StoreError } from '../contracts.ts'
import { asStoreError, damagedLmdb, examineLmdbFile, ignoreReason, makeLockFile } from './lmdb-file.ts'
import { aloneWithIt, type Turns } from './opening-turns.ts'

/** Where a file is, and who else uses it. */
export interface LmdbPlace {
  /** Made when it is missing. It belongs to one process (see FolderOwner) and those that it lets in, */
  readonly directory: string
  /** which say that the file was looked at before them, as it must not be while somebody writes to it, */
  readonly isExamined?: boolean | undefined
  /** and open it by turns. */
  readonly turns?: Turns | undefined
}

/** Opens one of the databases in the file, or makes it. All hold JSON. */
export type OpenDatabase = <V, K extends Key>(name: string) => Database<V, K>

interface EnvironmentOptions<D> {
  readonly path: string
  readonly place: LmdbPlace
  /** Opens all of them; `D` has one property for each. */
  readonly databases: (open: OpenDatabase) => D
}

interface OpenEnvironment<D> {
  readonly root: RootDatabase
  readonly databases: D
}

const databasesAtMost = 8

export class LmdbEnvironment<D extends object> {
  readonly #options: EnvironmentOptions<D>
  readonly #turns: Turns
  #open: OpenEnvironment<D> | undefined
  /** Changes that are not committed yet. */
  #changing = 0

  constructor(options: EnvironmentOptions<D>) {
    this.#options = options
    this.#turns = options.place.turns ?? aloneWithIt
  }

  /** Whether a thread is about to commit; it waits for the event loop then, and ends no sooner. */
  get isBusy(): boolean {
    return this.#changing > 0
  }

  /** Fails with `damaged` when the file is foreign or cut short. */
  async start(): Promise<void> {
    if (this.#open !== undefined) return
    const { path, place } = this.#options
    mkdirSync(dirname(path), { recursive: true })
    const state = place.isExamined ? 'sound' : examineLmdbFile(path)
    if (!place.isExamined) makeLockFile(`${path}-lock`)
    const opened = await this.#turns.opening(() => this.#openAll())
    try {
      if (state === 'filled') readAll(opened.databases)
    } catch (error) {
      await opened.root.close()
      throw damagedLmdb(path, 'it was cut short', error)
    }
    this.#open = opened
  }

  async close(): Promise<void> {
    const opened = this.#open
    this.#open = undefined
    this.#changing++
    try {
      await this.#turns.changing(async () => opened?.root.close())
    } finally {
      this.#changing--
    }
  }

  read<T>(read: (databases: D) => T): T {
    const { databases } = this.#require()
    try {
      return read(databases)
    } catch (error) {
      throw asStoreError(error, this.#options.path)
    }
  }

  /** All changes of `change` are committed as one, together with those of others who ask at the same time. */
  async change<T>(change: (databases: D) => T): Promise<T> {
    this.#require()
    this.#changing++
    try {
      return await this.#turns.changing(() => {
        const { root, databases } = this.#require()
        return root.transaction(() => change(databases))
      })
    } catch (error) {
      ignoreReason(error)
      throw error instanceof StoreError ? error : asStoreError(error, this.#options.path)
    } finally {
      this.#changing--
    }
  }

  /** Fails with `unavailable` when it is not open. */
  require(): void {
    this.#require()
  }

  #openAll(): OpenEnvironment<D> {
    const { path, databases } = this.#options
    try {
      // In its batches of a turn LMDB makes a promise that nobody gets: when a commit fails, on a full disk, its rejection
      // would end the process. Without them commits are grouped all the same.
      const options = { encoding: 'json', maxDbs: databasesAtMost, eventTurnBatching: false } as const
      const root = open({ path, noSubdir: true, ...options })
      return { root, databases: databases((name) => root.openDB({ name, encoding: 'json' })) }
    } catch (error) {
      throw asStoreError(error, path)
    }
  }

  #require(): OpenEnvironment<D> {
    if (this.#open === undefined) throw new StoreError('unavailable', 'The record database is not open.')
    return this.#open
  }
}

function readAll(databases: object): void {
  for (const database of Object.values(databases) as Database[]) for (const _ of database.getRange());
}
