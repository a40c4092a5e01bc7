/**
 * How much of what each account uses: the promises of a ledger that all servers share, and the arithmetic that every
 * implementation has to agree on.
 *
 * The one idea: an upload has one entry in an account, under a name that is never used twice, so everything that is
 * said of it can be said again. Sums change with their entries, in one step. What the ledger says is a copy; the marks
 * of the uploads are the truth, and whoever looks at them says again what they say.
 */

/** What an account may have at a time. Infinity where there is no limit. */
export interface QuotaLimits {
  /** Uploads that are not finished. */
  readonly openUploads: number
  /** Creations within any sixty seconds. */
  readonly creationsPerMinute: number
  /** Bytes of uploads that are not finished, as far as they are announced or may be sent already. */
  readonly unfinishedBytes: number
  /** Bytes of all uploads. */
  readonly totalBytes: number
  /** Requests with a body for an upload. */
  readonly runningRequests: number
}
export type QuotaName = keyof QuotaLimits

export const noLimits: QuotaLimits = {
  openUploads: Number.POSITIVE_INFINITY,
  creationsPerMinute: Number.POSITIVE_INFINITY,
  unfinishedBytes: Number.POSITIVE_INFINITY,
  totalBytes: Number.POSITIVE_INFINITY,
  runningRequests: Number.POSITIVE_INFINITY,
}

/** Names an upload. An id may come back after a removal; then it is of another upload. */
interface EntryName {
  readonly id: string
  /** Milliseconds since the epoch; as its head says. */
  readonly createdAt: number
}

export interface LedgerEntry extends EntryName {
  readonly account: string
}

/** `retryAfterMs` where it is known when there will be room. */
export type Verdict =
  | { readonly is: 'admitted' }
  | { readonly is: 'refused'; readonly limit: QuotaName; readonly retryAfterMs?: number }

/** `bytes` is what the upload may grow to. */
export type Growth =
  | { readonly is: 'granted'; readonly bytes: number }
  | { readonly is: 'refused'; readonly limit: QuotaName }

/**
 * What is true of an upload. Of an open one `bytes` are reserved; with `atLeast` more may be already, and stays so.
 * A finished one never is open again.
 */
export type Settled =
  | { readonly is: 'open'; readonly bytes: number; readonly atLeast?: true; readonly lookAt: number }
  | { readonly is: 'finished'; readonly bytes: number }
  | { readonly is: 'gone' }

export interface Usage {
  readonly openUploads: number
  readonly creationsPerMinute: number
  readonly unfinishedBytes: number
  readonly totalBytes: number
  readonly runningRequests: number
}

/**
 * Accounts and what they use, for all servers that share it. Every time is in milliseconds since the epoch, and the
 * same clock on all servers.
 *
 * - `admit` counts an upload and its creation, or refuses and counts nothing; of many at a time exactly as many as there
 *   is room for are admitted, on whichever server.
 * - `admit` of an entry that is there already admits it again, and counts nothing twice.
 * - Of creations never more than the limit are admitted within any minute; a refusal says when there is room again.
 * - `grow` grants as much as there is room for, up to `wanted`, and refuses when that is less than `least`. It never takes
 *   back what was granted.
 * - `settle` makes an entry say what is true of its upload, refuses nothing, and can be repeated.
 * - What is settled as finished is never open again.
 * - `begin` counts a running request until it ends, or its lease does because nobody renews it. One upload has one: a
 *   newer request takes the place of an older one.
 * - `due` names entries of open uploads at which it is time to look, soonest first. It may name some that are gone.
 * - `entries` gives every entry, in no order, perhaps twice.
 * - It may come back empty or older than it was; nothing here decides about an upload that is there.
 * - When it cannot be reached every method fails with `unavailable` and nothing hangs.
 */
export interface Ledger {
  /** Whether a thread of this process is at work here, for which its end would wait. */
  readonly isBusy?: boolean
  start(): Promise<void>
  close(): Promise<void>
  /** Counts a new upload of `bytes`, reserved for it, at which somebody is to look at `lookAt`. */
  admit(entry: LedgerEntry, ask: Admission, limits: QuotaLimits): Promise<Verdict>
  /** Reserves more for an open upload. */
  grow(entry: LedgerEntry, ask: GrowthAsk, limits: QuotaLimits): Promise<Growth>
  settle(entry: LedgerEntry, settled: Settled): Promise<void>
  begin(run: Run, ask: { readonly now: number; readonly until: number }, limit: number): Promise<Verdict>
  /** Lets leases stand until then. What is not there any more is put back: it does run. */
  renew(runs: readonly Run[], until: number): Promise<void>
  end(run: Run): Promise<void>
  due(now: number, limit: number): Promise<LedgerEntry[]>
  entries(): AsyncIterable<LedgerEntry & { readonly isOpen: boolean }>
  usage(account: string, now: number): Promise<Usage>
}

export interface Admission {
  readonly bytes: number
  readonly now: number
  readonly lookAt: number
}

export interface GrowthAsk {
  readonly least: number
  readonly wanted: number
  /** When to look at the upload, if its entry was lost. */
  readonly lookAt: number
}

/** A request with a body. `token` names it alone. */
export interface Run {
  readonly account: string
  readonly id: string
  readonly token: string
}

// ------------------------------------------------------------------------------------------------------ arithmetic

/** What is added up for an account. */
export interface Sums {
  readonly open: number
  readonly unfinishedBytes: number
  readonly totalBytes: number
}

export const noSums: Sums = { open: 0, unfinishedBytes: 0, totalBytes: 0 }

/** Creations are counted by the second: never too few are, and nobody waits more than a second too long. */
export type Creations = Readonly<Record<string, number>>

const windowMs = 60_000

/** The seconds of which creations still count at `now`. A second beyond the window was noted by a clock that was wrong. */
export function recentCreations(creations: Creations, now: number): [second: number, count: number][] {
  return Object.entries(creations)
    .map(([second, count]): [number, number] => [Number(second), count])
    .filter(([second]) => (second + 1) * 1000 + windowMs > now && second * 1000 <= now + windowMs)
    .sort(([a], [b]) => a - b)
}

/** Whether an upload of `bytes` has room in an account. The scripts in redis/lua decide the same. */
export function judgeAdmission(
  sums: Sums,
  creations: readonly [second: number, count: number][],
  { bytes, now }: Pick<Admission, 'bytes' | 'now'>,
  limits: QuotaLimits,
): Verdict {
  let over = creations.reduce((sum, [, count]) => sum + count, 1) - limits.creationsPerMinute
  if (over > 0) {
    let retryAfterMs = windowMs
    for (const [second, count] of creations) {
      over -= count
      retryAfterMs = (second + 1) * 1000 + windowMs - now
      if (over <= 0) break
    }
    return { is: 'refused', limit: 'creationsPerMinute', retryAfterMs }
  }
  if (sums.open + 1 > limits.openUploads) return { is: 'refused', limit: 'openUploads' }
  if (sums.unfinishedBytes + bytes > limits.unfinishedBytes)
    return { is: 'refused', limit: 'unfinishedBytes' }
  if (sums.totalBytes + bytes > limits.totalBytes) return { is: 'refused', limit: 'totalBytes' }
  return { is: 'admitted' }
}

/** How far an open upload that has `held` bytes reserved may grow. The scripts in redis/lua decide the same. */
export function judgeGrowth(
  sums: Sums,
  held: number,
  { least, wanted }: Pick<GrowthAsk, 'least' | 'wanted'>,
  limits: QuotaLimits,
): Growth {
  const unfinishedRoom = limits.unfinishedBytes - sums.unfinishedBytes + held
  const totalRoom = limits.totalBytes - sums.totalBytes + held
  const bytes = Math.max(held, Math.min(wanted, unfinishedRoom, totalRoom))
  if (bytes >= least) return { is: 'granted', bytes }
  return { is: 'refused', limit: unfinishedRoom < totalRoom ? 'unfinishedBytes' : 'totalBytes' }
}
