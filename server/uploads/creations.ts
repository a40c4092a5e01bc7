/**
 * How an upload comes to be. It is named, checked and shown to who may refuse it before anything is made; then it is made
 * in one step where nobody can notice the difference, else under its lock and filled with the body that came along.
 * What fails after all is removed again: nobody knows its URL.
 */
import type { Lock, Locker, Now, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { CreateCommand, Outcome } from '../protocol/messages.ts'
import { type AtOnceParts, bringsNothing, createAtOnce, createEmpty, takeWhole } from './at-once.ts'
import type { EngineSettings } from './engine-parts.ts'
import { checkEntry } from './entry-rules.ts'
import type { UploadHold } from './hold.ts'
import type { InstantUploads } from './instant.ts'
import type { Lifetime } from './lifetime.ts'
import { answerOf, overflowOf } from './outcomes.ts'
import type { Admitted } from './quotas.ts'
import { expiresAt, refuseCreate } from './rules.ts'
import type { RunningHolds } from './running-holds.ts'
import { newHeadOf, type UploadRequest } from './upload-request.ts'
import type { WholeHashes } from './whole-hash.ts'

export interface CreationParts extends AtOnceParts {
  readonly locker: Locker
  readonly settings: EngineSettings
  readonly hashes: WholeHashes
  readonly now: Now
  readonly holds: RunningHolds
  readonly instant: InstantUploads
  readonly lifetime: Lifetime
}

/** An upload that is about to be made. */
interface Making {
  readonly head: UploadHead
  readonly command: CreateCommand
  readonly maxBytes: number
  readonly admitted: Admitted | undefined
  /** A finished one with the same bytes. */
  readonly source: UploadRecord | undefined
}

export class Creations {
  readonly #parts: CreationParts

  constructor(parts: CreationParts) {
    this.#parts = parts
  }

  async create(command: CreateCommand, request: UploadRequest): Promise<Outcome> {
    const { holds, quotas, instant } = this.#parts
    const id = await request.nameUpload(command.metadata)
    const maxBytes = await request.maxBytes(id)
    const { length, contentLength: bodyBytes = 0, hasBody } = command
    const bytes = length ?? bodyBytes
    const refusal = refuseCreate(command, maxBytes)
    if (refusal) return { is: 'refused', refusal }
    const entry = checkEntry(this.#parts, bytes, command)
    if (entry) await entry
    const head = await request.beforeCreate(this.#draft(id, command, request), length)
    // What somebody chose as a name may be there: then it is not noted for another one, and who sends it is not disturbed.
    if ((head.id !== id || request.named) && (await this.#parts.bytes.look(head.id)))
      return { is: 'refused', refusal: new Refusal('exists') }
    const needsNoLock = this.#needsNoLock(id, head, request)
    const body = needsNoLock ? takeWhole(this.#parts, command, request) : undefined
    if (body) {
      const record = await holds.withoutLock(() => createAtOnce(this.#parts, head, body, request))
      return { is: 'created', record, expiresAt: undefined }
    }
    if (needsNoLock && bringsNothing(this.#parts, command))
      return holds.withoutLock(() => this.#makeEmpty(head, command))
    const source = instant.mayBeFound(head) ? await instant.find(head, length) : undefined
    const make = (admitted?: Admitted) => this.#make({ head, command, maxBytes, admitted, source }, request)
    if (!quotas) return make()
    return quotas.admitting(head, bytes, request, async (admitted) => {
      return hasBody ? quotas.running('creation', head, request, () => make(admitted)) : make(admitted)
    })
  }

  #draft(
    id: string,
    { metadata, partial, dialect, digest }: CreateCommand,
    request: UploadRequest,
  ): UploadHead {
    return {
      id,
      createdAt: this.#parts.now(),
      dialect: dialect ?? 'tus',
      ...newHeadOf(request, metadata),
      ...(partial !== undefined && { concat: partial }),
      ...(digest && { digest }),
    }
  }

  async #makeEmpty(head: UploadHead, { length }: CreateCommand): Promise<Outcome> {
    const { settings } = this.#parts
    const end = (record: UploadRecord) => expiresAt(record, settings.expiry)
    const record = await createEmpty(this.#parts, head, length, end)
    return { is: 'created', record, expiresAt: end(record) }
  }

  /** Whether nobody but this request can come upon the upload before it is answered, and nobody has to hash it or to give it room. */
  #needsNoLock(id: string, head: UploadHead, request: UploadRequest): boolean {
    const { quotas, locker, hashes } = this.#parts
    // A name or a place that somebody chose is one that others may know.
    const isOwnName = head.id === id && !request.isNamedByOthers && !request.named
    const isOwnPlace = isOwnName && head.storagePath === undefined
    if (
      !isOwnPlace ||
      quotas?.limits(head, request) ||
      request.locker !== undefined ||
      locker.isReady !== true
    )
      return false
    return hashes.algorithmOf(head) === undefined
  }

  async #make(making: Making, request: UploadRequest): Promise<Outcome> {
    const { head, command, source } = making
    const { holds, instant } = this.#parts
    let isAdopted = false
    const outcome = await holds.holding(head.id, request, async (hold, lock) => {
      const { teller, bytes, settings } = this.#parts
      if (request.named) await request.named(head.id)
      hold.take(await teller.creating(head, command.length, bytes, request), 'new')
      try {
        if (making.admitted) await hold.within(await making.admitted.created(hold.kept))
        const adoption = source && (await instant.adopt(hold.kept, source))
        isAdopted = adoption !== undefined
        teller.tell('created', hold.kept, request)
        const filled = adoption
          ? await hold.adopt(adoption, source, request)
          : await hold.fill({ offset: 0, maxBytes: making.maxBytes, ...command }, request)
        if (filled.why === 'overflow') throw overflowOf(filled, command.length)
        return answerOf(filled, 'created', settings.expiry)
      } catch (error) {
        if (error instanceof Refusal && error.code.startsWith('checksum-')) throw createdEmpty(hold, error)
        await this.#letGo(error, hold, lock, request)
        throw error
      }
    })
    if (isAdopted) await instant.hearOut(command, request)
    return outcome
  }

  /** Removes what failed: the client was never told its URL, and could not go on with it, unless it knows a name of it. */
  async #letGo(error: unknown, hold: UploadHold, lock: Lock, request: UploadRequest): Promise<void> {
    const { lifetime, report } = this.#parts
    await lifetime.removeUnwanted(error, hold, lock, request)
    if (request.named && isWorthKeeping(hold.kept, error)) {
      if (lock.isHeld()) hold.keepRecord()
      return
    }
    const { id } = hold
    hold.forgetRecord()
    await hold.close()
    await lifetime.remove(id).catch((cause: unknown) => report({ is: 'left-behind', id, error: cause }))
  }
}

/** Bytes that failed their checksum are not kept, but the upload stands and is to be filled anew. */
function createdEmpty(hold: UploadHold, refusal: Refusal): Refusal {
  hold.keepRecord()
  return new Refusal(refusal.code, { detail: refusal.message, offset: 0, createdId: hold.id, cause: refusal })
}

/** Who sent it knows it by a name, and can go on; what was too large never fits. */
function isWorthKeeping({ mark }: UploadRecord, error: unknown): boolean {
  const isTooLarge = error instanceof Refusal && error.status === 413
  return mark.state === 'open' && mark.offset > 0 && !isTooLarge
}
