/**
 * Finals: uploads that are made of others. What the client asked for is checked and noted here; the bytes are the
 * business of the assemblies.
 *
 * A final stands in its mark before it is tied to its parts, and is answered after. Who repeats the request is given
 * the same one: by its id, which follows from the request, or by the ties, where somebody else names uploads.
 */
import { createHash } from 'node:crypto'
import { StoreError, type UploadHead, type UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { ConcatCommand, Outcome } from '../protocol/messages.ts'
import { Assemblies, type AssemblyContext } from './assembly.ts'
import { checkEntry } from './entry-rules.ts'
import { isPart, isWaiting, Kin, type Parts } from './kin.ts'
import type { Admitted } from './quotas.ts'
import { isExpired } from './rules.ts'
import { type Asker, isShownTo, newHeadOf, type UploadRequest } from './upload-request.ts'

/** Longer than this nobody waits for an answer; proxies give up after a minute. The final is then finished behind it. */
const answerWithinMs = 30_000

export interface ConcatContext extends AssemblyContext {
  expire(id: string, now: number): Promise<boolean>
}

/** Undefined where the store can not concatenate. */
export function concatenatorOf(engine: Omit<ConcatContext, 'kin' | 'ties'>): Concatenator | undefined {
  const { bytes, settings } = engine
  const ties = bytes.concatenation
  return ties && new Concatenator({ ...engine, ties, kin: new Kin({ bytes, ties, expiry: settings.expiry }) })
}

export class Concatenator {
  readonly #context: ConcatContext
  readonly assemblies: Assemblies
  readonly kin: Kin

  constructor(context: ConcatContext) {
    this.#context = context
    this.kin = context.kin
    this.assemblies = new Assemblies(context)
  }

  async create(command: ConcatCommand, request: UploadRequest): Promise<Outcome> {
    const key = keyOf(command, request.asker)
    const suggested = key.slice(0, 40)
    const tied = await this.#tiedToAll(command.parts, key)
    const id = tied?.head.id ?? (await request.nameUpload(command.metadata, suggested))
    // An id of somebody's own making may stand for other parts by now.
    const made = tied ?? (id === suggested ? await this.#find(id, key) : undefined)
    if (made) return this.#repeat(made, request)
    try {
      return await this.#createNew(id, key, command, request)
    } catch (error) {
      if (!isTaken(error)) throw error
      // By the same request, which came twice at a time,
      const other = (await this.#tiedToAll(command.parts, key)) ?? (await this.#find(suggested, key))
      if (other) return this.#repeat(other, request)
      // or by what a creation left that was cut off, until it is swept.
      if (id !== suggested) throw error
      return this.#createNew(await request.nameUpload(command.metadata), key, command, request)
    }
  }

  /** What is known of a final, without disturbing anybody. */
  async offset(record: UploadRecord): Promise<Outcome> {
    const expiresAt = await this.kin.expiresAt(record)
    if (!isWaiting(record)) return { is: 'offset', record, expiresAt }
    const { length, areFinished } = await this.kin.partsOf(record.head.parts!)
    // Whoever was to finish it may be gone.
    if (areFinished) this.assemblies.finishSoon(record.head.id)
    const known = length === undefined ? record : { ...record, mark: { ...record.mark, length } }
    return { is: 'offset', record: known, expiresAt }
  }

  /** To be called when an upload was let go: it may be the last part that a final waited for. */
  received({ head, mark }: UploadRecord): void {
    if (mark.state !== 'finished' || !isPart(head)) return
    this.assemblies.inBackground(head.id, async () => {
      for (const final of await this.kin.waitingFor(head.id)) this.assemblies.finishSoon(final.head.id)
    })
  }

  /** Does for an upload what may have been left undone: by a server that died, or by this one when it was stopped. */
  async goOn(record: UploadRecord): Promise<void> {
    const { id } = record.head
    if (isWaiting(record)) {
      await this.#tie(record).catch((error: unknown) => {
        // A part is gone for good, so the final expires some day; no other reason is one to be silent about.
        if (!(error instanceof Refusal)) throw error
      })
      this.assemblies.finishSoon(id)
    } else if (
      this.#context.settings.removeParts &&
      isPart(record.head) &&
      record.mark.state === 'finished'
    ) {
      if (await this.kin.hasServed(id)) await this.assemblies.removePart(id)
    }
  }

  /** Ends what binds finals and parts, before one of them is removed. False while a final needs this part. */
  async letGo(head: UploadHead): Promise<boolean> {
    if (isPart(head)) return this.kin.seal(head.id)
    await this.#untie(head)
    return true
  }

  async #untie({ id, parts, concatKey }: UploadHead): Promise<void> {
    for (const part of new Set(parts)) await this.#context.ties.untie(part, concatKey!, id)
  }

  async #createNew(
    id: string,
    key: string,
    { asSent: concat, parts: ids, metadata, digest }: ConcatCommand,
    request: UploadRequest,
  ): Promise<Outcome> {
    const draft: UploadHead = {
      ...{ id, createdAt: this.#context.now(), dialect: 'tus' },
      ...newHeadOf(request, metadata),
      ...{ concat, parts: ids, concatKey: key },
      ...(digest && { digest }),
    }
    const parts = await this.#checkParts(ids, request.asker, await request.maxBytes(id))
    await checkEntry(this.#context, parts.leastLength, { metadata })
    const head = await request.beforeCreate(draft, parts.length)
    const make = async (admitted?: Admitted): Promise<UploadRecord> => {
      const record = await this.#make(head, parts.length, request)
      try {
        await admitted?.created(record)
      } catch (error) {
        await this.#undo(record)
        throw error
      }
      return record
    }
    const { quotas } = this.#context
    const record = quotas ? await quotas.admitting(head, parts.leastLength, request, make) : await make()
    this.#context.teller.tell('created', record, request)
    return this.#answer(record, request)
  }

  /** The answer to this creation was lost, or another server died over it. */
  async #repeat(record: UploadRecord, request: UploadRequest): Promise<Outcome> {
    await request.repeated(record.head.id)
    if (isWaiting(record)) await this.#tie(record)
    return this.#answer(record, request)
  }

  /** Answers a creation: finished when all parts are, and that does not take too long. */
  async #answer(record: UploadRecord, request: UploadRequest): Promise<Outcome> {
    let isAnswered = false
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => {
        isAnswered = true
        resolve(undefined)
      }, answerWithinMs)
    })
    const { id } = record.head
    const finishing = this.assemblies.finish(id, request, () => isAnswered)
    try {
      const now = (await Promise.race([finishing, timeout])) ?? record
      return { is: 'created', record: now, expiresAt: await this.kin.expiresAt(now) }
    } finally {
      clearTimeout(timer)
      if (isAnswered) this.assemblies.inBackground(id, async () => void (await finishing))
    }
  }

  async #make(head: UploadHead, length: number | undefined, request: UploadRequest): Promise<UploadRecord> {
    const { bytes, locker, settings, draining } = this.#context
    const lock = await locker.acquire(head.id, {
      timeoutMs: settings.acquireLockTimeoutMs,
      signal: AbortSignal.any([request.signal, draining]),
    })
    try {
      const appender = await this.#context.teller.creating(head, length, bytes, request)
      const { record } = appender
      await appender.close()
      try {
        await this.#tie(record)
      } catch (error) {
        await this.#undo(record)
        throw error
      }
      await this.assemblies.putRecord(record, lock)
      return record
    } finally {
      await lock.release()
    }
  }

  async #undo({ head }: UploadRecord): Promise<void> {
    try {
      await this.#untie(head)
      await this.#context.remove(head.id)
    } catch (error) {
      this.#context.report({ is: 'left-behind', id: head.id, error })
    }
  }

  /** Ties a final to all its parts. Afterwards nobody removes one as long as it waits. */
  async #tie({ head }: UploadRecord): Promise<void> {
    const { ties, bytes } = this.#context
    for (const part of new Set(head.parts)) {
      const tied = await ties.tie(part, head.concatKey!, head.id)
      if (tied === 'sealed') throw unknownPart(head.parts!, part)
      if (tied !== 'tied') {
        const other = await bytes.look(tied.takenBy)
        if (other?.head.concatKey === head.concatKey && other && !isGone(other)) throw new Refusal('exists')
        // What is left of a final that is gone.
        await ties.untie(part, head.concatKey!, tied.takenBy)
        if ((await ties.tie(part, head.concatKey!, head.id)) !== 'tied') throw new Refusal('exists')
      }
      const record = await bytes.look(part)
      if (record === undefined || isGone(record)) {
        await ties.untie(part, head.concatKey!, head.id)
        throw unknownPart(head.parts!, part)
      }
    }
  }

  /** The final that is tied to every part under this key. */
  async #tiedToAll(parts: readonly string[], key: string): Promise<UploadRecord | undefined> {
    const id = await this.#context.ties.tiedTo(parts[0]!, key)
    if (id === undefined) return undefined
    for (const part of new Set(parts))
      if ((await this.#context.ties.tiedTo(part, key)) !== id) return undefined
    return this.#find(id, key)
  }

  /** A final that is there and was made by the same request. */
  async #find(id: string, key: string): Promise<UploadRecord | undefined> {
    const record = await this.#context.bytes.look(id)
    if (record?.head.concatKey !== key || isGone(record)) return undefined
    const now = this.#context.now()
    if (!(await this.#isExpired(record, now))) return record
    await this.#context.expire(id, now)
    return undefined
  }

  async #checkParts(ids: readonly string[], asker: Asker, maxBytes: number): Promise<Parts> {
    const parts = await this.kin.partsOf(ids)
    const now = this.#context.now()
    for (const [index, record] of parts.records.entries()) {
      const isLost = record === undefined || isGone(record) || (await this.#isExpired(record, now))
      // Somebody else's upload is not shown, not even by how it is refused.
      if (isLost || !isShownTo(asker, record.head)) throw unknownPart(ids, ids[index]!)
      if (!isPart(record.head)) throw refusedPart('part-not-partial', index, whatIs(record.head))
    }
    if (parts.leastLength > maxBytes)
      throw new Refusal('too-large', {
        detail: `the parts are more than the largest upload that is accepted here, ${maxBytes} bytes`,
      })
    return parts
  }

  async #isExpired(record: UploadRecord, now: number): Promise<boolean> {
    return isExpired(record, this.#context.settings.expiry, now) && !(await this.kin.outlives(record, now))
  }
}

/** Names a request: whoever sends the same again has not got its answer. Ids can not have the separators in them. */
function keyOf({ parts, metadata, digest }: ConcatCommand, { owner }: Asker): string {
  return createHash('sha256')
    .update(
      JSON.stringify([
        parts,
        metadata ?? null,
        ...(owner === undefined ? [] : [owner]),
        ...(digest ? [digest] : []),
      ]),
    )
    .digest('hex')
}

/** Somebody has this id, or the tie of this request. */
function isTaken(error: unknown): boolean {
  return (error instanceof StoreError || error instanceof Refusal) && error.code === 'exists'
}

function isGone({ mark }: UploadRecord): boolean {
  return mark.state === 'terminated' || mark.state === 'failed'
}

function whatIs(head: UploadHead): string {
  return head.parts === undefined
    ? 'was not created with "Upload-Concat: partial"'
    : 'is itself a final upload'
}

function unknownPart(ids: readonly string[], id: string): Refusal {
  return refusedPart('part-unknown', ids.indexOf(id), 'is not there')
}

function refusedPart(code: 'part-unknown' | 'part-not-partial', index: number, what: string): Refusal {
  return new Refusal(code, { detail: `part ${index + 1} of this final upload ${what}` })
}
