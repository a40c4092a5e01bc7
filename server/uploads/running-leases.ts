/**
 * The running requests of this process, as the ledger counts them. One timer renews them all, so that those of a server
 * that vanished end by themselves.
 */
import type { Now } from '../../stores/contracts.ts'
import type { Ledger, Run, Verdict } from '../../stores/ledger.ts'

export class RunningLeases {
  readonly #ledger: Ledger
  readonly #leaseMs: number
  readonly #now: Now
  readonly #runs = new Set<Run>()
  #timer: NodeJS.Timeout | undefined

  constructor({ ledger, leaseMs, now }: { ledger: Ledger; leaseMs: number; now: Now }) {
    this.#ledger = ledger
    this.#leaseMs = leaseMs
    this.#now = now
  }

  async begin(run: Run, limit: number): Promise<Verdict> {
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
  }

  /** While the ledger is away leases may end, and requests go on: they are put back when it answers. */
  renew(): void {
    this.#ledger.renew([...this.#runs], this.#now() + this.#leaseMs).catch(() => undefined)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
