/** How far finals are that wait for their parts: the parts are looked at once, and followed by what is told of them. */
import type { UploadRecord } from '../../stores/contracts.ts'
import { type Count, type Counting, countOf } from './counting.ts'
import { isWaiting } from './kin.ts'
import { isNewer } from './progress.ts'

interface Followed {
  final: UploadRecord
  readonly parts: Map<string, UploadRecord>
}

/** More than these are looked at every time. */
const followedAtMost = 1000

export class Tally {
  readonly #counting: Pick<Counting, 'one'>
  readonly #followed = new Map<string, Followed>()
  readonly #finalsOf = new Map<string, Set<string>>()

  constructor(counting: Pick<Counting, 'one'>) {
    this.#counting = counting
  }

  /** What is counted of an upload now. Undefined when it is gone. */
  async countOf(record: UploadRecord): Promise<Count | undefined> {
    if (record.head.parts === undefined) return countOf(record)
    if (!isWaiting(record)) this.forget(record.head.id)
    const followed = this.#followed.get(record.head.id)
    if (followed === undefined) return this.#follow(record)
    if (isNewer(record, followed.final)) followed.final = record
    return countOf(
      followed.final,
      record.head.parts.map((id) => followed.parts.get(id)),
    )
  }

  /** What was found by looking. */
  found({ record, parts = [] }: Count): void {
    if (!isWaiting(record)) return
    const followed = this.#begin(record)
    for (const part of parts) if (part) takeNewer(followed, part)
  }

  /** The finals, of those that are followed, that wait for this part. */
  partMoved(part: UploadRecord): UploadRecord[] {
    const ids = [...(this.#finalsOf.get(part.head.id) ?? [])]
    return ids.flatMap((id) => {
      const followed = this.#followed.get(id)
      if (followed === undefined) return []
      takeNewer(followed, part)
      return [followed.final]
    })
  }

  forget(id: string): void {
    const followed = this.#followed.get(id)
    if (followed === undefined) return
    this.#followed.delete(id)
    for (const part of followed.final.head.parts ?? []) {
      const finals = this.#finalsOf.get(part)
      finals?.delete(id)
      if (finals?.size === 0) this.#finalsOf.delete(part)
    }
  }

  async #follow(record: UploadRecord): Promise<Count | undefined> {
    // Followed before it is looked at: what moves meanwhile is not overlooked.
    if (isWaiting(record) && this.#followed.size < followedAtMost) this.#begin(record)
    const count = await this.#counting.one(record.head.id)
    if (count === undefined) this.forget(record.head.id)
    else if (this.#followed.has(record.head.id)) this.found(count)
    return count
  }

  #begin(final: UploadRecord): Followed {
    const { id, parts = [] } = final.head
    let followed = this.#followed.get(id)
    if (followed !== undefined) return followed
    followed = { final, parts: new Map() }
    this.#followed.set(id, followed)
    for (const part of parts) {
      const finals = this.#finalsOf.get(part) ?? new Set()
      this.#finalsOf.set(part, finals.add(id))
    }
    return followed
  }
}

function takeNewer({ parts }: Followed, part: UploadRecord): void {
  const known = parts.get(part.head.id)
  if (known === undefined || isNewer(part, known)) parts.set(part.head.id, part)
}
