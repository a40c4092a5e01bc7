/**
 * Puts away what nobody will come back for: expired uploads, found by the records' index, and what creations and
 * removals that were cut off left behind. Now and then it walks through all uploads, because an index may be lost or
 * old, and makes every record say again what its mark says.
 *
 * Of all servers one sweeps at a time, by a lock that it is never asked to give up; the others look again in their next
 * round. When a walk is due is read from the records, so one walk serves all. Whatever is removed is so under its own lock.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { LockError, StoreError, type Walk } from '../../stores/contracts.ts'
import type { UploadEngine } from './engine.ts'
import { QuotaUpkeep } from './quota-upkeep.ts'
import { halfDoneForMs } from './rules.ts'

const expiredAtOnce = 100
const walkEveryMs = 24 * 3_600_000
/** The walk rests after so many uploads, so that it never competes with them. */
const walkStride = 50
const walkRestMs = 20

const urgentEveryMs = 5_000

/** Whether a sweep may go on: it has its lock. */
type MayGoOn = () => boolean

export class Sweeper {
  readonly #engine: UploadEngine
  readonly #everyMs: number
  readonly #quotas: QuotaUpkeep | undefined
  readonly #closing = new AbortController()
  #running: Promise<void> | undefined
  /** A walk that began before this does not count. */
  #walkSince = Number.NEGATIVE_INFINITY
  #wake: AbortController | undefined
  /** There may be much to do, and nobody may have done it: the way to it is tried more often. */
  #isUrgent = true

  constructor({ engine, everyMs }: { engine: UploadEngine; everyMs: number }) {
    this.#engine = engine
    this.#everyMs = everyMs
    const { quotas, bytes, now } = engine
    this.#quotas = quotas && new QuotaUpkeep({ quotas, bytes, now })
  }

  /** Sweeps now and then until `close`. */
  start(): void {
    if (this.#running) return
    // Whoever was here before may have been killed between a mark and its record.
    this.#walkSince = this.#engine.now()
    this.#running = this.#run()
  }

  /** Walks at once, or lets another server do it: records that this one should have put are missing. */
  walkSoon(): void {
    this.#walkSince = this.#engine.now()
    this.sweepSoon()
  }

  /** Looks at once whether there is something to do: the records may have been lost. */
  sweepSoon(): void {
    this.#isUrgent = true
    this.#wake?.abort()
  }

  /** Ends the sweep that is running at its next upload, and returns when it has ended. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#running
  }

  /** Removes uploads that expired at or before `now`; returns how many. */
  async sweepExpired(now: number, mayGoOn: MayGoOn = always): Promise<number> {
    const { records } = this.#engine
    let removed = 0
    for (;;) {
      const ids = (await records?.expiring(now, expiredAtOnce)) ?? []
      let moved = 0
      for (const id of ids) {
        if (this.#isOver(mayGoOn)) return removed + moved
        if (await this.#visit(id, now)) moved++
      }
      removed += moved
      // What is left could not be removed now (somebody holds it); it stays in the index for the next time.
      if (ids.length < expiredAtOnce || moved === 0) return removed
    }
  }

  /** Puts right what the ledger of quotas says of uploads at which nobody has looked for a while. */
  async lookAtDueQuotas(now: number, mayGoOn: MayGoOn = always): Promise<void> {
    await this.#quotas?.lookAtDue(now, () => !this.#isOver(mayGoOn))
  }

  /**
   * Looks at every upload: corrects its record, removes it when it has expired, and removes what is left over. Then at
   * every record: one whose upload is gone came back with an older state of the records, or
   * was never made.
   */
  async walk(now: number, mayGoOn: MayGoOn = always): Promise<{ removed: number; orphans: number }> {
    const { bytes, records } = this.#engine
    let removed = 0
    let seen = 0
    for await (const record of bytes.walk()) {
      if (this.#isOver(mayGoOn)) return { removed, orphans: 0 }
      if (await this.#visit(record.head.id, now)) removed++
      if (++seen % walkStride === 0) await this.#rest(walkRestMs)
    }
    for await (const id of records?.ids() ?? []) {
      if (this.#isOver(mayGoOn)) return { removed, orphans: 0 }
      if ((await bytes.look(id)) === undefined) await this.#visit(id, now)
      if (++seen % walkStride === 0) await this.#rest(walkRestMs)
    }
    await this.#quotas?.walk(
      () => !this.#isOver(mayGoOn),
      async () => {
        if (++seen % walkStride === 0) await this.#rest(walkRestMs)
      },
    )
    if (this.#isOver(mayGoOn)) return { removed, orphans: 0 }
    return { removed, orphans: await bytes.sweepOrphans(halfDoneForMs) }
  }

  /** What passes for all uploads ends the sweep, or it would be told of each. */
  async #visit(id: string, now: number): Promise<boolean> {
    try {
      return await this.#engine.expire(id, now)
    } catch (error) {
      if (isForAll(error)) throw error
      this.#engine.report({ is: 'sweep-failed', error })
      return false
    }
  }

  async #run(): Promise<void> {
    while (!this.#isOver(always)) {
      this.#wake = new AbortController()
      try {
        const wasUrgent = this.#isUrgent
        this.#isUrgent = false
        const isDone = await this.#engine.alone('sweep', this.#closing.signal, (isHeld) =>
          this.#sweep(isHeld),
        )
        this.#isUrgent ||= wasUrgent && !isDone
      } catch (error) {
        if (!this.#engine.isDraining) this.#engine.report({ is: 'sweep-failed', error })
      }
      const everyMs = this.#isUrgent ? Math.min(urgentEveryMs, this.#everyMs) : this.#everyMs
      await this.#rest(everyMs, this.#wake.signal)
    }
  }

  async #sweep(isHeld: MayGoOn): Promise<void> {
    const { records, meter } = this.#engine
    meter.sweeps++
    const walk = { at: this.#engine.now(), epoch: records?.epoch ?? '' }
    if (!isWalkDue(walk, await records?.lastWalk(), this.#walkSince)) {
      await this.sweepExpired(walk.at, isHeld)
      await this.lookAtDueQuotas(walk.at, isHeld)
      return
    }
    meter.walks++
    await this.walk(walk.at, isHeld)
    if (!this.#isOver(isHeld)) await records?.noteWalk(walk)
  }

  #isOver(mayGoOn: MayGoOn): boolean {
    return this.#closing.signal.aborted || !mayGoOn()
  }

  async #rest(ms: number, wake?: AbortSignal): Promise<void> {
    const signal = wake ? AbortSignal.any([this.#closing.signal, wake]) : this.#closing.signal
    await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined)
  }
}

/** Whether it is time for this walk: the last one was for records that were lost, began before `since`, or a day ago. */
export function isWalkDue(walk: Walk, last: Walk | undefined, since: number): boolean {
  if (last === undefined || last.epoch !== walk.epoch) return true
  return last.at < since || walk.at - last.at >= walkEveryMs
}

/** Redis or the folder is away, or the server is being stopped. */
function isForAll(error: unknown): boolean {
  return (
    (error instanceof LockError && (error.code === 'unavailable' || error.code === 'aborted')) ||
    (error instanceof StoreError && error.code === 'unavailable')
  )
}

function always(): boolean {
  return true
}
