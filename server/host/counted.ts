/** Quotas as the options of a server ask for them, and who is counted in a request. */
import { hasLimits } from '../uploads/quota-accounts.ts'
import { Quotas } from '../uploads/quotas.ts'
import { clientOf } from './client-address.ts'
import type { Exchange } from './exchange.ts'
import type { TidemarkServerOptions } from './server-options.ts'

/** Undefined where nobody is counted. */
export function quotasOf(options: TidemarkServerOptions): Quotas | undefined {
  const { quotas, now = Date.now, report, acquireLockTimeoutMs: waitMs } = options
  if (quotas === undefined) return undefined
  const { ledger, leaseMs = 10_000, ...plan } = quotas
  return new Quotas({ ledger, plan, leaseMs, waitMs, now, report: (event) => report?.(event) })
}

/** The address that a request is counted by; undefined where addresses are not counted, and then none is kept. */
export function countedClient(
  { quotas }: TidemarkServerOptions,
  { facts, peerAddress }: Exchange,
): string | undefined {
  return quotas && hasLimits(quotas.address) ? clientOf(facts.remoteAddress ?? peerAddress) : undefined
}
