/**
 * The ledger of one machine, in an LMDB file that its workers share.
 *
 * Each act is one transaction, and LMDB has one writer at a time, in whichever process: so sums and entries agree, and
 * of two that want the last room one gets it. Commits are synced behind: after a crash of the machine what is kept
 * here may be older than the uploads are, and the walk puts it right.
 */
import { join } from 'node:path'
import type { Database } from 'lmdb'
import {
  type Admission,
  type Creations,
  type Growth,
  type GrowthAsk,
  judgeAdmission,
  judgeGrowth,
  type Ledger,
  type LedgerEntry,
  noSums,
  type QuotaLimits,
  type Run,
  recentCreations,
  type Settled,
  type Sums,
  type Usage,
  type Verdict,
} from '../ledger.ts'
import { decodeIdentity, encodeIdentity, isProvablyDead, ownIdentity } from '../process-identity.ts'
import { LmdbEnvironment, type LmdbPlace, type OpenDatabase } from './lmdb-environment.ts'
import { behind } from './lmdb-file.ts'

type EntryKey = [account: string, createdAt: number, id: string]
type DueKey = [at: number, ...entry: EntryKey]
type RunKey = [account: string, id: string]

type Entry =
  | { readonly is: 'open'; readonly bytes: number; readonly lookAt: number }
  | { readonly is: 'finished'; readonly bytes: number }

interface Account extends Sums {
  readonly creations: Creations
}

interface Running {
  readonly token: string
  readonly until: number
  /** The process that it runs in: when that is dead, nobody waits for the end of the lease. */
  readonly process: string
}

interface Databases {
  readonly accounts: Database<Account, string>
  readonly entries: Database<Entry, EntryKey>
  readonly due: Database<true, DueKey>
  readonly running: Database<Running, RunKey>
}

const nothing: Account = { ...noSums, creations: {} }

/** Stands behind every text in the order of keys. */
const AFTER_ALL = '\uffff'
const entriesAtOnce = 100

export class LmdbLedger implements Ledger {
  readonly path: string
  readonly #environment: LmdbEnvironment<Databases>
  readonly #process = encodeIdentity(ownIdentity())

  constructor(place: LmdbPlace) {
    this.path = join(place.directory, 'ledger.mdb')
    this.#environment = new LmdbEnvironment({ path: this.path, place, databases: openDatabases })
  }

  /** Fails with `damaged` when the file is foreign or cut short. */
  start(): Promise<void> {
    return this.#environment.start()
  }

  get isBusy(): boolean {
    return this.#environment.isBusy
  }

  close(): Promise<void> {
    return this.#environment.close()
  }

  admit(entry: LedgerEntry, ask: Admission, limits: QuotaLimits): Promise<Verdict> {
    const { account } = entry
    return this.#environment.change((databases): Verdict => {
      if (databases.entries.get(keyOf(entry)) !== undefined) return { is: 'admitted' }
      const sums = databases.accounts.get(account) ?? nothing
      const creations = recentCreations(sums.creations, ask.now)
      const verdict = judgeAdmission(sums, creations, ask, limits)
      if (verdict.is === 'refused') return verdict
      const second = Math.floor(ask.now / 1000)
      const counted = Object.fromEntries(creations)
      counted[second] = (counted[second] ?? 0) + 1
      behind(databases.accounts.put(account, { ...sums, creations: counted }))
      putEntry(databases, entry, undefined, { is: 'open', bytes: ask.bytes, lookAt: ask.lookAt })
      return verdict
    })
  }

  grow(entry: LedgerEntry, ask: GrowthAsk, limits: QuotaLimits): Promise<Growth> {
    return this.#environment.change((databases): Growth => {
      const old = databases.entries.get(keyOf(entry))
      if (old?.is === 'finished') return { is: 'granted', bytes: ask.wanted }
      const sums = databases.accounts.get(entry.account) ?? nothing
      const growth = judgeGrowth(sums, old?.bytes ?? 0, ask, limits)
      if (growth.is === 'granted' && growth.bytes !== old?.bytes) {
        const lookAt = old?.lookAt ?? ask.lookAt
        putEntry(databases, entry, old, { is: 'open', bytes: growth.bytes, lookAt })
      }
      return growth
    })
  }

  async settle(entry: LedgerEntry, settled: Settled): Promise<void> {
    await this.#environment.change((databases) => {
      const old = databases.entries.get(keyOf(entry))
      if (settled.is === 'gone') return putEntry(databases, entry, old, undefined)
      const { is, bytes } = settled
      if (is === 'finished') return putEntry(databases, entry, old, { is, bytes })
      if (old?.is === 'finished') return
      const least = settled.atLeast ? (old?.bytes ?? 0) : 0
      putEntry(databases, entry, old, { is, bytes: Math.max(bytes, least), lookAt: settled.lookAt })
    })
  }

  begin(
    { account, id, token }: Run,
    { now, until }: { readonly now: number; readonly until: number },
    limit: number,
  ): Promise<Verdict> {
    return this.#environment.change(({ running }): Verdict => {
      let others = 0
      let soonest = until
      for (const { key, value } of [...running.getRange(runsOf(account))]) {
        if (value.until <= now || isDead(value)) {
          behind(running.remove(key))
        } else if (key[1] !== id) {
          others++
          soonest = Math.min(soonest, value.until)
        }
      }
      if (others + 1 > limit) return { is: 'refused', limit: 'runningRequests' }
      behind(running.put([account, id], { token, until, process: this.#process }))
      return { is: 'admitted' }
    })
  }

  async renew(runs: readonly Run[], until: number): Promise<void> {
    await this.#environment.change(({ running }) => {
      for (const { account, id, token } of runs) {
        const old = running.get([account, id])
        if (old !== undefined && old.token !== token) continue
        behind(running.put([account, id], { token, until, process: this.#process }))
      }
    })
  }

  async end({ account, id, token }: Run): Promise<void> {
    await this.#environment.change(({ running }) => {
      if (running.get([account, id])?.token === token) behind(running.remove([account, id]))
    })
  }

  async due(now: number, limit: number): Promise<LedgerEntry[]> {
    return this.#environment.read(({ due }) =>
      Array.from(due.getKeys({ end: [now, AFTER_ALL] as unknown as DueKey, limit }), ([, ...key]) =>
        entryOf(key),
      ),
    )
  }

  async *entries(): AsyncIterable<LedgerEntry & { isOpen: boolean }> {
    let last: EntryKey | undefined
    for (;;) {
      const range = last === undefined ? {} : { start: last, exclusiveStart: true }
      const page = this.#environment.read(({ entries }) =>
        Array.from(entries.getRange({ ...range, limit: entriesAtOnce })),
      )
      if (page.length === 0) return
      yield* page.map(({ key, value }) => ({ ...entryOf(key), isOpen: value.is === 'open' }))
      last = page.at(-1)?.key
    }
  }

  async usage(account: string, now: number): Promise<Usage> {
    return this.#environment.read(({ accounts, running }) => {
      const { open, unfinishedBytes, totalBytes, creations } = accounts.get(account) ?? nothing
      const runs = [...running.getRange(runsOf(account))]
      return {
        openUploads: open,
        creationsPerMinute: recentCreations(creations, now).reduce((sum, [, count]) => sum + count, 0),
        unfinishedBytes,
        totalBytes,
        runningRequests: runs.filter(({ value }) => value.until > now && !isDead(value)).length,
      }
    })
  }
}

function openDatabases(open: OpenDatabase): Databases {
  return {
    accounts: open('accounts'),
    entries: open('entries'),
    due: open('due'),
    running: open('running'),
  }
}

/** Puts an entry in the place of another, with the sums and the time at which to look; undefined is none. */
function putEntry(
  { accounts, entries, due }: Databases,
  entry: LedgerEntry,
  old: Entry | undefined,
  put: Entry | undefined,
): void {
  const key = keyOf(entry)
  if (old?.is === 'open') behind(due.remove([old.lookAt, ...key]))
  if (put?.is === 'open') behind(due.put([put.lookAt, ...key], true))
  behind(put === undefined ? entries.remove(key) : entries.put(key, put))
  const account = accounts.get(entry.account) ?? nothing
  const [was, is] = [sumsOf(old), sumsOf(put)]
  behind(
    accounts.put(entry.account, {
      ...account,
      open: account.open + is.open - was.open,
      unfinishedBytes: account.unfinishedBytes + is.unfinishedBytes - was.unfinishedBytes,
      totalBytes: account.totalBytes + is.totalBytes - was.totalBytes,
    }),
  )
}

function sumsOf(entry: Entry | undefined): Sums {
  if (entry === undefined) return noSums
  const { bytes } = entry
  const isOpen = entry.is === 'open'
  return { open: isOpen ? 1 : 0, unfinishedBytes: isOpen ? bytes : 0, totalBytes: bytes }
}

function keyOf({ account, createdAt, id }: LedgerEntry): EntryKey {
  return [account, createdAt, id]
}

function entryOf([account, createdAt, id]: EntryKey): LedgerEntry {
  return { account, id, createdAt }
}

function runsOf(account: string): { start: RunKey; end: RunKey } {
  return { start: [account, ''], end: [account, AFTER_ALL] }
}

function isDead({ process }: Running): boolean {
  const identity = decodeIdentity(process)
  return identity !== undefined && isProvablyDead(identity)
}
