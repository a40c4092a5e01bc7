/**
 * Puts away what nobody will come back for: expired uploads, found by the records' index, and what creations and
 * removals that were cut off left behind. Now and then it walks through all uploads, because an index may be lost or
 * old, and makes every record say again what its mark says.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { UploadEngine } from './engine.ts'

const expiredAtOnce = 100
/** A creation or a removal takes milliseconds; what is half-done for an hour will not be finished. */
const orphanAgeMs = 3_600_000
const walkEveryMs = 24 * 3_600_000
/** The walk rests after so many uploads, so that it never competes with them. */
const walkStride = 50
const walkRestMs = 20

export class Sweeper {
  readonly #engine: UploadEngine
  readonly #everyMs: number
  readonly #closing = new AbortController()
  #running: Promise<void> | undefined
  #walkedAt = Number.NEGATIVE_INFINITY
  #wake: AbortController | undefined

  constructor({ engine, everyMs }: { engine: UploadEngine; everyMs: number }) {
    this.#engine = engine
    this.#everyMs = everyMs
  }

  /** Sweeps now and then until `close`. */
  start(): void {
    this.#running ??= this.#run()
  }

  /** Walks at once, because the records may be lost or old. */
  walkSoon(): void {
    this.#walkedAt = Number.NEGATIVE_INFINITY
    this.#wake?.abort()
  }

  /** Ends the sweep that is running at its next upload, and returns when it has ended. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#running
  }

  /** Removes uploads that expired at or before `now`; returns how many. */
  async sweepExpired(now: number): Promise<number> {
    const { records } = this.#engine
    let removed = 0
    for (;;) {
      const ids = (await records?.expiring(now, expiredAtOnce)) ?? []
      let moved = 0
      for (const id of ids) {
        if (this.#closing.signal.aborted) return removed
        if (await this.#visit(id, now)) moved++
      }
      removed += moved
      // What is left could not be removed now (somebody holds it); it stays in the index for the next time.
      if (ids.length < expiredAtOnce || moved === 0) return removed
    }
  }

  /**
   * Looks at every upload: corrects its record, removes it when it has expired, and removes what is left over. Then at
   * every record: one whose upload is gone came back with an older state of the records.
   */
  async walk(now: number): Promise<{ removed: number; orphans: number }> {
    const { bytes, records } = this.#engine
    let removed = 0
    let seen = 0
    for await (const record of bytes.walk()) {
      if (this.#closing.signal.aborted) return { removed, orphans: 0 }
      if (await this.#visit(record.head.id, now)) removed++
      if (++seen % walkStride === 0) await this.#rest(walkRestMs)
    }
    for await (const id of records?.ids() ?? []) {
      if (this.#closing.signal.aborted) return { removed, orphans: 0 }
      if ((await bytes.look(id)) === undefined) await this.#visit(id, now)
      if (++seen % walkStride === 0) await this.#rest(walkRestMs)
    }
    return { removed, orphans: await bytes.sweepOrphans(orphanAgeMs) }
  }

  async #visit(id: string, now: number): Promise<boolean> {
    try {
      return await this.#engine.expire(id, now)
    } catch (error) {
      this.#engine.report({ is: 'sweep-failed', error })
      return false
    }
  }

  async #run(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      try {
        if (performance.now() - this.#walkedAt >= walkEveryMs) {
          this.#walkedAt = performance.now()
          await this.walk(Date.now())
        } else await this.sweepExpired(Date.now())
      } catch (error) {
        this.#engine.report({ is: 'sweep-failed', error })
      }
      this.#wake = new AbortController()
      await this.#rest(this.#everyMs, this.#wake.signal)
    }
  }

  async #rest(ms: number, wake?: AbortSignal): Promise<void> {
    const signal = wake ? AbortSignal.any([this.#closing.signal, wake]) : this.#closing.signal
    await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined)
  }
}
