/**
 * The running requests of this process, as the ledger counts them, and those that wait until one of them has ended. One
 * timer renews all that run, so that those of a server that vanished end by themselves.
 */
import type { Now } from '../../stores/contracts.ts'
import type { Ledger, Run } from '../../stores/ledger.ts'
import { type Waiting, WaitingLine } from './waiting-line.ts'

/** What a request needs in one account. */
export interface Place {
  readonly run: Run
  readonly limit: number
}

export class RunningLeases {
  readonly #ledger: Ledger
  readonly #leaseMs: number
  readonly #now: Now
  readonly #runs = new Set<Run>()
  /** By account. */
  readonly #lines = new Map<string, WaitingLine>()
  /** How many have ended here. */
  #ended = 0
  #isDraining = false
  #timer: NodeJS.Timeout | undefined

  constructor({ ledger, leaseMs, now }: { ledger: Ledger; leaseMs: number; now: Now }) {
    this.#ledger = ledger
    this.#leaseMs = leaseMs
    this.#now = now
  }

  /**
   * Counts a request in all its accounts or in none, at once or as soon as others have ended: then undefined. The place that
   * it could not have, when they have not in time.
   */
  async begin<P extends Place>(places: readonly P[], waiting: Waiting): Promise<P | undefined> {
    let endedBefore = this.#ended
    let missing = this.#whereOthersWait(places) ?? (await this.#askForAll(places))
    while (missing) {
      const { account, id } = missing.run
      const ask = async () => {
        endedBefore = this.#ended
        missing = await this.#askForAll(places)
        // When another place is missing now, it is waited for in that line.
        return missing?.run.account !== account
      }
      const line = this.#lines.get(account) ?? new WaitingLine()
      this.#lines.set(account, line)
      if (this.#isDraining) line.close()
      try {
        const wait = line.wait(id, ask, waiting)
        // One may have ended between the answer and the wait.
        if (this.#ended !== endedBefore) line.callFirst()
        if (!(await wait)) return missing
      } finally {
        if (line.isEmpty && this.#lines.get(account) === line) this.#lines.delete(account)
      }
    }
    return undefined
  }

  /** Who waits is not overtaken, but by a newer request for an upload that runs. */
  #whereOthersWait<P extends Place>(places: readonly P[]): P | undefined {
    return places.find(({ run }) => {
      const line = this.#lines.get(run.account)
      return line && !line.isEmpty && ![...this.#runs].some(({ id }) => id === run.id)
    })
  }

  /** The first place that is not to be had; then none is kept, for others could use it meanwhile. */
  async #askForAll<P extends Place>(places: readonly P[]): Promise<P | undefined> {
    const given: Run[] = []
    for (const place of places) {
      let isGiven = false
      try {
        isGiven = await this.#ask(place)
      } finally {
        if (!isGiven) for (const run of given) await this.end(run)
      }
      if (!isGiven) return place
      given.push(place.run)
    }
    return undefined
  }

  async #ask({ run, limit }: Place): Promise<boolean> {
    const now = this.#now()
    const { is } = await this.#ledger.begin(run, { now, until: now + this.#leaseMs }, limit)
    if (is === 'refused') return false
    this.#runs.add(run)
    this.#timer ??= setInterval(() => this.renew(), this.#leaseMs / 3).unref()
    return true
  }

  /** Never fails: what can not be ended ends with its lease. */
  async end(run: Run): Promise<void> {
    this.#runs.delete(run)
    if (this.#runs.size === 0) this.close()
    await this.#ledger.end(run).catch(() => undefined)
    this.#ended++
    this.#lines.get(run.account)?.callFirst()
  }

  /** While the ledger is away leases may end, and requests go on: they are put back when it answers. */
  renew(): void {
    this.#ledger.renew([...this.#runs], this.#now() + this.#leaseMs).catch(() => undefined)
  }

  /** Whoever waits with bytes for this upload is refused: somebody asks how far it is, and goes on from there. */
  dismiss(upload: string): void {
    for (const line of this.#lines.values()) line.dismiss(upload)
  }

  /** Nobody waits any more. */
  drain(): void {
    this.#isDraining = true
    for (const line of this.#lines.values()) line.close()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
