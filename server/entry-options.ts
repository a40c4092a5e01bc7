/** From settings to what is let in: quotas, types, and the disk. */
import type { Config } from './config.ts'
import type { OpenUploadsOptions } from './open-uploads.ts'
import { hasLimits, type QuotaPlan } from './uploads/quota-accounts.ts'

export function entryOptionsOf(
  config: Config,
): Pick<OpenUploadsOptions, 'quotas' | 'reserveFreeBytes' | 'allowedTypes'> {
  return {
    quotas: quotaPlanOf(config),
    reserveFreeBytes: config.reserveFreeBytes,
    allowedTypes: config.allowedTypes,
  }
}

/**
 * Undefined when no limit is set: then nothing is counted, and nobody waits for it. Where people sign in any of them may
 * come with limits of their own, and what was not counted before could not be put right then.
 */
export function quotaPlanOf(config: Config): QuotaPlan | undefined {
  const owner = {
    openUploads: config.quotaOpenUploads,
    creationsPerMinute: config.quotaCreationsPerMinute,
    unfinishedBytes: config.quotaUnfinishedBytes,
    totalBytes: config.quotaTotalBytes,
    runningRequests: config.quotaRunningRequests,
  }
  const address = {
    openUploads: config.addressQuotaOpenUploads,
    creationsPerMinute: config.addressQuotaCreationsPerMinute,
    unfinishedBytes: config.addressQuotaUnfinishedBytes,
    totalBytes: config.addressQuotaTotalBytes,
    runningRequests: config.addressQuotaRunningRequests,
  }
  const perIdentity = config.auth !== 'none'
  return perIdentity || hasLimits(owner) || hasLimits(address) ? { owner, address, perIdentity } : undefined
}
