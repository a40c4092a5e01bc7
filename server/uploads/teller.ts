/**
 * Tells who wants to know what happened to uploads: each at least once, in order for one upload, under an id that stays
 * the same. The event is noted before it becomes true, and the note goes when everybody was told; what a server leaves
 * untold, because it died or because nobody listened, any other server tells.
 */
import {
  type Appender,
  type ByteStore,
  type EventKind,
  type Locker,
  type Note,
  type Now,
  type Outbox,
  StoreError,
  type UploadEvent,
  type UploadHead,
  type UploadRecord,
} from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'
import { type Audience, eventIdOf, eventOf, type TellerEvent } from './audience.ts'
import { asLockOrNothing, eventsLock } from './hidden-locks.ts'
import { isPart } from './kin.ts'
import { newRecord } from './rules.ts'
import { Slots } from './slots.ts'
import { truthOf } from './truth.ts'
import type { UploadRequest } from './upload-request.ts'

export interface TellerOptions {
  readonly bytes: ByteStore
  readonly locker: Locker
  readonly audiences: readonly Audience[]
  readonly draining: AbortSignal
  readonly report: (event: TellerEvent) => void
  readonly now: Now
  readonly meter?: Meter
}

/** Who is still to be told of an event, and how often that failed. */
type Telling = Pick<Note, 'event' | 'waiting' | 'failures' | 'since'>

/** The order in which the events of one upload are told. */
const kinds: readonly EventKind[] = ['created', 'finished', 'terminated']
const roundEveryMs = 5_000
/** So long other servers leave an event to the one that made it true. */
const ownForMs = 30_000
const lookAgainMs = 60_000
const longestBackoffMs = 3_600_000
/** So long a server that is being stopped waits for those who are being told. */
const graceMs = 3_000
/** Uploads whose events are told at a time. */
const atOnce = 16

/** How long to wait after so many failures. */
export function backoffMs(failures: number): number {
  if (failures === 0) return 0
  return Math.min(roundEveryMs * 2 ** (failures - 1), longestBackoffMs)
}

export class Teller {
  readonly #options: TellerOptions
  readonly #outbox: Outbox | undefined
  readonly #now: Now
  readonly #slots = new Slots(atOnce)
  /** Of each upload: what is being told now. */
  readonly #telling = new Map<string, Promise<void>>()
  /** When a note is worth another look. */
  readonly #lookAt = new Map<string, number>()
  readonly #givingUp = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #round: Promise<void> | undefined

  constructor(options: TellerOptions) {
    this.#options = options
    this.#outbox = options.bytes.outbox
    this.#now = options.now
  }

  /** Tells what earlier processes left, and goes on looking for such things. */
  start(): void {
    if (this.#outbox === undefined) return
    this.#timer ??= setInterval(() => void this.tellWaiting(), roundEveryMs).unref()
    void this.tellWaiting()
  }

  /** Returns when nothing is being told any more. What was not told in a few seconds, others tell. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    this.#timer = undefined
    const grace = setTimeout(() => this.#givingUp.abort(), graceMs)
    await this.#round
    while (this.#telling.size > 0) await Promise.all(this.#telling.values())
    clearTimeout(grace)
  }

  /** Creates an upload, which is noted before. */
  async creating(
    head: UploadHead,
    length: number | undefined,
    bytes: ByteStore,
    request?: UploadRequest,
  ): Promise<Appender> {
    const record = newRecord(head, length)
    await this.note('created', record, request)
    try {
      const appender = await bytes.create(head, length)
      if (this.#options.meter) this.#options.meter.created++
      return appender
    } catch (error) {
      await this.#takeBack('created', record)
      throw error
    }
  }

  /**
   * Finishes an upload, which is noted before. Under its lock. What fails may have come true all the same: a successor
   * that claimed the upload finds it finished. So the note is anybody's then, and the mark says whether it is told.
   */
  async finishing(
    record: UploadRecord,
    finish: () => Promise<UploadRecord>,
    request?: UploadRequest,
  ): Promise<UploadRecord> {
    await this.note('finished', record, request)
    try {
      const finished = await finish()
      if (this.#options.meter) this.#options.meter.finished++
      return finished
    } catch (error) {
      await this.#giveUp('finished', record).catch(() => undefined)
      throw error
    }
  }

  /** Removes an upload, which is noted before. Under its lock. */
  async terminating(
    record: UploadRecord,
    remove: () => Promise<void>,
    request?: UploadRequest,
  ): Promise<void> {
    await this.beforeRemoval(record)
    await this.note('terminated', record, request)
    try {
      await remove()
      if (this.#options.meter) this.#options.meter.terminated++
    } catch (error) {
      // Any other failure may have come after the end of the upload.
      if (error instanceof StoreError && error.code === 'superseded')
        await this.#takeBack('terminated', record)
      throw error
    }
  }

  /** Whether anybody wants to be told of this. */
  isHeard(kind: EventKind): boolean {
    return this.#options.audiences.some((audience) => audience.hears(kind))
  }

  /** To be called before the thing becomes true, under the lock of the upload. */
  async note(kind: EventKind, record: UploadRecord, request?: UploadRequest): Promise<void> {
    const hearing = this.#hearing(kind, record)
    if (hearing.length === 0 || this.#outbox === undefined) return
    const now = this.#now()
    await this.#outbox.put({
      event: eventOf(kind, record, now, hearing, request),
      waiting: hearing.map(({ name }) => name),
      teller: this.#outbox.teller,
      notBefore: now + ownForMs,
      failures: 0,
      isTrue: false,
    })
  }

  /** To be called when the thing is true, by the process that noted it. Returns at once. */
  tell(kind: EventKind, record: UploadRecord, request: UploadRequest): void {
    const hearing = this.#hearing(kind, record)
    if (hearing.length === 0) return
    const event = eventOf(kind, record, this.#now(), hearing, request)
    const waiting: string[] = []
    for (const audience of hearing) {
      if (audience.isImmediate) void this.#tellOne(audience, event, 1, request)
      else waiting.push(audience.name)
    }
    this.#inTurn(record.head.id, async () => {
      // What was to be told before this, and could not be, is told before this.
      const told = { event, waiting, failures: 0 }
      if (waiting.length > 0 && (await this.#isBehindAnother(event))) await this.#keep(told)
      else await this.#tellAll(told, request)
    })
  }

  /** To be called before an upload is removed, under its lock: what is true of it can not be seen afterwards. */
  async beforeRemoval(record: UploadRecord): Promise<void> {
    if (this.#outbox === undefined) return
    const { state } = record.mark
    for (const kind of ['created', ...(state === 'finished' ? (['finished'] as const) : [])] as const) {
      if (this.#hearing(kind, record).length === 0) continue
      const note = await this.#outbox.get(eventIdOf(kind, record))
      if (note && !note.isTrue) await this.#outbox.put({ ...note, isTrue: true })
    }
  }

  /** One round: tells whatever waits and is due. */
  tellWaiting(): Promise<void> {
    this.#round ??= this.#tellWaiting()
      .catch((error: unknown) => this.#options.report({ is: 'outbox-failed', error }))
      .finally(() => {
        this.#round = undefined
      })
    return this.#round
  }

  async #tellWaiting(): Promise<void> {
    if (!this.#options.audiences.some((audience) => kinds.some((kind) => audience.hears(kind)))) return
    const due = new Map<string, UploadRecord>()
    const ids = await this.#outbox!.list()
    const listed = new Set(ids)
    for (const id of this.#lookAt.keys()) if (!listed.has(id)) this.#lookAt.delete(id)
    for (const id of ids) {
      if (this.#options.draining.aborted) return
      if ((this.#lookAt.get(id) ?? 0) > this.#now()) continue
      const note = await this.#outbox!.get(id)
      if (note === undefined) await this.#outbox!.remove(id)
      else if (this.#isDue(note)) due.set(eventIdOf('created', note.event.record), note.event.record)
      else this.#lookAt.set(id, Math.min(note.notBefore, this.#now() + lookAgainMs))
    }
    await Promise.all([...due.values()].map((record) => this.#tellOneUpload(record)))
  }

  /** A note is its teller's for a while, or until that process is gone. */
  #isDue({ notBefore, teller, failures }: Note): boolean {
    return this.#now() >= notBefore || (failures === 0 && this.#outbox!.isGone(teller))
  }

  async #tellOneUpload(record: UploadRecord): Promise<void> {
    const { locker, draining, report } = this.#options
    await this.#slots
      .use(draining, async () => {
        const lock = await asLockOrNothing(
          locker.acquire(eventsLock(record.head.id), { timeoutMs: 0, signal: draining }),
        )
        if (lock === undefined) return
        try {
          await new Promise<void>((resolve, reject) => {
            this.#inTurn(record.head.id, () => this.#tellInOrder(record).then(resolve, reject))
          })
        } finally {
          await lock.release()
        }
      })
      .catch((error: unknown) => {
        if (!draining.aborted) report({ is: 'outbox-failed', error })
      })
  }

  /** Everything that waits of one upload, up to the first that can not be told now. */
  async #tellInOrder(record: UploadRecord): Promise<void> {
    for (const kind of kinds) {
      const note = await this.#outbox!.get(eventIdOf(kind, record))
      if (note === undefined) continue
      const { event } = note
      const truth = this.#isDue(note) ? await truthOf(note, this.#options.bytes) : 'open'
      if (truth === 'never') await this.#outbox!.remove(event.id)
      else if (truth === 'open') {
        this.#lookAt.set(event.id, Math.max(note.notBefore, this.#now() + lookAgainMs))
        return
      } else if (!(await this.#tellAll(note, undefined))) return
    }
  }

  async #isBehindAnother(event: UploadEvent): Promise<boolean> {
    const earlier = kinds.slice(0, kinds.indexOf(event.kind))
    for (const kind of earlier) {
      if (this.#hearing(kind, event.record).length === 0) continue
      if (await this.#outbox?.get(eventIdOf(kind, event.record))) return true
    }
    return false
  }

  async #giveUp(kind: EventKind, record: UploadRecord): Promise<void> {
    if (this.#outbox === undefined || this.#hearing(kind, record).length === 0) return
    const note = await this.#outbox.get(eventIdOf(kind, record))
    if (note) await this.#outbox.put({ ...note, notBefore: this.#now() })
  }

  /** What was noted did not happen. A note that can not be removed now is dropped, or comes true, later. */
  async #takeBack(kind: EventKind, record: UploadRecord): Promise<void> {
    if (this.#hearing(kind, record).length === 0) return
    await this.#outbox?.remove(eventIdOf(kind, record)).catch(() => undefined)
  }

  /** Whether nobody waits any more: all were told, or given up. */
  async #tellAll(telling: Telling, request: UploadRequest | undefined): Promise<boolean> {
    const { event, waiting, since = this.#now() } = telling
    const failures = telling.failures + 1
    const left: string[] = []
    const givenUp: string[] = []
    for (const name of waiting) {
      // Whom this server does not know, another one may.
      const audience = this.#options.audiences.find((each) => each.name === name && each.hears(event.kind))
      if (audience && (await this.#tellOne(audience, event, failures, request))) continue
      const isGivenUp = audience !== undefined && this.#isOverdue(audience, since)
      ;(isGivenUp ? givenUp : left).push(name)
    }
    if (givenUp.length > 0) await this.#setAside({ event, waiting: givenUp, failures, since })
    if (left.length === 0) {
      await this.#outbox?.remove(event.id)
      this.#lookAt.delete(event.id)
      return true
    }
    await this.#keep({ event, waiting: left, failures, since })
    return false
  }

  /** Who is being stopped has not tried long enough. */
  #isOverdue({ giveUpAfterMs }: Audience, since: number): boolean {
    if (giveUpAfterMs === undefined || this.#outbox === undefined || this.#givingUp.signal.aborted)
      return false
    return this.#now() - since >= giveUpAfterMs
  }

  async #setAside(telling: Telling): Promise<void> {
    const { event, waiting, failures } = telling
    const { teller } = this.#outbox!
    await this.#outbox!.setAside({ ...telling, teller, notBefore: this.#now(), isTrue: true })
    for (const audience of waiting)
      this.#options.report({
        is: 'undelivered',
        ...{ id: event.record.head.id, eventId: event.id, audience, failures },
      })
  }

  /** Leaves an event that is true to a later round, of this server or another. */
  async #keep({ event, waiting, failures, since }: Telling): Promise<void> {
    if (this.#outbox === undefined) return
    const notBefore = this.#now() + backoffMs(failures)
    const { teller } = this.#outbox
    const note = { event, waiting, teller, notBefore, failures, isTrue: true }
    await this.#outbox.put({ ...note, ...(since !== undefined && { since }) })
    this.#lookAt.set(event.id, notBefore)
  }

  async #tellOne(
    audience: Audience,
    event: UploadEvent,
    failures: number,
    request: UploadRequest | undefined,
  ): Promise<boolean> {
    const { signal } = this.#givingUp
    if (signal.aborted) return false
    try {
      await orAborted(audience.tell(event, request, signal), signal)
      return true
    } catch (error) {
      if (signal.aborted) return false
      const { id: eventId, kind, record } = event
      const facts = { id: record.head.id, eventId, kind, audience: audience.name, failures }
      this.#options.report({ is: 'telling-failed', ...facts, error })
      return false
    }
  }

  /** Who is to be told. Of finished parts few are: what was uploaded is their final. */
  #hearing(kind: EventKind, { head }: UploadRecord): Audience[] {
    const isOfPart = kind === 'finished' && isPart(head)
    return this.#options.audiences.filter(
      (audience) => audience.hears(kind) && (!isOfPart || audience.hearsParts),
    )
  }

  /** One thing after the other for one upload. */
  #inTurn(id: string, work: () => Promise<void>): void {
    const before = this.#telling.get(id)
    const running: Promise<void> = (before ? before.then(work) : work())
      .catch((error: unknown) => this.#options.report({ is: 'outbox-failed', error }))
      .finally(() => {
        if (this.#telling.get(id) === running) this.#telling.delete(id)
      })
    this.#telling.set(id, running)
  }
}

async function orAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  let onAbort = () => {}
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason)
  })
  signal.addEventListener('abort', onAbort)
  try {
    await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
