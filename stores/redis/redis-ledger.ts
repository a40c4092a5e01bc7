/**
 * The ledger of all servers that share a Redis.
 *
 * One hash for each account holds its sums and the entries that they are made of, and each act is one script on it: so
 * they agree, and of two servers that want the last room one gets it. All keys of an account share a slot of a Cluster.
 * When to look at an upload, and which accounts there are, stands in indexes beside it, which are hints: the walk of the
 * uploads puts them back, as it does all of this when Redis lost it.
 */
import type {
  Admission,
  Growth,
  GrowthAsk,
  Ledger,
  LedgerEntry,
  QuotaLimits,
  QuotaName,
  Run,
  Settled,
  Usage,
  Verdict,
} from '../ledger.ts'
import { recentCreations } from '../ledger.ts'
import type { RedisConnection } from './redis-connection.ts'
import { scripts } from './scripts.ts'

const entriesAtOnce = 100
/** An account whose requests nobody renews or counts is forgotten after this. */
const runningKeptMs = 600_000

export class RedisLedger implements Ledger {
  readonly #connection: RedisConnection

  constructor(options: { readonly connection: RedisConnection }) {
    this.#connection = options.connection
  }

  async start(): Promise<void> {
    await this.#connection.connect()
  }

  /** The connection is its maker's to close. */
  async close(): Promise<void> {}

  async admit(entry: LedgerEntry, { bytes, now, lookAt }: Admission, limits: QuotaLimits): Promise<Verdict> {
    const { keys } = this.#connection
    const { account } = entry
    const { openUploads, creationsPerMinute, unfinishedBytes, totalBytes } = limits
    const args = [openUploads, creationsPerMinute, unfinishedBytes, totalBytes].map(limitArg)
    const reply = await this.#connection.batch(() => {
      this.#hint(entry, lookAt)
      return this.#connection.runScript(
        scripts.admit,
        [keys.account(account), keys.creations(account)],
        [nameOf(entry), bytes, now, ...args],
      )
    })
    const [is, limit, retryAfterMs] = reply as [Verdict['is'], QuotaName, number?]
    if (is === 'admitted') return { is }
    this.#forget(entry)
    return { is, limit, ...(retryAfterMs !== undefined && { retryAfterMs }) }
  }

  async grow(entry: LedgerEntry, ask: GrowthAsk, limits: QuotaLimits): Promise<Growth> {
    const { keys } = this.#connection
    const args = [limits.unfinishedBytes, limits.totalBytes].map(limitArg)
    const reply = await this.#connection.batch(() => {
      // Only where there is none: when to look at it stands there since its creation.
      this.#hint(entry, ask.lookAt, 'NX')
      const given = [nameOf(entry), ask.least, ask.wanted, ...args]
      return this.#connection.runScript(scripts.grow, [keys.account(entry.account)], given)
    })
    const [is, value] = reply as [Growth['is'], string]
    return is === 'granted' ? { is, bytes: Number(value) } : { is, limit: value as QuotaName }
  }

  async settle(entry: LedgerEntry, settled: Settled): Promise<void> {
    const state = settled.is === 'open' && settled.atLeast ? 'atLeast' : settled.is
    const bytes = settled.is === 'gone' ? 0 : settled.bytes
    const isOpen = await this.#connection.batch(() => {
      if (settled.is === 'open') this.#hint(entry, settled.lookAt)
      else if (settled.is === 'finished') this.#hintAccount(entry.account)
      const key = this.#connection.keys.account(entry.account)
      return this.#connection.runScript(scripts.settle, [key], [nameOf(entry), state, bytes])
    })
    if (isOpen === 0) this.#forget(entry)
  }

  async begin(
    { account, id, token }: Run,
    { now, until }: { readonly now: number; readonly until: number },
    limit: number,
  ): Promise<Verdict> {
    const key = this.#connection.keys.running(account)
    const args = [id, token, now, until, limitArg(limit)]
    const isCounted = await this.#connection.runScript(scripts.begin, [key], args)
    return isCounted === 1 ? { is: 'admitted' } : { is: 'refused', limit: 'runningRequests' }
  }

  async renew(runs: readonly Run[], until: number): Promise<void> {
    const byAccount = groupByAccount(runs)
    const { keys } = this.#connection
    await this.#connection.batch(() =>
      Promise.all(
        [...byAccount].map(([account, some]) =>
          this.#connection.runScript(
            scripts.renewRunning,
            [keys.running(account)],
            [until, runningKeptMs, ...some.flatMap(({ id, token }) => [id, token])],
          ),
        ),
      ),
    )
  }

  async end({ account, id, token }: Run): Promise<void> {
    await this.#connection.runScript(scripts.end, [this.#connection.keys.running(account)], [id, token])
  }

  async due(now: number, limit: number): Promise<LedgerEntry[]> {
    const { ledger } = this.#connection.keys
    const members = await this.#connection.run((redis) =>
      redis.zrangebyscore(ledger, '-inf', now, 'LIMIT', 0, limit),
    )
    return members.map(decodeMember)
  }

  async *entries(): AsyncIterable<LedgerEntry & { isOpen: boolean }> {
    const { keys } = this.#connection
    let cursor = '0'
    do {
      const [next, accounts] = await this.#connection.run((redis) =>
        redis.sscan(keys.accounts, cursor, 'COUNT', entriesAtOnce),
      )
      for (const account of accounts) yield* this.#entriesOf(account)
      cursor = next
    } while (cursor !== '0')
  }

  async *#entriesOf(account: string): AsyncIterable<LedgerEntry & { isOpen: boolean }> {
    const { keys } = this.#connection
    let cursor = '0'
    let isEmpty = true
    do {
      const [next, fields] = await this.#connection.run((redis) =>
        redis.hscan(keys.account(account), cursor, 'COUNT', entriesAtOnce),
      )
      // Fields and values take turns.
      for (let n = 0; n < fields.length; n += 2) {
        isEmpty = false
        if (!fields[n]!.startsWith('u:')) continue
        yield { account, ...decodeName(fields[n]!.slice(2)), isOpen: fields[n + 1]!.startsWith('o') }
      }
      cursor = next
    } while (cursor !== '0')
    // Whoever uses it next names it again.
    if (isEmpty) await this.#connection.run((redis) => redis.srem(keys.accounts, account))
  }

  async usage(account: string, now: number): Promise<Usage> {
    const { keys } = this.#connection
    const [sums, creations, running] = await this.#connection.batch(() =>
      Promise.all([
        this.#connection.run((redis) => redis.hmget(keys.account(account), 'open', 'unfinished', 'total')),
        this.#connection.run((redis) => redis.hgetall(keys.creations(account))),
        this.#connection.run((redis) => redis.hvals(keys.running(account))),
      ]),
    )
    const counts = Object.fromEntries(
      Object.entries(creations).map(([second, count]) => [second, Number(count)]),
    )
    return {
      openUploads: Number(sums[0] ?? 0),
      creationsPerMinute: recentCreations(counts, now).reduce((sum, [, count]) => sum + count, 0),
      unfinishedBytes: Number(sums[1] ?? 0),
      totalBytes: Number(sums[2] ?? 0),
      runningRequests: running.filter((lease) => Number(lease.split(' ', 1)[0]) > now).length,
    }
  }

  /** Notes when to look at an upload, and that its account is there. Never fails: the walk puts back what is missing. */
  #hint(entry: LedgerEntry, lookAt: number, where?: 'NX'): void {
    const { ledger } = this.#connection.keys
    const member = memberOf(entry)
    this.#connection
      .run<unknown>((redis) =>
        where ? redis.zadd(ledger, where, lookAt, member) : redis.zadd(ledger, lookAt, member),
      )
      .catch(() => {})
    this.#hintAccount(entry.account)
  }

  #hintAccount(account: string): void {
    const { accounts } = this.#connection.keys
    this.#connection.run((redis) => redis.sadd(accounts, account)).catch(() => {})
  }

  #forget(entry: LedgerEntry): void {
    const { ledger } = this.#connection.keys
    this.#connection.run((redis) => redis.zrem(ledger, memberOf(entry))).catch(() => {})
  }
}

function limitArg(limit: number): number {
  return Number.isFinite(limit) ? limit : -1
}

function nameOf({ createdAt, id }: LedgerEntry): string {
  return `${createdAt}:${id}`
}

function decodeName(name: string): { id: string; createdAt: number } {
  const colon = name.indexOf(':')
  return { id: name.slice(colon + 1), createdAt: Number(name.slice(0, colon)) }
}

function memberOf({ account, createdAt, id }: LedgerEntry): string {
  return JSON.stringify([account, createdAt, id])
}

function decodeMember(member: string): LedgerEntry {
  const [account, createdAt, id] = JSON.parse(member) as [string, number, string]
  return { account, id, createdAt }
}

function groupByAccount(runs: readonly Run[]): Map<string, Run[]> {
  const byAccount = new Map<string, Run[]>()
  for (const run of runs) byAccount.set(run.account, [...(byAccount.get(run.account) ?? []), run])
  return byAccount
}
