/**
 * What finals and parts are to each other, read from the marks and the ties every time: nothing here is remembered, so
 * nothing can be lost. A final that is not finished needs its parts, and all of them expire together.
 */
import type { ByteStore, Concatenation, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import { type Expiry, expiresAt } from './rules.ts'

/** Looked at so many at a time. */
const atOnce = 16

export interface Parts {
  /** In the order of the final, a repeated one repeated; undefined where one is gone. */
  readonly records: readonly (UploadRecord | undefined)[]
  readonly areFinished: boolean
  /** Bytes of all parts; undefined while the length of one is not known. */
  readonly length: number | undefined
  /** Bytes that are there or announced: the least that the final will have. */
  readonly leastLength: number
}

export function isPart(head: UploadHead): boolean {
  return head.concat !== undefined && head.parts === undefined
}

/** A final that is not made yet. */
export function isWaiting({ head, mark }: UploadRecord): boolean {
  return head.parts !== undefined && mark.state === 'open'
}

export class Kin {
  readonly #bytes: ByteStore
  readonly #ties: Concatenation
  readonly #expiry: Expiry

  constructor({ bytes, ties, expiry }: { bytes: ByteStore; ties: Concatenation; expiry: Expiry }) {
    this.#bytes = bytes
    this.#ties = ties
    this.#expiry = expiry
  }

  async partsOf(ids: readonly string[]): Promise<Parts> {
    const unique = [...new Set(ids)]
    const found = new Map<string, UploadRecord | undefined>()
    for (let from = 0; from < unique.length; from += atOnce) {
      const some = unique.slice(from, from + atOnce)
      const looked = await Promise.all(some.map((id) => this.#bytes.look(id)))
      for (const [index, id] of some.entries()) found.set(id, looked[index])
    }
    const records = ids.map((id) => found.get(id))
    const lengths = records.map((record) => record?.mark.length)
    const least = records.map((record) => record?.mark.length ?? record?.mark.offset ?? 0)
    return {
      records,
      areFinished: records.every((record) => record?.mark.state === 'finished'),
      length: lengths.some((length) => length === undefined) ? undefined : sum(lengths as number[]),
      leastLength: sum(least),
    }
  }

  /** Finals that are not finished and need this part. */
  async waitingFor(part: string): Promise<UploadRecord[]> {
    const finals = await Promise.all((await this.#ties.finalsOf(part)).map((id) => this.#bytes.look(id)))
    return finals.filter((final) => final !== undefined && needs(final, part)) as UploadRecord[]
  }

  /** Whether this is a part that a final waits for. */
  async isNeeded({ head }: UploadRecord): Promise<boolean> {
    return isPart(head) && (await this.waitingFor(head.id)).length > 0
  }

  /** Whether an upload, its own time being over, is kept by those that it belongs together with. */
  async outlives(record: UploadRecord, now: number): Promise<boolean> {
    if (record.head.concat === undefined) return false
    return ((await this.expiresAt(record)) ?? Number.POSITIVE_INFINITY) > now
  }

  /** Whether a part has served: a final of it is finished, and none waits for it. */
  async hasServed(part: string): Promise<boolean> {
    const finals = await Promise.all((await this.#ties.finalsOf(part)).map((id) => this.#bytes.look(id)))
    const served = finals.filter((final) => final?.head.parts?.includes(part))
    return (
      served.some((final) => final?.mark.state === 'finished') &&
      !served.some((final) => final && isWaiting(final))
    )
  }

  /** Makes a part take no more finals, for its removal. False while one needs it. */
  seal(part: string): Promise<boolean> {
    return this.#ties.seal(part, async (final) => {
      const record = await this.#bytes.look(final)
      return record !== undefined && needs(record, part)
    })
  }

  /** When an upload expires: never before the final that it is needed for, or the parts that it waits for. */
  async expiresAt(record: UploadRecord): Promise<number | undefined> {
    const own = expiresAt(record, this.#expiry)
    if (own === undefined) return undefined
    if (isWaiting(record)) return this.#finalExpiresAt(record, own)
    if (!isPart(record.head)) return own
    const finals = await this.waitingFor(record.head.id)
    const times = await Promise.all(finals.map((final) => this.#finalExpiresAt(final, own)))
    return Math.max(own, ...times)
  }

  async #finalExpiresAt(final: UploadRecord, least: number): Promise<number> {
    const own = expiresAt(final, this.#expiry) ?? least
    const { records } = await this.partsOf(final.head.parts!)
    const times = records.map((part) => (part && expiresAt(part, this.#expiry)) ?? 0)
    return Math.max(own, ...times)
  }
}

function needs(final: UploadRecord, part: string): boolean {
  return isWaiting(final) && final.head.parts!.includes(part)
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
