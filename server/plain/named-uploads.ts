/**
 * Which uploads a name means: the newest finished one, and the one that is begun. Links in the folder say where to look,
 * the marks of the uploads say what is true; so nothing has to be put right after a crash.
 */
import { createHash } from 'node:crypto'
import { type Names, StoreError, type UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { UploadEngine } from '../uploads/engine.ts'
import { type Asker, isShownTo } from '../uploads/upload-request.ts'

/** An upload that is not there this long after its link is not about to be made any more. */
const makingMs = 60 * 60_000

export interface NamedUpload {
  readonly finished: UploadRecord | undefined
  /** Was begun after the finished one was. */
  readonly begun: UploadRecord | undefined
}

/** `who` keeps the names of one client from those of others. */
export function keyOfName(door: 'put' | 'form', who: readonly string[], name: string): string {
  // The same letters can be written in two ways, and machines differ in which they choose.
  return createHash('sha256')
    .update(JSON.stringify([door, ...who, name.normalize('NFC')]))
    .digest('hex')
}

export class NamedUploads {
  readonly #engine: UploadEngine

  constructor(engine: UploadEngine) {
    this.#engine = engine
  }

  async note(key: string, id: string, { lasting }: { lasting: boolean }): Promise<void> {
    await this.#names.add(key, id, { lasting, now: this.#engine.now() })
  }

  async forget(key: string, id: string): Promise<void> {
    await this.#names.remove(key, id)
  }

  async find(key: string, asker: Asker): Promise<NamedUpload> {
    return chosen(await this.#records(key, asker))
  }

  /** Unfinished uploads of a name that nobody is sending to, the newest first. Finished ones are forgotten by the way. */
  async resting(key: string, asker: Asker, silentMs: number, most: number): Promise<UploadRecord[]> {
    const resting: UploadRecord[] = []
    for (const record of (await this.#records(key, asker)).toSorted(byCreation).toReversed()) {
      const { head, mark } = record
      if (mark.state !== 'open') await this.forget(key, head.id)
      else if (mark.length === undefined && (await this.#isResting(record, silentMs))) resting.push(record)
      if (resting.length === most) break
    }
    return resting
  }

  /** Forgets what a name will not mean any more. What fails here is done another time. */
  async tidy(key: string, asker: Asker): Promise<void> {
    try {
      const records = await this.#records(key, asker)
      const { finished, begun } = chosen(records)
      for (const { head, mark } of records) {
        if (head.id === finished?.head.id || head.id === begun?.head.id) continue
        if (mark.state === 'open' && !(await this.#names.isAtRest(head.id))) continue
        await this.forget(key, head.id)
      }
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
    }
  }

  /** Forgets all that nobody is about to finish. */
  async forgetAll(key: string, asker: Asker): Promise<void> {
    for (const { head, mark } of await this.#records(key, asker))
      if (mark.state !== 'open' || (await this.#names.isAtRest(head.id))) await this.forget(key, head.id)
  }

  /** What a name leads to is no more than a hint; what somebody else owns is not there. */
  async #records(key: string, asker: Asker): Promise<UploadRecord[]> {
    const { bytes } = this.#engine
    const entries = await this.#names.list(key)
    const records: UploadRecord[] = []
    for (const { id, addedAt } of entries) {
      const seen = await bytes.look(id)
      const record = seen && isShownTo(asker, seen.head) ? seen : undefined
      if (record?.mark.state === 'open' || record?.mark.state === 'finished') records.push(record)
      else if (this.#engine.now() - addedAt > makingMs) await this.forget(key, id)
    }
    return records
  }

  /** A writer that is not known to be gone may be silent because its connection is. */
  async #isResting({ head, mark }: UploadRecord, silentMs: number): Promise<boolean> {
    return this.#engine.now() - mark.movedAt > silentMs || (await this.#names.isAtRest(head.id))
  }

  get #names(): Names {
    const { names } = this.#engine.bytes
    if (names === undefined) throw new Refusal('route-unknown')
    return names
  }
}

function chosen(records: readonly UploadRecord[]): NamedUpload {
  const finished = records
    .filter(({ mark }) => mark.state === 'finished')
    .toSorted(byFinish)
    .at(-1)
  const isAfter = (record: UploadRecord) => finished === undefined || byCreation(record, finished) > 0
  const begun = records
    .filter((record) => record.mark.state === 'open' && isAfter(record))
    .toSorted(byCreation)
  return { finished, begun: begun.at(-1) }
}

function byFinish(a: UploadRecord, b: UploadRecord): number {
  return a.mark.movedAt - b.mark.movedAt || byCreation(a, b)
}

function byCreation(a: UploadRecord, b: UploadRecord): number {
  return a.head.createdAt - b.head.createdAt || (a.head.id < b.head.id ? -1 : 1)
}
