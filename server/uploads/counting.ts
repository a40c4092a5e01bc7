/**
 * What is counted of uploads, for whoever may know: the bytes that were acknowledged, of one upload, of all parts of a
 * parallel one, of all that somebody owns. Asked of any server, disturbing nobody: no lock is taken.
 */
import type {
  ByteStore,
  ListPlace,
  ListQuery,
  Now,
  RecordStore,
  UploadRecord,
} from '../../stores/contracts.ts'
import { isWaiting, Kin } from './kin.ts'
import { newer } from './progress.ts'
import { type Expiry, isExpired } from './rules.ts'

export interface Count {
  /** The newest copy that is known. */
  readonly record: UploadRecord
  readonly state: 'open' | 'finished' | 'failed'
  /** Bytes that are kept; of a final that waits for its parts, those of all of them. */
  readonly offset: number
  /** Undefined while it is not known. */
  readonly length: number | undefined
  /** When the offset last moved; milliseconds since the epoch. */
  readonly movedAt: number
  /** Of a final: in its order, a repeated one repeated; undefined where one is gone. */
  readonly parts?: readonly (UploadRecord | undefined)[]
}

export interface CountPage {
  readonly counts: readonly Count[]
  /** Where the next page begins; undefined when there is none. */
  readonly next?: ListPlace
}

export interface CountQuery extends ListQuery {
  readonly state?: 'open' | 'finished' | undefined
}

export interface CountingParts {
  readonly bytes: ByteStore
  readonly records: RecordStore | undefined
  readonly expiry: Expiry
  readonly now: Now
}

/** Looked at so many at a time. */
const atOnce = 16
/** A page takes no more looks into the index than this: who filters out what most uploads are gets shorter pages. */
const looksAtMost = 10

/** Pure: what is counted of an upload; `parts` where it is a final. */
export function countOf(record: UploadRecord, parts?: readonly (UploadRecord | undefined)[]): Count {
  const { head, mark } = record
  const { offset, length, movedAt } = mark
  const state = mark.state === 'terminated' ? 'failed' : mark.state
  if (head.parts === undefined || parts === undefined) return { record, state, offset, length, movedAt }
  if (!isWaiting(record)) return { record, state, offset, length, movedAt, parts }
  const lengths = parts.map((part) => part?.mark.length)
  return {
    record,
    state,
    offset: sum(parts.map((part) => part?.mark.offset ?? 0)),
    length: lengths.includes(undefined) ? undefined : sum(lengths as number[]),
    movedAt: Math.max(movedAt, ...parts.map((part) => part?.mark.movedAt ?? 0)),
    parts,
  }
}

export class Counting {
  readonly #parts: CountingParts
  readonly #kin: Kin | undefined

  constructor(parts: CountingParts) {
    const { bytes, expiry } = parts
    this.#parts = parts
    this.#kin = bytes.concatenation && new Kin({ bytes, ties: bytes.concatenation, expiry })
  }

  /** Whether there are lists. */
  get hasLists(): boolean {
    return this.#parts.records !== undefined
  }

  /** Undefined when the upload is not there, or its time is over. */
  async one(id: string): Promise<Count | undefined> {
    const record = await this.#latest(id)
    return record && this.#count(record)
  }

  /** In the order of `ids`; what is not there is left out. */
  async some(ids: readonly string[]): Promise<Count[]> {
    return present(await inGroups(ids, (id) => this.one(id)))
  }

  /**
   * Newest first. A page may be shorter than `limit` although there are more. Fails with `unavailable` while the records
   * are away.
   */
  async list({ state, ...query }: CountQuery): Promise<CountPage> {
    const { records } = this.#parts
    const counts: Count[] = []
    let after = query.after
    for (let looks = 0; records && looks < looksAtMost; looks++) {
      const limit = query.limit - counts.length
      const page = await records.list({ ...query, after, limit })
      const found = present(await inGroups(page.records, (copy) => this.#listed(copy)))
      counts.push(...found.filter((count) => state === undefined || count.state === state))
      after = page.next
      if (after === undefined) return { counts }
      if (counts.length >= query.limit) break
    }
    return after ? { counts, next: after } : { counts }
  }

  /** When an upload that was removed had outlived its time, that is why. */
  hasExpired(record: UploadRecord): boolean {
    return isExpired(record, this.#parts.expiry, this.#parts.now())
  }

  async #listed(copy: UploadRecord): Promise<Count | undefined> {
    const marked = await this.#parts.bytes.look(copy.head.id)
    if (marked === undefined || marked.mark.state === 'terminated') return undefined
    const record = newer(marked, copy)
    return (await this.#isOver(record)) ? undefined : this.#count(record)
  }

  async #count(record: UploadRecord): Promise<Count> {
    if (record.head.parts === undefined) return countOf(record)
    const unique = [...new Set(record.head.parts)]
    const found = await inGroups(unique, (id) => this.#known(id))
    const byId = new Map(unique.map((id, index) => [id, found[index]]))
    return countOf(
      record,
      record.head.parts.map((id) => byId.get(id)),
    )
  }

  async #latest(id: string): Promise<UploadRecord | undefined> {
    const record = await this.#known(id)
    return record && !(await this.#isOver(record)) ? record : undefined
  }

  async #known(id: string): Promise<UploadRecord | undefined> {
    const { bytes, records } = this.#parts
    // Records may be away, or lost; the mark is enough.
    const [marked, copy] = await Promise.all([bytes.look(id), records?.get(id).catch(() => undefined)])
    return marked === undefined || marked.mark.state === 'terminated' ? undefined : newer(marked, copy)
  }

  async #isOver(record: UploadRecord): Promise<boolean> {
    const { expiry, now } = this.#parts
    return isExpired(record, expiry, now()) && !(await this.#kin?.outlives(record, now()))
  }
}

async function inGroups<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  for (let from = 0; from < items.length; from += atOnce)
    results.push(...(await Promise.all(items.slice(from, from + atOnce).map(work))))
  return results
}

function present<T>(items: readonly (T | undefined)[]): T[] {
  return items.filter((item) => item !== undefined) as T[]
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
