/**
 * The running requests of this process, as the ledger counts them, and those that wait until one of them has ended. One
 * timer renews all that run, so that those of a server that vanished end by themselves.
 */
import type { Now } from '../../stores/contracts.ts'
import type { Ledger, Run, Verdict } from '../../stores/ledger.ts'
import { type Waiting, WaitingLine } from './waiting-line.ts'

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

  /** Counts a request, at once or as soon as others have ended; refuses it when they have not in time. */
  async begin(run: Run, limit: number, waiting: Waiting): Promise<Verdict> {
    const endedBefore = this.#ended
    const verdict = await this.#ask(run, limit)
    if (verdict.is === 'admitted') return verdict
    const line = this.#lines.get(run.account) ?? new WaitingLine()
    this.#lines.set(run.account, line)
    if (this.#isDraining) line.close()
    try {
      const ask = async () => (await this.#ask(run, limit)).is === 'admitted'
      const wait = line.wait(run.id, ask, waiting)
      // One may have ended between the answer and the wait.
      if (this.#ended !== endedBefore) line.callFirst()
      return (await wait) ? { is: 'admitted' } : verdict
    } finally {
      if (line.isEmpty && this.#lines.get(run.account) === line) this.#lines.delete(run.account)
    }
  }

  async #ask(run: Run, limit: number): Promise<Verdict> {
    const now = this.#now()
    const verdict = await this.#ledger.begin(run, { now, until: now + this.#leaseMs }, limit)
    if (verdict.is === 'admitted') {
      this.#runs.add(run)
      this.#timer ??= setInterval(() => this.renew(), this.#leaseMs / 3).unref()
    }
    return verdict
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
