/**
 * One request's hold on one upload, from the lock to the release. It answers for the order of the end: the last write
 * has returned, the mark is moved, the files are let go, the record is put, or is sure to be, and the lock given up; only
 * then the answer.
 */
import type { Adoption, Appender, Digest, Lock, RecordStore, UploadRecord } from '../../stores/contracts.ts'
import { StoreError } from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'
import { Refusal } from '../errors.ts'
import { type Ended, Receiver, type ReceiverOptions, type StopReason } from './byte-path.ts'
import { type RunningDigest, startDigest, verifyChecksum } from './digest.ts'
import type { EngineSettings } from './engine.ts'
import type { EngineEvent } from './engine-event.ts'
import { type Filled, type FillPlan, lengthOf, mayReachEnd } from './fill-plan.ts'
import { bodyAtHand, digestsOf, takeBody, writeWithin } from './intake.ts'
import { isPart } from './kin.ts'
import type { Pulse } from './pulse.ts'
import type { QuotaRoom } from './quota-room.ts'
import type { Quotas } from './quotas.ts'
import { expiresAt } from './rules.ts'
import type { Teller } from './teller.ts'
import type { UploadRequest } from './upload-request.ts'
import type { WholeHash, WholeHashes } from './whole-hash.ts'

/** What holds share: the parts of the engine that they need. */
export interface HoldContext {
  readonly records: RecordStore | undefined
  readonly settings: EngineSettings
  readonly pulse: Pulse
  readonly meter: Meter
  readonly teller: Teller
  readonly quotas?: Quotas | undefined
  readonly hashes: WholeHashes
  readonly report: (event: EngineEvent) => void
}

type Keep = (appender: Appender) => boolean

/** Somebody who took an upload over and is receiving keeps it this long, or two clients would only displace each other. */
const protectedMs = 1000

export class UploadHold {
  readonly id: string
  #lock: Lock | undefined
  readonly #context: HoldContext
  #appender: Appender | undefined
  /** Whether the upload has a record, and is in the lists. */
  #isListed = false
  #receiver: Receiver | undefined
  #digest: RunningDigest | undefined
  /** Of the whole upload, where that is wished. */
  #whole: WholeHash | undefined
  #heldSince: number
  #isTakeOver = true
  #stop: StopReason | undefined
  #stopTimer: NodeJS.Timeout | undefined
  #room: QuotaRoom | undefined
  /** Why the upload is to be removed. */
  #unwanted: unknown
  /** What the record store is told when the lock is given up. */
  #record: UploadRecord | undefined
  /** What stayed open since the last request, until it is known to be good. */
  #stayed: Appender | undefined
  /** Takes what is left open for the next request; false where that can not be. */
  readonly #keep: Keep | undefined
  /** Whether its files are to be left open. */
  #stays = false

  constructor(context: HoldContext, id: string, keep?: Keep) {
    this.#context = context
    this.id = id
    this.#keep = keep
    this.#heldSince = context.pulse.now()
  }

  /** From here on the upload is this request's; `stayed` is what another one left open. */
  begin(lock: Lock, stayed?: Appender): void {
    this.#lock = lock
    this.#isTakeOver = lock.isTakeOver && stayed === undefined
    this.#stayed = stayed
    this.#heldSince = this.#context.pulse.now()
  }

  /** What another request left open, when it can be gone on with. */
  async goOn(): Promise<Appender | undefined> {
    const stayed = this.#stayed
    this.#stayed = undefined
    if (stayed === undefined) return undefined
    const isGood = await stayed.goOn!().catch(() => false)
    // Nobody waited for this to be put.
    if (isGood) this.#record = stayed.record
    else await stayed.close()
    return isGood ? stayed : undefined
  }

  /** Takes over the files that this hold writes to, and closes. */
  take(appender: Appender, upload: 'new' | 'known'): void {
    this.#appender = appender
    this.#isListed = upload === 'known'
    if (appender.rewound) this.#context.report({ is: 'rewound', id: this.id, ...appender.rewound })
  }

  /** Has the upload grow no further than there is room, and at once to `bytes`; refuses when there is less. */
  async within(room: QuotaRoom | undefined, bytes = 0): Promise<void> {
    this.#room = room
    await room?.reserve(bytes)
  }

  /** The upload as it stands on disk. */
  get kept(): UploadRecord {
    return this.#appender!.record
  }

  /** Has the record of the upload put as it stands on disk. */
  keepRecord(): void {
    this.#record = this.kept
  }

  /** Nothing of the upload is left, so nothing is put, and no room kept. */
  forgetRecord(): void {
    this.#record = undefined
    this.#room = undefined
  }

  drain(): void {
    this.#stopWith('drain')
  }

  /** Somebody else wants the upload: at once, unless this one has just taken it over and is about to receive, or receiving. */
  onWanted(): void {
    const now = this.#context.pulse.now()
    const lastByteAt = this.#receiver?.lastByteAt ?? this.#heldSince
    const isProtected = this.#isTakeOver && now - lastByteAt < protectedMs
    const waitMs = isProtected ? this.#heldSince + protectedMs - now : 0
    if (waitMs <= 0) this.#stopWith('displaced')
    else this.#stopTimer ??= setTimeout(() => this.#stopWith('displaced'), waitMs)
  }

  /** Receives the body, moves the mark to what came of it, and finishes the upload when that was the last byte. */
  async fill(plan: FillPlan, request: UploadRequest): Promise<Filled> {
    const appender = this.#appender!
    this.#whole = this.#context.hashes.begin(appender)
    const ended: Ended = plan.hasBody
      ? await this.#receive(appender, plan, request)
      : { why: 'complete', offset: plan.offset }
    if (!this.#lock!.isHeld())
      throw new StoreError('superseded', 'the lock was lost while the body was received')
    if (ended.why === 'overflow') return { why: 'overflow', record: appender.record }
    if (ended.why === 'stopped' && ended.reason === 'unwanted') return this.#filled(ended, appender.record)
    // What can not be verified is not kept: it stands behind the mark, and the next request writes over it.
    if (plan.checksum && ended.why !== 'complete') return this.#filled(ended, appender.record)
    if (plan.checksum)
      await verifyChecksum(plan.checksum, this.#digest, appender, [plan.offset, ended.offset])
    const hasMoved = ended.offset > plan.offset
    if (hasMoved) this.#context.meter.marks++
    if (ended.offset !== plan.length) {
      const stays = ended.why === 'complete' && this.#mayStay(appender)
      this.#record = await appender.commit({ offset: ended.offset, ...lengthOf(plan), last: !stays })
      this.#stays = stays
      if (hasMoved) request.received(this.#record, true)
      return this.#filled(ended, this.#record)
    }
    if (hasMoved) request.received(wholeOf(appender.record, plan.length), true)
    const digest = this.#whole && (await this.#verifyWhole(this.#whole, appender, plan.length))
    if (digest === 'unknown') {
      await this.#keepForAnotherTry(appender, plan.length)
      return this.#filled({ why: 'stopped', reason: this.#stop!, offset: plan.offset }, appender.record)
    }
    this.#record = await this.#finish(appender, plan.length, digest, request)
    return this.#filled(ended, this.#record)
  }

  /** Finishes the upload with bytes that another one has. */
  async adopt(adoption: Adoption, { mark }: UploadRecord, request: UploadRequest): Promise<Filled> {
    const { length, digest } = mark
    let isTried = false
    const seal = () => {
      isTried = true
      return adoption.finish(() => this.#lock!.isHeld())
    }
    try {
      this.#record = await this.#finish(this.#appender!, length!, digest, request, seal)
      return { why: 'complete', record: this.#record }
    } finally {
      if (!isTried) await adoption.discard()
    }
  }

  /** Lets go of the files; safe to call twice. */
  async close(): Promise<void> {
    clearTimeout(this.#stopTimer)
    const whole = this.#whole
    this.#whole = undefined
    if (whole) await whole.stop()
    await this.#stayed?.close()
    if (!this.#stays) await this.#appender?.close()
    if (whole) this.#context.hashes.keep(whole, this.kept)
  }

  /** What a client sends by pieces under an URL; whoever looks for a name wants to know whether somebody writes. */
  #mayStay(appender: Appender): boolean {
    const isWished = this.#keep !== undefined && this.#lock!.mayStay === true && !this.#context.quotas
    return isWished && appender.mayStay === true && appender.record.head.dialect === 'tus'
  }

  /** Lets go of files and lock, or leaves them open for the next request. Never throws. */
  async release(): Promise<void> {
    await this.close()
    const lock = this.#lock
    if (lock === undefined) return
    if (this.#context.quotas) await this.#settleQuotas(this.#context.quotas, lock)
    const isKept = this.#stays && this.#keep!(this.#appender!)
    if (this.#stays && !isKept) await this.#appender!.close()
    try {
      if (this.#record) await this.#putRecord(this.#record, lock, isKept)
    } catch (error) {
      this.#copyFailed(error)
    } finally {
      if (!isKept) await lock.release()
    }
  }

  async #putRecord(record: UploadRecord, lock: Lock, isKept: boolean): Promise<void> {
    const at = expiresAt(record, this.#context.settings.expiry)
    if (isKept && lock.checkpoint) lock.checkpoint(record, at)
    else if (!isKept && lock.commitAndRelease) await lock.commitAndRelease(record, at)
    else await this.#copy(record, at)
  }

  /** Who asks for a list looks at the marks, so nobody waits for the copy of what is listed; but digests are looked up in an index. */
  async #copy(record: UploadRecord, expiresAt: number | undefined): Promise<void> {
    const { records } = this.#context
    const isFound = this.#isListed && record.mark.digest === undefined
    if (!isFound || !records?.putSoon) await records?.put(record, expiresAt)
    else records.putSoon(record, expiresAt).catch((error: unknown) => this.#copyFailed(error))
  }

  /** The mark is the truth and was written; a record that is missing or old is put right later. */
  #copyFailed(error: unknown): void {
    this.#context.report({ is: 'record-failed', id: this.id, error })
  }

  /** Under the lock: nobody can say something newer before. */
  async #settleQuotas(quotas: Quotas, lock: Lock): Promise<void> {
    if (this.#record && this.#record.mark.state !== 'open') await quotas.ended(this.#record)
    else if (this.#appender && lock.isHeld()) await this.#room?.giveBack(this.#appender.record)
  }

  #filled(ended: Exclude<Ended, { why: 'overflow' }>, record: UploadRecord): Filled {
    if (ended.why === 'failed') throw ended.error
    if (ended.why !== 'stopped') return { why: ended.why, record }
    if (ended.reason === 'lease-lost')
      throw new StoreError('superseded', 'the lock was lost while the body was received')
    if (ended.reason === 'unwanted') throw this.#unwanted
    if (ended.reason === 'displaced')
      this.#context.report({ is: 'displaced', id: this.id, offset: record.mark.offset })
    return { why: ended.reason, record }
  }

  async #receive(appender: Appender, plan: FillPlan, request: UploadRequest): Promise<Ended> {
    const { settings, pulse, meter } = this.#context
    if (this.#stop) return { why: 'stopped', reason: this.#stop, offset: plan.offset }
    const lock = this.#lock!
    if (plan.checksum && !('is' in plan.checksum)) this.#digest = startDigest(plan.checksum.algorithm)
    // So who sends the rest does not wait for the hash at its end.
    if (mayReachEnd(plan)) this.#whole?.catchUp()
    const source = request.body()
    const hasOwnPieces = request.hasOwnPieces?.(source) === true
    const freesPieces = appender.keepsNoBuffers === true && hasOwnPieces
    const write = this.#writeTo(appender)
    const digests = digestsOf(this.#digest, this.#whole)
    const body = bodyAtHand(plan, request)
    if (body) return takeBody(body, plan.offset, { write, ...digests, freesPieces, meter })
    const receiver = new Receiver({
      source,
      pulse,
      offset: plan.offset,
      endLimit: plan.length ?? plan.maxBytes,
      write,
      freesPieces,
      ...(!plan.checksum && {
        checkpoint: (offset: number) => this.#checkpoint(appender, offset, plan, request),
      }),
      ...digests,
      idleMs: settings.idleMs,
      leastBytesPerSecond: settings.leastBytesPerSecond,
    })
    this.#receiver = receiver
    const counted = meter.bodyBegins(receiver)
    const onLost = () => receiver.stop('lease-lost')
    const onUnwanted = () => {
      this.#unwanted = stopping?.reason
      receiver.stop('unwanted')
    }
    const { stopping } = request
    lock.lost.addEventListener('abort', onLost)
    stopping?.addEventListener('abort', onUnwanted)
    if (lock.lost.aborted) onLost()
    try {
      return await receiver.done
    } finally {
      lock.lost.removeEventListener('abort', onLost)
      stopping?.removeEventListener('abort', onUnwanted)
      meter.bodyEnds(counted)
    }
  }

  /** Moves the mark while the body is running. It reaches the length only by finishing. */
  async #checkpoint(
    appender: Appender,
    offset: number,
    plan: FillPlan,
    request: UploadRequest,
  ): Promise<void> {
    const lock = this.#lock!
    if (offset === plan.length || !lock.isHeld()) return
    const record = await appender.commit({ offset, ...lengthOf(plan) })
    this.#context.meter.marks++
    request.received(record)
    if (request.mayGoOn?.() === false) this.#stopWith('unauthorized')
    const at = expiresAt(record, this.#context.settings.expiry)
    if (lock.checkpoint) lock.checkpoint(record, at)
    else this.#copy(record, at).catch((error: unknown) => this.#copyFailed(error))
  }

  #writeTo(appender: Appender): ReceiverOptions['write'] {
    const whole = this.#whole
    const write: ReceiverOptions['write'] = this.#room
      ? writeWithin(this.#room, appender)
      : (buffers, position) => appender.write(buffers, position)
    if (whole === undefined) return write
    return async (buffers, position) => {
      await write(buffers, position)
      whole.wrote()
    }
  }

  /** What all bytes hash to, where that is wished. What was declared as something else fails for good. */
  async #verifyWhole(
    whole: WholeHash,
    appender: Appender,
    length: number,
  ): Promise<Digest | 'unknown' | undefined> {
    const isStopped = () => this.#stop !== undefined || !this.#lock!.isHeld()
    const digest = await whole.digest(length, isStopped)
    if (!this.#lock!.isHeld()) throw new StoreError('superseded', 'the lock was lost before the finish')
    if (digest === undefined) return 'unknown'
    const declared = appender.record.head.digest
    if (declared === undefined || declared.base64 === digest.base64) return digest
    this.#record = await appender.fail()
    throw new Refusal('digest-mismatch')
  }

  async #finish(
    appender: Appender,
    length: number,
    digest: Digest | undefined,
    request: UploadRequest,
    seal?: () => Promise<UploadRecord>,
  ): Promise<UploadRecord> {
    const { record } = appender
    const mark = { ...record.mark, offset: length, length, ...(digest && { digest }) }
    const whole = { ...record, mark }
    try {
      const asked = request.reauthorize()
      if (asked) await asked
      if (isPart(record.head)) await request.beforePartFinish?.(whole)
      else await request.beforeFinish(whole)
    } catch (error) {
      // What is adopted was never written here.
      if (!seal) await this.#keepForAnotherTry(appender, length)
      throw error
    }
    if (!this.#lock!.isHeld()) throw new StoreError('superseded', 'the lock was lost before the finish')
    return this.#context.teller.finishing(whole, seal ?? (() => appender.finish(length, digest)), request)
  }

  /**
   * Whoever asks for the finish again sends one byte, and not all that came with this request: the mark reaches the
   * length only by finishing, but everything before the last byte can count.
   */
  async #keepForAnotherTry(appender: Appender, length: number): Promise<void> {
    const offset = length - 1
    if (!this.#lock!.isHeld() || appender.record.mark.offset >= offset) return
    try {
      this.#record = await appender.commit({ offset, length, last: true })
    } catch {
      // More has to be sent again; the refusal is what the client is to know.
    }
  }

  #stopWith(reason: StopReason): void {
    this.#stop ??= reason
    this.#receiver?.stop(reason)
  }
}

/** An upload of which all bytes are there, before it is finished. */
function wholeOf({ mark, ...rest }: UploadRecord, length: number): UploadRecord {
  return { ...rest, mark: { ...mark, offset: length, length } }
}
