/** In which accounts an upload counts, and what each of them may have. Pure. */
import { createHash } from 'node:crypto'
import { noLimits, type QuotaLimits } from '../../stores/ledger.ts'
import type { AccountKind } from './quota-refusals.ts'
import type { Asker } from './upload-request.ts'

/** Limits as people write them: 0, or nothing, is no limit. */
export type GivenLimits = { readonly [Q in keyof QuotaLimits]?: number | undefined }

export interface QuotaPlan {
  readonly owner: GivenLimits
  readonly address: GivenLimits
  /** Whether somebody may come with limits of their own: then owners are counted though no limit is set for all. */
  readonly perIdentity: boolean
}

export interface Account {
  readonly account: string
  readonly kind: AccountKind
  readonly limits: QuotaLimits
}

/** A name that is longer is not kept as it is: keys of databases have an end. */
const longestName = 200

/** What is given goes before what stands in `others`. */
function limitsOf(given: GivenLimits, others: QuotaLimits = noLimits): QuotaLimits {
  const limits = { ...others }
  for (const name of Object.keys(noLimits) as (keyof QuotaLimits)[]) {
    const limit = given[name]
    if (limit !== undefined) limits[name] = limit > 0 ? limit : Number.POSITIVE_INFINITY
  }
  return limits
}

export function hasLimits(given: GivenLimits): boolean {
  return Object.values(given).some((limit) => limit !== undefined && limit > 0)
}

/**
 * Uploads that nobody owns count together: where nobody is asked who they are, the limits for an owner are those of the
 * server. Limits of the asker's own hold for what is theirs.
 */
export function accountsOf(
  { owner, client }: { readonly owner?: string | undefined; readonly client?: string | undefined },
  plan: QuotaPlan,
  asker?: Pick<Asker, 'owner' | 'limits'>,
): Account[] {
  const accounts: Account[] = []
  if (plan.perIdentity || hasLimits(plan.owner)) {
    const own = asker?.limits !== undefined && asker.owner === owner ? asker.limits : {}
    const limits = limitsOf(own, limitsOf(plan.owner))
    accounts.push({ account: nameOf('owner', owner ?? ''), kind: 'owner', limits })
  }
  if (client !== undefined && hasLimits(plan.address))
    accounts.push({ account: nameOf('address', client), kind: 'address', limits: limitsOf(plan.address) })
  return accounts
}

function nameOf(kind: AccountKind, name: string): string {
  const isLong = Buffer.byteLength(name) > longestName
  return `${kind}:${isLong ? `sha256 ${createHash('sha256').update(name).digest('hex')}` : name}`
}
