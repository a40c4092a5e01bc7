/**
 * What happens to an upload, whichever dialect asked. Knows offsets, lengths and locks; no headers, no HTTP.
 *
 * The order is always the same: read and refuse first, disturbing nobody; lock; look again; bytes; mark; record and
 * unlock; answer. What was answered is kept, whatever happens to this process afterwards.
 */
import {
  type ByteStore,
  type Lock,
  LockError,
  type Locker,
  type Now,
  type RecordStore,
  type UploadHead,
  type UploadRecord,
} from '../../stores/contracts.ts'
import { Meter } from '../../stores/meter.ts'
import { Refusal } from '../errors.ts'
import type { AppendCommand, ConcatCommand, CreateCommand, Outcome } from '../protocol/messages.ts'
import { createAtOnce, takeWhole } from './at-once.ts'
import { type Concatenator, concatenatorOf } from './concat.ts'
import { appendNothing } from './empty-append.ts'
import type { EngineParts, EngineSettings } from './engine-parts.ts'
import { checkEntry } from './entry-rules.ts'
import { type EngineEvent, type HoldContext, UploadHold } from './hold.ts'
import { InstantUploads } from './instant.ts'
import { isWaiting } from './kin.ts'
import { Lifetime } from './lifetime.ts'
import { answerOf, outcomeOf, overflowOf, retryAfterS } from './outcomes.ts'
import { Pulse } from './pulse.ts'
import type { Admitted, Quotas } from './quotas.ts'
import { expiresAt, refuseAppend, refuseCreate, refuseRead } from './rules.ts'
import { Teller } from './teller.ts'
import { isShownTo, newHeadOf, type UploadRequest } from './upload-request.ts'
import { WholeHashes } from './whole-hash.ts'

export type { EngineParts, EngineSettings } from './engine-parts.ts'

/** An upload that is about to be made. */
interface Making {
  readonly head: UploadHead
  readonly command: CreateCommand
  readonly maxBytes: number
  readonly admitted: Admitted | undefined
  /** A finished one with the same bytes. */
  readonly source: UploadRecord | undefined
}

export class UploadEngine implements HoldContext {
  readonly bytes: ByteStore
  readonly records: RecordStore | undefined
  readonly settings: EngineSettings
  readonly pulse: Pulse
  readonly meter: Meter
  readonly now: Now
  readonly report: (event: EngineEvent) => void
  readonly teller: Teller
  readonly quotas: Quotas | undefined
  readonly hashes: WholeHashes
  readonly #locker: Locker
  readonly #lifetime: Lifetime
  readonly #concat: Concatenator | undefined
  readonly #instant: InstantUploads
  /** What runs, and is to end when this server does. */
  readonly #holds = new Set<Pick<UploadHold, 'drain'>>()
  readonly #draining = new AbortController()
  #drained: Promise<void> | undefined
  #onIdle: (() => void) | undefined

  constructor(parts: EngineParts) {
    this.bytes = parts.bytes
    this.records = parts.records
    this.settings = parts.settings
    this.report = parts.report
    this.pulse = parts.pulse ?? new Pulse()
    this.meter = parts.meter ?? new Meter()
    this.now = parts.now ?? (() => Date.now())
    this.hashes = new WholeHashes(parts.settings.digest ?? 'declared')
    this.#locker = parts.locker
    this.quotas = parts.quotas
    const { bytes, records, settings, pulse, meter, report, now, quotas } = this
    const { locker, ownRequest, audiences = [] } = parts
    const draining = this.#draining.signal
    this.teller = new Teller({ bytes, locker, audiences, draining, report, now, meter })
    this.#instant = new InstantUploads({ bytes, records, settings, pulse, draining, report })
    this.#lifetime = new Lifetime({
      ...{ bytes, records, settings, locker, draining, report, meter, quotas },
      teller: this.teller,
      concat: () => this.#concat,
    })
    this.#concat = concatenatorOf({
      ...{ bytes, records, settings, pulse, meter, report, now, locker, ownRequest, draining, quotas },
      teller: this.teller,
      hashes: this.hashes,
      remove: (id) => this.#lifetime.remove(id),
      expire: (id, now) => this.#lifetime.expire(id, now),
    })
  }

  async start(): Promise<void> {
    await this.bytes.start()
    await this.records?.start()
    await this.quotas?.start()
    await this.#locker.start()
    this.teller.start()
  }

  async close(): Promise<void> {
    await this.drain()
    await this.teller.close()
    await this.#locker.close()
    await this.quotas?.close()
    await this.records?.close()
    await this.bytes.close()
  }

  /** Aborts when nothing new is taken any more. */
  get draining(): AbortSignal {
    return this.#draining.signal
  }

  get isDraining(): boolean {
    return this.#draining.signal.aborted
  }

  /** Takes nothing new, ends running bodies at their last byte, and returns when every upload was let go. */
  async drain(): Promise<void> {
    this.#draining.abort()
    for (const hold of this.#holds) hold.drain()
    this.#drained ??= new Promise((resolve) => {
      this.#onIdle = resolve
    })
    if (this.#holds.size === 0) this.#onIdle?.()
    await this.#drained
    await this.#concat?.assemblies.drained()
  }

  create(command: CreateCommand, request: UploadRequest): Promise<Outcome> {
    return this.#settle('append', () => this.#create(command, request))
  }

  /** Makes one upload of others. */
  concat(command: ConcatCommand, request: UploadRequest): Promise<Outcome> {
    return this.#settle('append', async () => {
      const draining = this.#refuseWhileDraining()
      if (draining) return { is: 'refused', refusal: draining }
      if (!this.#concat) return { is: 'refused', refusal: new Refusal('header-unsupported') }
      return this.#concat.create(command, request)
    })
  }

  append(command: AppendCommand, request: UploadRequest): Promise<Outcome> {
    return this.#settle('append', () => this.#append(command, request))
  }

  offset(id: string, request: UploadRequest): Promise<Outcome> {
    return this.#settle('ask', () => this.#offset(id, request))
  }

  terminate(id: string, request: UploadRequest): Promise<Outcome> {
    return this.#settle('ask', () => this.#terminate(id, request))
  }

  read(id: string, request: Pick<UploadRequest, 'asker'>): Promise<Outcome> {
    return this.#settle('append', () => this.#read(id, request))
  }

  async #create(command: CreateCommand, request: UploadRequest): Promise<Outcome> {
    const draining = this.#refuseWhileDraining()
    if (draining) return { is: 'refused', refusal: draining }
    const id = await request.nameUpload(command.metadata)
    const maxBytes = await request.maxBytes(id)
    const { partial, metadata, length, contentLength: bodyBytes = 0 } = command
    const bytes = length ?? bodyBytes
    const refusal = refuseCreate(command, maxBytes)
    if (refusal) return { is: 'refused', refusal }
    const entry = checkEntry(this, bytes, command)
    if (entry) await entry
    const draft: UploadHead = {
      ...{ id, createdAt: this.now(), dialect: command.dialect ?? 'tus' },
      ...newHeadOf(request, metadata),
      ...(partial !== undefined && { concat: partial }),
      ...(command.digest && { digest: command.digest }),
    }
    const head = await request.beforeCreate(draft, length)
    // What somebody chose as a name may be there: then it is not noted for another one, and who sends it is not disturbed.
    if ((head.id !== id || request.named) && (await this.bytes.look(head.id)))
      return { is: 'refused', refusal: new Refusal('exists') }
    // A name or a place that somebody chose is one that others may know.
    const isOwnPlace = head.id === id && head.storagePath === undefined && !request.named
    const canBeAtOnce =
      isOwnPlace && !this.quotas && request.locker === undefined && this.#locker.isReady === true
    const isHashed = this.hashes.algorithmOf(head) !== undefined
    const body = canBeAtOnce && !isHashed ? takeWhole(this, command, request) : undefined
    if (body) return this.#atOnce(head, body, request)
    const source = this.#instant.mayBeFound(head) ? await this.#instant.find(head, length) : undefined
    const make = (admitted?: Admitted) => this.#make({ head, command, maxBytes, admitted, source }, request)
    const { hasBody } = command
    return this.quotas ? this.quotas.admitting(head, { bytes, hasBody }, request, make) : make()
  }

  async #make(
    { head, command, maxBytes, admitted, source }: Making,
    request: UploadRequest,
  ): Promise<Outcome> {
    let isAdopted = false
    const outcome = await this.#holding(head.id, request, async (hold, lock) => {
      if (request.named) await request.named(head.id)
      hold.take(await this.teller.creating(head, command.length, this.bytes, request))
      try {
        if (admitted) await hold.within(await admitted.created(hold.kept))
        const adoption = source && (await this.#instant.adopt(hold.kept, source))
        isAdopted = adoption !== undefined
        this.teller.tell('created', hold.kept, request)
        const filled = adoption
          ? await hold.adopt(adoption, source, request)
          : await hold.fill({ ...command, offset: 0, maxBytes }, request)
        if (filled.why === 'overflow') throw overflowOf(filled, command.length)
        return answerOf(filled, 'created', this.settings.expiry)
      } catch (error) {
        if (error instanceof Refusal && error.code.startsWith('checksum-'))
          throw this.#createdEmpty(hold, head.id, error)
        await this.#removeUnwanted(error, hold, lock, request)
        if (request.named && isWorthKeeping(hold.kept, error)) {
          if (lock.isHeld()) hold.keepRecord()
          throw error
        }
        // The client was never told the URL of what it sent: nobody could go on with it.
        hold.forgetRecord()
        await hold.close()
        await this.#lifetime
          .remove(head.id)
          .catch((cause: unknown) => this.report({ is: 'left-behind', id: head.id, error: cause }))
        throw error
      }
    })
    if (isAdopted) await this.#instant.hearOut(command, request)
    return outcome
  }

  async #atOnce(head: UploadHead, body: Uint8Array, request: UploadRequest): Promise<Outcome> {
    // Nothing can end it early, and nothing has to.
    const running = { drain() {} }
    this.#holds.add(running)
    try {
      const record = await createAtOnce(this, head, body, request)
      return { is: 'created', record, expiresAt: undefined }
    } finally {
      this.#letGo(running)
    }
  }

  async #append(command: AppendCommand, request: UploadRequest): Promise<Outcome> {
    const { id } = command
    const maxBytes = await request.maxBytes(id)
    const seen = await this.bytes.look(id)
    const refusal = await this.#refuseAppend(seen, command, maxBytes, request)
    if (refusal) return { is: 'refused', refusal }
    const entry = checkEntry(this, command.contentLength ?? 0)
    if (entry) await entry
    if (seen?.mark.state === 'finished') return appendNothing(seen, command, request, this)
    const hasBody = command.contentLength !== 0
    const work = () => this.#appendAlone(command, maxBytes, hasBody, request)
    return this.quotas && hasBody ? this.quotas.running('append', seen!.head, request, work) : work()
  }

  #appendAlone(
    command: AppendCommand,
    maxBytes: number,
    hasBody: boolean,
    request: UploadRequest,
  ): Promise<Outcome> {
    const { id } = command
    return this.#holding(id, request, async (hold, lock) => {
      const appender = await this.bytes.open(id, () => lock.isHeld())
      const record = appender?.record ?? (await this.bytes.look(id))
      if (appender) hold.take(appender)
      const refusal = await this.#refuseAppend(record, command, maxBytes, request)
      if (refusal) return { is: 'refused', refusal }
      if (!appender) return appendNothing(record!, command, request, this)
      const length = command.length ?? record!.mark.length
      const room = this.quotas?.roomOf(record!, request)
      if (room) await hold.within(room, length ?? command.offset + (command.contentLength ?? 0))
      try {
        const filled = await hold.fill({ ...command, length, maxBytes, hasBody }, request)
        return answerOf(filled, 'appended', this.settings.expiry)
      } catch (error) {
        await this.#removeUnwanted(error, hold, lock, request)
        throw error
      }
    })
  }

  async #offset(id: string, request: UploadRequest): Promise<Outcome> {
    const seen = await this.bytes.look(id)
    const refusal = await this.#refuseAbsent(seen, request)
    if (refusal) return { is: 'refused', refusal }
    if (this.#concat && isWaiting(seen!)) return this.#concat.offset(seen!)
    if (seen!.mark.state === 'finished') return this.#offsetOf(seen!)
    const answer = async (): Promise<Outcome> => {
      const record = await this.bytes.look(id)
      const refusal = await this.#refuseAbsent(record, request)
      return refusal ? { is: 'refused', refusal } : this.#offsetOf(record!)
    }
    if (this.bytes.wavers) return this.#holding(id, request, answer)
    // A mark only grows: once the holder has let go, whoever comes meanwhile can not make the answer wrong.
    const draining = this.#draining.signal
    const askedAt = performance.now()
    let hadToWait = true
    try {
      hadToWait = await (request.locker ?? this.#locker).untilFree(id, {
        timeoutMs: this.settings.acquireLockTimeoutMs,
        get signal() {
          return draining.aborted ? request.signal : AbortSignal.any([request.signal, draining])
        },
      })
    } finally {
      this.meter.lockWaits.add(performance.now() - askedAt)
    }
    return hadToWait ? answer() : this.#offsetOf(seen!)
  }

  async #terminate(id: string, request: UploadRequest): Promise<Outcome> {
    const refuse = async (record: UploadRecord | undefined): Promise<Refusal | undefined> => {
      const refusal = await this.#refuseAbsent(record, request)
      if (refusal) return refusal
      if (record!.mark.state === 'finished' && !request.mayTerminateFinished)
        return new Refusal('finished-termination-disabled')
      return (await this.#concat?.kin.isNeeded(record!)) ? new Refusal('part-needed') : undefined
    }
    const refusal = await refuse(await this.bytes.look(id))
    if (refusal) return { is: 'refused', refusal }
    return this.#holding(id, request, async (_, lock) => {
      const record = await this.bytes.look(id)
      const refusal = await refuse(record)
      if (refusal) return { is: 'refused', refusal }
      await request.beforeTerminate(record!)
      if (await this.#lifetime.terminate(record!, lock, request)) return { is: 'terminated', record: record! }
      return { is: 'refused', refusal: new Refusal('part-needed') }
    })
  }

  async #read(id: string, request: Pick<UploadRequest, 'asker'>): Promise<Outcome> {
    const record = await this.bytes.look(id)
    const refusal =
      (await this.#refuseAbsent(record, request)) ?? refuseRead(record!, this.settings.serveUnfinished)
    return refusal ? { is: 'refused', refusal } : { is: 'readable', record: record! }
  }

  /**
   * Runs `work` when nobody else runs it under this name, on any server; else does nothing, and says false. Who does it is
   * not asked to stop, and nobody waits. False while locks cannot be had, too: who keeps them says so.
   */
  async alone(
    name: string,
    signal: AbortSignal,
    work: (isHeld: () => boolean) => Promise<void>,
  ): Promise<boolean> {
    // Hidden names are no ids: this can not be the lock of an upload.
    const acquiring = this.#locker.acquire(`.${name}`, { timeoutMs: 0, signal })
    const lock = await acquiring.catch((error: unknown) => {
      if (error instanceof LockError) return undefined
      throw error
    })
    if (lock === undefined) return false
    try {
      await work(() => lock.isHeld())
    } finally {
      await lock.release()
    }
    return true
  }

  /** Removes an upload that has expired, under the lock. False when it has not, or is gone already. */
  expire(id: string, now: number): Promise<boolean> {
    return this.#lifetime.expire(id, now)
  }

  #letGo(hold: Pick<UploadHold, 'drain'>): void {
    this.#holds.delete(hold)
    this.meter.held = this.#holds.size
    if (this.#holds.size === 0) this.#onIdle?.()
  }

  #refuseWhileDraining(): Refusal | undefined {
    return this.isDraining ? new Refusal('unavailable', { retryAfterS }) : undefined
  }

  async #refuseAppend(
    record: UploadRecord | undefined,
    command: AppendCommand,
    maxBytes: number,
    request: UploadRequest,
  ): Promise<Refusal | undefined> {
    return (
      this.#refuseWhileDraining() ??
      (await this.#refuseAbsent(record, request)) ??
      refuseAppend(record!, command, maxBytes)
    )
  }

  /** What belongs to somebody else is as absent as what never was. */
  async #refuseAbsent(
    record: UploadRecord | undefined,
    { asker }: Pick<UploadRequest, 'asker'>,
  ): Promise<Refusal | undefined> {
    const shown = record && isShownTo(asker, record.head) ? record : undefined
    return this.#lifetime.refuseAbsent(shown, this.now())
  }

  #offsetOf(record: UploadRecord): Outcome {
    return { is: 'offset', record, expiresAt: expiresAt(record, this.settings.expiry) }
  }

  /** Somebody wanted the running upload to end and to be gone. Anything else that failed leaves it as it is. */
  async #removeUnwanted(error: unknown, hold: UploadHold, lock: Lock, request: UploadRequest): Promise<void> {
    if (!request.stopping?.aborted || error !== request.stopping.reason) return
    const record = hold.kept
    hold.forgetRecord()
    await hold.close()
    if (await this.#lifetime.terminate(record, lock, request)) this.teller.tell('terminated', record, request)
    throw error
  }

  /** Bytes that failed their checksum are not kept, but the upload stands and is to be filled anew. */
  #createdEmpty(hold: UploadHold, id: string, refusal: Refusal): Refusal {
    hold.keepRecord()
    return new Refusal(refusal.code, { detail: refusal.message, offset: 0, createdId: id, cause: refusal })
  }

  async #settle(purpose: 'append' | 'ask', work: () => Promise<Outcome>): Promise<Outcome> {
    try {
      const outcome = await work()
      if (outcome.is === 'created' || outcome.is === 'appended') this.#concat?.received(outcome.record)
      return outcome
    } catch (error) {
      const isClientGone = error instanceof LockError && error.code === 'aborted' && !this.isDraining
      return isClientGone ? { is: 'cut', record: undefined, why: 'client-gone' } : outcomeOf(error, purpose)
    }
  }

  /** Runs `work` as the one holder of an upload; lets go of everything whatever happens. */
  async #holding(
    id: string,
    request: UploadRequest,
    work: (hold: UploadHold, lock: Lock) => Promise<Outcome>,
  ): Promise<Outcome> {
    const hold = new UploadHold(this, id)
    const draining = this.#draining.signal
    this.meter.held = this.#holds.add(hold).size
    const askedAt = performance.now()
    let isUnlocked = true
    try {
      const lock = await (request.locker ?? this.#locker).acquire(id, {
        timeoutMs: this.settings.acquireLockTimeoutMs,
        // Only asked for when there is somebody to wait for.
        get signal() {
          return draining.aborted ? request.signal : AbortSignal.any([request.signal, draining])
        },
        onWanted: () => hold.onWanted(),
      })
      isUnlocked = false
      this.meter.locked(performance.now() - askedAt, lock.isTakeOver)
      hold.begin(lock)
      if (this.isDraining) hold.drain()
      return await work(hold, lock)
    } finally {
      if (isUnlocked) this.meter.lockWaits.add(performance.now() - askedAt)
      await hold.release()
      this.#letGo(hold)
    }
  }
}

/** Who sent it knows it by a name, and can go on; what was too large never fits. */
function isWorthKeeping({ mark }: UploadRecord, error: unknown): boolean {
  const isTooLarge = error instanceof Refusal && error.status === 413
  return mark.state === 'open' && mark.offset > 0 && !isTooLarge
}
