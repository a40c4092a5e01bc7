import type { QuotaLimits } from '../../stores/ledger.ts'

const none = Number.POSITIVE_INFINITY
export const noLimits: QuotaLimits = {
  openUploads: none,
  creationsPerMinute: none,
  unfinishedBytes: none,
  totalBytes: none,
  runningRequests: none,
}
