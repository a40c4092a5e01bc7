/** What is let in: quotas, types, and the disk. */
import { mediaTypes, size, wholeNumber } from '../setting-kinds.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Quotas')

/** 0 is no limit, as everywhere. */
const off = { default: '0', defaultSays: '0, no limit' }
const count = wholeNumber(0, 1_000_000)

export const quotaSettings = {
  quotaOpenUploads: define({
    ...{ flag: 'quota-open-uploads', kind: count, ...off },
    sentence: 'How many unfinished uploads one owner may have; without authentication everybody together.',
  }),
  quotaCreationsPerMinute: define({
    ...{ flag: 'quota-creations-per-minute', kind: count, ...off },
    sentence: 'How many uploads one owner may create within any minute.',
  }),
  quotaUnfinishedBytes: define({
    ...{ flag: 'quota-unfinished-bytes', kind: size, ...off },
    sentence:
      'How many bytes the unfinished uploads of one owner may have together, as far as they are announced.',
  }),
  quotaTotalBytes: define({
    ...{ flag: 'quota-total-bytes', kind: size, ...off },
    sentence: 'How many bytes all uploads of one owner may have together, finished ones included.',
  }),
  quotaRunningRequests: define({
    ...{ flag: 'quota-running-requests', kind: count, ...off },
    sentence: 'How many requests of one owner may send data at a time.',
  }),
  addressQuotaOpenUploads: define({
    ...{ flag: 'address-quota-open-uploads', kind: count, ...off },
    sentence:
      'How many unfinished uploads may come from one network address; of IPv6 from one network of 64 bits. With any of ' +
      'these limits the address that created an upload is kept with it.',
  }),
  addressQuotaCreationsPerMinute: define({
    ...{ flag: 'address-quota-creations-per-minute', kind: count, ...off },
    sentence: 'How many uploads one network address may create within any minute.',
  }),
  addressQuotaUnfinishedBytes: define({
    ...{ flag: 'address-quota-unfinished-bytes', kind: size, ...off },
    sentence: 'How many bytes the unfinished uploads from one network address may have together.',
  }),
  addressQuotaTotalBytes: define({
    ...{ flag: 'address-quota-total-bytes', kind: size, ...off },
    sentence: 'How many bytes all uploads from one network address may have together.',
  }),
  addressQuotaRunningRequests: define({
    ...{ flag: 'address-quota-running-requests', kind: count, ...off },
    sentence: 'How many requests from one network address may send data at a time.',
  }),
  reserveFreeBytes: define({
    ...{ flag: 'reserve-free-space', kind: size, default: '0', defaultSays: '0, no reserve' },
    sentence:
      'Refuse new data, with 507 and before its first byte, when the disk of the uploads would have less left. What is ' +
      'kept is safe on a full disk too.',
  }),
  allowedTypes: define({
    ...{ flag: 'allowed-types', kind: mediaTypes, default: '', defaultSays: 'any' },
    sentence:
      'Media types that uploads may have, as clients say them in the metadata (filetype): image/*,application/pdf. ' +
      'Others are refused with 415, and so is an upload that says none.',
  }),
} as const
