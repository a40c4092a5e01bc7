/**
 * The running requests of this process, as the ledger counts them, and those that wait until one of them has ended. One
 * timer renews all that run, so that those of a server that vanished end by themselves.
 */
import type { Now, WaitOptions } from '../../stores/contracts.ts'
import type { Ledger, Run, Verdict } from '../../stores/ledger.ts'
import { WaitingLine } from './waiting-line.ts'

/**
 * Clients that are refused come back a few times and then give up, so nobody is before others had this long to end. No
 * longer: who waits holds one of the six connections that a browser has to a server.
 */
const longestWaitMs = 5000

export class RunningLeases {
  readonly #ledger: Ledger
  readonly #leaseMs: number
  readonly #now: Now
  readonly #runs = new Set<Run>()
  /** By account. */
  readonly #lines = new Map<string, WaitingLine>()
  #timer: NodeJS.Timeout | undefined

  constructor({ ledger, leaseMs, now }: { ledger: Ledger; leaseMs: number; now: Now }) {
    this.#ledger = ledger
    this.#leaseMs = leaseMs
    this.#now = now
  }

  /** Counts a request, at once or as soon as others have ended; refuses it when they have not in time. */
  async begin(run: Run, limit: number, patience: WaitOptions): Promise<Verdict> {
    const verdict = await this.#ask(run, limit)
    if (verdict.is === 'admitted') return verdict
    const line = this.#lines.get(run.account) ?? new WaitingLine()
    this.#lines.set(run.account, line)
    const { timeoutMs, signal } = patience
    const options = { timeoutMs: Math.min(timeoutMs, longestWaitMs), ...(signal && { signal }) }
    try {
      const ask = async () => (await this.#ask(run, limit)).is === 'admitted'
      return (await line.wait(run.id, ask, options)) ? { is: 'admitted' } : verdict
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
    this.#lines.get(run.account)?.callFirst()
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
