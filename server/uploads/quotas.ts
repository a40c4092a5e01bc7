/**
 * How much each owner, and each network address, may have at a time. Asked before anything is made or received; told
 * what became of it.
 *
 * The one idea: an upload is counted before it exists, under the name that it will have, and everything that is said
 * of it afterwards may be lost, because whoever looks at its mark says it again. So nothing is ever admitted that a
 * crash could leave uncounted, and what a crash left counted is found and put right.
 */
import { randomUUID } from 'node:crypto'
import type { Now, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import type { Ledger, LedgerEntry, QuotaLimits } from '../../stores/ledger.ts'
import { type Account, accountsOf, type QuotaPlan } from './quota-accounts.ts'
import { overQuota, refuseTooLarge } from './quota-refusals.ts'
import { QuotaRoom } from './quota-room.ts'
import { RunningLeases } from './running-leases.ts'
import type { UploadRequest } from './upload-request.ts'

/** A creation takes milliseconds once it is admitted. What is not there after this is looked for, and given back. */
export const lookAfterMs = 120_000
/** An open upload is looked at again after this: its end may not have been told. */
const lookAgainMs = 600_000

/**
 * Clients that are refused come back a few times and then give up, so no request is before others had this long to end. No
 * longer: who waits holds one of the six connections that a browser has to a server.
 */
const longestWaitMs = 5000

export type QuotaEvent = { readonly is: 'quota-failed'; readonly error: unknown }

export interface QuotasOptions {
  readonly ledger: Ledger
  readonly plan: QuotaPlan
  /** How long a running request of a server that vanished is counted. */
  readonly leaseMs: number
  /** How long a request waits for others at most. */
  readonly waitMs?: number | undefined
  readonly now: Now
  readonly report: (event: QuotaEvent) => void
}

/** A creation that has room. */
export interface Admitted {
  /** To be called when the upload is there. Refuses it when that took so long that its room may be gone. */
  created(record: UploadRecord): Promise<QuotaRoom | undefined>
}

export class Quotas {
  readonly ledger: Ledger
  readonly #options: QuotasOptions
  readonly #leases: RunningLeases

  constructor(options: QuotasOptions) {
    this.#options = options
    this.ledger = options.ledger
    this.#leases = new RunningLeases(options)
  }

  async start(): Promise<void> {
    await this.ledger.start()
  }

  /** Refuses a request that waits to send to this upload: somebody asks how far it is. */
  dismissWaiting(upload: string): void {
    this.#leases.dismiss(upload)
  }

  /** Ends the waits of those that are not running yet. */
  drain(): void {
    this.#leases.drain()
  }

  async close(): Promise<void> {
    this.#leases.close()
    await this.ledger.close()
  }

  /** Whether some limit holds for a new upload; what is not limited is only told afterwards. */
  limits(head: UploadHead, request: UploadRequest): boolean {
    return this.#accounts(head, request).some(({ limits }) => isLimited(limits))
  }

  /** Runs `make` when there is room for a new upload of `bytes`; gives the room back when nothing came of it. */
  async admitting<T>(
    head: UploadHead,
    bytes: number,
    request: UploadRequest,
    make: (admitted: Admitted) => Promise<T>,
  ): Promise<T> {
    const accounts = this.#accounts(head, request)
    const admittedAt = this.#options.now()
    await this.#admit(head, accounts, bytes, admittedAt)
    let isCreated = false
    const admitted: Admitted = {
      created: async (record) => {
        isCreated = true
        // Somebody may have looked before it was there.
        if (this.#options.now() - admittedAt >= lookAfterMs / 2)
          await this.#admit(head, accounts, bytes, this.#options.now())
        return this.roomOf(record, request, bytes)
      },
    }
    try {
      return await make(admitted)
    } catch (error) {
      if (!isCreated) await this.#giveBack(head, accounts)
      throw error
    }
  }

  /** Runs `work`, which receives a body, when not too many are received already, or as soon as one of them has ended. */
  async running<T>(
    as: 'creation' | 'append',
    head: UploadHead,
    request: UploadRequest,
    work: () => Promise<T>,
  ): Promise<T> {
    // By the address that it comes from now, which need not be the one that created it.
    const places = this.#accounts({ ...head, client: request.client }, request)
      .filter(({ limits }) => limits.runningRequests !== Number.POSITIVE_INFINITY)
      .map(({ account, kind, limits }) => {
        const run = { account, id: head.id, token: randomUUID() }
        return { run, limit: limits.runningRequests, kind, limits }
      })
    if (places.length === 0) return work()
    const until = performance.now() + Math.min(longestWaitMs, this.#options.waitMs ?? longestWaitMs)
    const missing = await this.#leases.begin(places, { until, signal: request.signal })
    if (missing) throw overQuota(as, { limit: 'runningRequests' }, missing.kind, missing.limits)
    try {
      return await work()
    } finally {
      for (const { run } of places) await this.#leases.end(run)
    }
  }

  /** Undefined where no room has to be reserved: all of it was, by the length, or nobody limits bytes. */
  roomOf(record: UploadRecord, request: UploadRequest, reserved = record.mark.offset): QuotaRoom | undefined {
    if (record.mark.length !== undefined) return undefined
    const isLimited = this.#accounts(record.head, request).some(({ limits }) => limitsBytes(limits))
    return isLimited ? new QuotaRoom(this, record, request, reserved) : undefined
  }

  /** Reserves bytes for an open upload, and says how many it has then; refuses when that would be less than `least`. */
  async grow(head: UploadHead, least: number, wanted: number, request: UploadRequest): Promise<number> {
    let granted = wanted
    for (const { account, kind, limits } of this.#accounts(head, request)) {
      if (!limitsBytes(limits)) continue
      const ask = { least, wanted: granted, lookAt: this.#options.now() + lookAgainMs }
      const growth = await this.ledger.grow(entryOf(account, head), ask, limits)
      if (growth.is === 'refused')
        throw refuseTooLarge(least, kind, limits) ?? overQuota('append', growth, kind, limits)
      granted = Math.min(granted, Math.max(least, growth.bytes))
    }
    return granted
  }

  /** Gives back what an open upload has not used. Never fails: whoever sends to it next uses it. */
  async settleOpen({ head, mark }: UploadRecord): Promise<void> {
    const bytes = mark.length ?? mark.offset
    const lookAt = this.#options.now() + lookAgainMs
    await this.#tell(head, (entry) => this.ledger.settle(entry, { is: 'open', bytes, lookAt }))
  }

  /**
   * To be called when an upload was finished, or has failed for good, under its lock. Never fails, like all that tells
   * what is seen anyway.
   */
  async ended(record: UploadRecord): Promise<void> {
    await this.#tell(record.head, (entry, has) => this.#note(entry, record, has))
  }

  /** To be called when an upload was removed. */
  async removed(head: UploadHead): Promise<void> {
    await this.#tell(head, (entry) => this.ledger.settle(entry, { is: 'gone' }))
  }

  /** Makes the ledger say what the mark of an upload says; fails when the ledger is away. */
  async note(record: UploadRecord): Promise<void> {
    for (const { account, limits } of this.#accounts(record.head))
      await this.#note(entryOf(account, record.head), record, limits)
  }

  /** Whether an upload counts in an account. That may have been so only before the settings were changed. */
  isCountedIn(head: UploadHead, name: string): boolean {
    return this.#accounts(head).some(({ account }) => account === name)
  }

  async #note(entry: LedgerEntry, { mark }: UploadRecord, limits: QuotaLimits): Promise<void> {
    if (mark.state === 'open') {
      const lookAt = this.#options.now() + lookAgainMs
      const isFixed = mark.length !== undefined
      // More may be reserved for a body that is being received.
      const settled = { is: 'open', bytes: mark.length ?? mark.offset, lookAt } as const
      return this.ledger.settle(entry, isFixed ? settled : { ...settled, atLeast: true })
    }
    const counts = mark.state === 'finished' && this.#keepsFinished(limits)
    return this.ledger.settle(entry, counts ? { is: 'finished', bytes: mark.offset } : { is: 'gone' })
  }

  /** What is finished is remembered only where somebody wants to know. */
  #keepsFinished(limits: QuotaLimits): boolean {
    return this.#options.plan.perIdentity || limits.totalBytes !== Number.POSITIVE_INFINITY
  }

  async #admit(head: UploadHead, accounts: readonly Account[], bytes: number, now: number): Promise<void> {
    for (const { kind, limits } of accounts) {
      const refusal = refuseTooLarge(bytes, kind, limits)
      if (refusal) throw refusal
    }
    const ask = { bytes, now, lookAt: now + lookAfterMs }
    const admitted: Account[] = []
    try {
      for (const one of accounts) {
        const verdict = await this.ledger.admit(entryOf(one.account, head), ask, one.limits)
        if (verdict.is === 'refused') throw overQuota('creation', verdict, one.kind, one.limits)
        admitted.push(one)
      }
    } catch (error) {
      await this.#giveBack(head, admitted)
      throw error
    }
  }

  /** A crash, or a ledger that is away, leaves it to who looks later. */
  async #giveBack(head: UploadHead, accounts: readonly Account[]): Promise<void> {
    for (const { account } of accounts)
      await this.ledger.settle(entryOf(account, head), { is: 'gone' }).catch(() => undefined)
  }

  async #tell(
    head: UploadHead,
    tell: (entry: LedgerEntry, limits: QuotaLimits) => Promise<void>,
  ): Promise<void> {
    for (const { account, limits } of this.#accounts(head)) {
      try {
        await tell(entryOf(account, head), limits)
      } catch (error) {
        this.#options.report({ is: 'quota-failed', error })
      }
    }
  }

  #accounts(head: Parameters<typeof accountsOf>[0], request?: UploadRequest): Account[] {
    return accountsOf(head, this.#options.plan, request?.asker)
  }
}

function isLimited(limits: QuotaLimits): boolean {
  return Object.values(limits).some((limit) => limit !== Number.POSITIVE_INFINITY)
}

function limitsBytes({ unfinishedBytes, totalBytes }: QuotaLimits): boolean {
  return Math.min(unfinishedBytes, totalBytes) !== Number.POSITIVE_INFINITY
}

function entryOf(account: string, { id, createdAt }: UploadHead): LedgerEntry {
  return { account, id, createdAt }
}
