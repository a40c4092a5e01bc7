/**
 * How a final comes to its bytes, once all its parts are finished: by whoever notices it first, on whichever server, and
 * once. What a server leaves half-done another one goes on with, because nothing but marks and ties says how far it is.
 *
 * Two locks: the one of the assembly, which is never given up for others who would only do the same, and inside it the
 * one of the upload, which is given up at once to who terminates it.
 */
import type {
  Appender,
  ByteStore,
  Concatenation,
  Digest,
  Lock,
  Locker,
  Now,
  UploadRecord,
} from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import { asLockOrNothing, assemblyLock } from './hidden-locks.ts'
import type { HoldContext } from './hold.ts'
import { isPart, isWaiting, type Kin } from './kin.ts'
import { Slots } from './slots.ts'
import type { UploadRequest } from './upload-request.ts'

/** A final that waits is looked at again by some sweeper after this long, if nobody finished it before. */
const lookAgainMs = 60_000
/** Assemblies of one process at a time; each holds a buffer and keeps a disk busy. */
const atOnce = 4
/** Who made the final, or asks for it, is told that locks can not be had. */
const unlessUnreachable = { failsWith: 'unavailable' } as const

export interface AssemblyContext extends HoldContext {
  readonly bytes: ByteStore
  readonly locker: Locker
  readonly draining: AbortSignal
  readonly now: Now
  readonly kin: Kin
  readonly ties: Concatenation
  /** Stands in for the request where there is none. */
  readonly ownRequest: (id: string) => UploadRequest
  remove(id: string): Promise<void>
}

export class Assemblies {
  readonly #context: AssemblyContext
  readonly #slots = new Slots(atOnce)
  readonly #running = new Map<string, Promise<UploadRecord | undefined>>()
  readonly #background = new Set<Promise<void>>()

  constructor(context: AssemblyContext) {
    this.#context = context
  }

  /**
   * Finishes a final whose parts are all there; undefined while that can not be done: a part is missing, somebody else
   * is at it, this server is being stopped. `isAnswered`: whether `request` has its answer and must be told apart from it.
   */
  finish(id: string, request: UploadRequest, isAnswered: () => boolean): Promise<UploadRecord | undefined> {
    let running = this.#running.get(id)
    if (running === undefined) {
      running = this.#finish(id, request, isAnswered).finally(() => this.#running.delete(id))
      this.#running.set(id, running)
    }
    return running
  }

  /** The same behind everybody's back, when there is something to do. */
  finishSoon(id: string): void {
    if (this.#context.draining.aborted || this.#running.has(id)) return
    const work = async () => void (await this.finish(id, this.#context.ownRequest(id), () => true))
    this.inBackground(id, work)
  }

  /** Runs what nobody waits for; a drain does. */
  inBackground(id: string, work: () => Promise<void>): void {
    const running = work()
      .catch((error: unknown) => this.#context.report({ is: 'assembly-failed', id, error }))
      .finally(() => this.#background.delete(running))
    this.#background.add(running)
  }

  /** Returns when nothing is running any more. */
  async drained(): Promise<void> {
    while (this.#background.size + this.#running.size > 0)
      await Promise.allSettled([...this.#background, ...this.#running.values()])
  }

  /** Puts the record of an upload, so that a sweeper comes back in time to one that waits. */
  async putRecord(record: UploadRecord, lock?: Lock): Promise<void> {
    const { kin, records, report, now } = this.#context
    try {
      const at = await kin.expiresAt(record)
      const again = isWaiting(record) ? now() + lookAgainMs : undefined
      const next = at === undefined || again === undefined ? (at ?? again) : Math.min(at, again)
      if (lock?.commitAndRelease) await lock.commitAndRelease(record, next)
      else await records?.put(record, next)
    } catch (error) {
      report({ is: 'record-failed', id: record.head.id, error })
    }
  }

  /** Removes a part whose finals are all finished, where parts are to be removed. */
  async removePart(id: string): Promise<boolean> {
    const { bytes, kin, locker, settings, draining } = this.#context
    const lock = await locker.acquire(id, { timeoutMs: settings.acquireLockTimeoutMs, signal: draining })
    try {
      const record = await bytes.look(id)
      if (record === undefined || !isPart(record.head) || record.mark.state !== 'finished') return false
      if (!(await kin.seal(id))) return false
      await this.#context.remove(id)
      return true
    } finally {
      await lock.release()
    }
  }

  /** No lock is taken before all parts are there: so who comes last always finds the way free, or somebody who knows as much. */
  async #finish(
    id: string,
    request: UploadRequest,
    isAnswered: () => boolean,
  ): Promise<UploadRecord | undefined> {
    const seen = await this.#look(id)
    if (seen === undefined || !('parts' in seen)) return seen?.record
    const { settings, draining, locker } = this.#context
    const options = { timeoutMs: settings.acquireLockTimeoutMs, signal: draining }
    const turn = await asLockOrNothing(locker.acquire(assemblyLock(id), options), unlessUnreachable)
    let record: UploadRecord | undefined
    try {
      record = turn && (await this.#finishAlone(id, turn, request))
    } finally {
      await turn?.release()
    }
    if (record === undefined) return (await this.#look(id))?.record
    if (isAnswered()) this.#context.teller.tell('finished', record, request)
    if (this.#context.settings.removeParts) this.inBackground(id, () => this.#removeParts(record.head.parts!))
    return record
  }

  /** The record when this call finished the upload. */
  async #finishAlone(id: string, turn: Lock, request: UploadRequest): Promise<UploadRecord | undefined> {
    const { bytes, locker, settings, draining } = this.#context
    const stop = new AbortController()
    const lock = await asLockOrNothing(
      locker.acquire(id, {
        timeoutMs: settings.acquireLockTimeoutMs,
        signal: draining,
        onWanted: () => stop.abort(),
      }),
      unlessUnreachable,
    )
    if (lock === undefined) return undefined
    const signal = AbortSignal.any([stop.signal, draining, lock.lost, turn.lost])
    const isHeld = () => lock.isHeld() && turn.isHeld()
    let record: UploadRecord | undefined
    try {
      // Another server may have been first.
      const seen = await this.#look(id)
      if (seen === undefined || !('parts' in seen)) return undefined
      if (seen.length > (await request.maxBytes(id))) {
        await this.#context.remove(id)
        throw new Refusal('too-large', {
          detail: 'the parts are more than the largest upload that is accepted here',
        })
      }
      // Of a final that was made before its parts knew their length only the least was counted.
      await this.#context.quotas?.grow(seen.record.head, seen.length, seen.length, request)
      const appender = await bytes.open(id, isHeld)
      if (appender === undefined) return undefined
      record = await this.#fill(appender, seen, request, signal, isHeld)
      return record
    } finally {
      if (record) await this.#context.quotas?.ended(record)
      if (record) await this.putRecord(record, lock)
      await lock.release()
    }
  }

  async #fill(
    appender: Appender,
    { parts, length }: Ready,
    request: UploadRequest,
    signal: AbortSignal,
    isHeld: () => boolean,
  ): Promise<UploadRecord | undefined> {
    const { id } = appender.record.head
    if (appender.rewound) this.#context.report({ is: 'rewound', id, ...appender.rewound })
    try {
      await this.#slots.use(signal, () => this.#context.ties.assemble(appender, parts, signal))
      signal.throwIfAborted()
      const { record } = appender
      const digest = await this.#verify(appender, length, signal)
      const whole = { ...record, mark: { ...record.mark, offset: length, length, ...(digest && { digest }) } }
      await request.beforeFinish(whole)
      if (!isHeld()) return undefined
      return await this.#context.teller.finishing(whole, () => appender.finish(length, digest), request)
    } catch (error) {
      if (signal.aborted) return undefined
      throw error
    } finally {
      await appender.close()
    }
  }

  /** What all bytes of a final hash to, where that is wished. What was declared as something else fails for good. */
  async #verify(appender: Appender, length: number, signal: AbortSignal): Promise<Digest | undefined> {
    const whole = this.#context.hashes.begin(appender)
    const digest = await whole?.digest(length, () => signal.aborted)
    signal.throwIfAborted()
    const declared = appender.record.head.digest
    if (declared === undefined || declared.base64 === digest?.base64) return digest
    const failed = await appender.fail()
    await this.#context.quotas?.ended(failed)
    await this.putRecord(failed)
    throw new Refusal('digest-mismatch')
  }

  /** A final, and its parts when it can be made of them now. */
  async #look(id: string): Promise<{ record: UploadRecord } | Ready | undefined> {
    const record = await this.#context.bytes.look(id)
    if (record === undefined || !isWaiting(record)) return record && { record }
    const { records, areFinished, length } = await this.#context.kin.partsOf(record.head.parts!)
    if (!areFinished || length === undefined) return { record }
    return { record, parts: records as UploadRecord[], length }
  }

  async #removeParts(parts: readonly string[]): Promise<void> {
    for (const part of new Set(parts)) await this.removePart(part)
  }
}

interface Ready {
  readonly record: UploadRecord
  readonly parts: readonly UploadRecord[]
  readonly length: number
}
