/**
 * What happens to an upload, whichever dialect asked. Knows offsets, lengths and locks; no headers, no HTTP.
 *
 * The order is always the same: read and refuse first, disturbing nobody; lock; look again; bytes; mark; record and
 * unlock; answer. What was answered is kept, whatever happens to this process afterwards.
 */
import {
  type ByteStore,
  LockError,
  type Locker,
  type Now,
  type RecordStore,
  type UploadRecord,
} from '../../stores/contracts.ts'
import { Meter } from '../../stores/meter.ts'
import { Refusal } from '../errors.ts'
import type { AppendCommand, ConcatCommand, CreateCommand, Outcome } from '../protocol/messages.ts'
import { type Concatenator, concatenatorOf } from './concat.ts'
import { Creations } from './creations.ts'
import { appendNothing } from './empty-append.ts'
import type { EngineEvent } from './engine-event.ts'
import type { EngineParts, EngineSettings } from './engine-parts.ts'
import { checkEntry } from './entry-rules.ts'
import { asLockOrNothing, commonLock } from './hidden-locks.ts'
import type { HoldContext } from './hold.ts'
import { InstantUploads } from './instant.ts'
import { isWaiting } from './kin.ts'
import { Lifetime } from './lifetime.ts'
import { answerOf, outcomeOf, retryAfterS } from './outcomes.ts'
import { Pulse } from './pulse.ts'
import type { Quotas } from './quotas.ts'
import { expiresAt, refuseAppend, refuseRead } from './rules.ts'
import { RunningHolds } from './running-holds.ts'
import { Teller } from './teller.ts'
import { isShownTo, type UploadRequest } from './upload-request.ts'
import { WholeHashes } from './whole-hash.ts'

export type { EngineParts, EngineSettings } from './engine-parts.ts'

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
  readonly #holds: RunningHolds
  readonly #creations: Creations

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
    this.#holds = new RunningHolds(this, locker)
    const { draining } = this.#holds
    this.teller = new Teller({ bytes, locker, audiences, draining, report, now, meter })
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
    this.#creations = new Creations({
      ...{ bytes, records, settings, meter, report, now, locker, quotas },
      ...{ teller: this.teller, hashes: this.hashes, holds: this.#holds, lifetime: this.#lifetime },
      instant: new InstantUploads({ bytes, records, settings, pulse, draining, report }),
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
    return this.#holds.draining
  }

  get isDraining(): boolean {
    return this.#holds.draining.aborted
  }

  /** Takes nothing new, ends running bodies at their last byte, and returns when every upload was let go. */
  async drain(): Promise<void> {
    this.quotas?.drain()
    await this.#holds.drain()
    await this.#concat?.assemblies.drained()
  }

  create(command: CreateCommand, request: UploadRequest): Promise<Outcome> {
    return this.#settle('append', () => {
      const draining = this.#refuseWhileDraining()
      return draining ? { is: 'refused', refusal: draining } : this.#creations.create(command, request)
    })
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

  async #append(command: AppendCommand, request: UploadRequest): Promise<Outcome> {
    const { id } = command
    const maxBytes = await request.maxBytes(id)
    const warm = this.#holds.warm(id)
    const seen = warm?.mark.offset === command.offset ? warm : await this.bytes.look(id)
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
    return this.#holds.appending(id, request, async (hold, lock) => {
      const appender = (await hold.goOn()) ?? (await this.bytes.open(id, () => lock.isHeld()))
      const record = appender?.record ?? (await this.bytes.look(id))
      if (appender) hold.take(appender, 'known')
      const refusal = await this.#refuseAppend(record, command, maxBytes, request)
      if (refusal) return { is: 'refused', refusal }
      if (!appender) return appendNothing(record!, command, request, this)
      const length = command.length ?? record!.mark.length
      const room = this.quotas?.roomOf(record!, request)
      if (room) await hold.within(room, length ?? command.offset + (command.contentLength ?? 0))
      try {
        const filled = await hold.fill({ maxBytes, hasBody, ...command, length }, request)
        return answerOf(filled, 'appended', this.settings.expiry)
      } catch (error) {
        await this.#lifetime.removeUnwanted(error, hold, lock, request)
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
    // Who waits to send would begin after the answer.
    this.quotas?.dismissWaiting(id)
    const answer = async (): Promise<Outcome> => {
      const record = await this.bytes.look(id)
      const refusal = await this.#refuseAbsent(record, request)
      return refusal ? { is: 'refused', refusal } : this.#offsetOf(record!)
    }
    const warm = this.#holds.warm(id)
    if (warm?.mark.generation === seen!.mark.generation) return this.#offsetOf(warm)
    if (this.bytes.wavers) return this.#holds.holding(id, request, answer)
    // A mark only grows: once the holder has let go, whoever comes meanwhile can not make the answer wrong.
    const askedAt = performance.now()
    let hadToWait = true
    try {
      hadToWait = await this.#holds.lockerOf(request).untilFree(id, this.#holds.waitOptions(request))
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
    this.quotas?.dismissWaiting(id)
    return this.#holds.holding(id, request, async (_, lock) => {
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
    const lock = await asLockOrNothing(this.#locker.acquire(commonLock(name), { timeoutMs: 0, signal }))
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

  async #settle(purpose: 'append' | 'ask', work: () => Promise<Outcome> | Outcome): Promise<Outcome> {
    try {
      const outcome = await work()
      if (outcome.is === 'created' || outcome.is === 'appended') this.#concat?.received(outcome.record)
      return outcome
    } catch (error) {
      const isClientGone = error instanceof LockError && error.code === 'aborted' && !this.isDraining
      return isClientGone ? { is: 'cut', record: undefined, why: 'client-gone' } : outcomeOf(error, purpose)
    }
  }
}
