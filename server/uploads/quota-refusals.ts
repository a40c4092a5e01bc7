/** What somebody is told who is over a quota: which one, and when to try again. */
import type { QuotaLimits, QuotaName } from '../../stores/ledger.ts'
import { Refusal } from '../errors.ts'

/** Whose account it is: who uploads, or the network address that it comes from. */
export type AccountKind = 'owner' | 'address'

/** Room comes when an upload ends, or a request: nobody knows when. The first is asked for after a while only. */
const tryAgainAfterS = { bytes: 30, openUploads: 10, runningRequests: 1 } as const

const sentences: { readonly [Q in QuotaName]: (limit: number, from: string) => string } = {
  openUploads: (limit, from) =>
    `${count(limit, 'unfinished upload')}${from} ${limit === 1 ? 'is' : 'are'} allowed at a time; ` +
    'try again when one is finished or deleted',
  creationsPerMinute: (limit, from) => `${count(limit, 'upload')}${from} may be created within a minute`,
  unfinishedBytes: (limit, from) =>
    `unfinished uploads${from} may have ${limit} bytes together; try again when one is finished or deleted`,
  totalBytes: (limit, from) =>
    `uploads${from} may have ${limit} bytes together; try again when one was deleted`,
  runningRequests: (limit, from) =>
    `${count(limit, 'request')}${from} may send data at a time; try again when one has ended`,
}

function count(many: number, what: string): string {
  return `${many} ${what}${many === 1 ? '' : 's'}`
}

function sentenceOf(name: QuotaName, kind: AccountKind, limits: QuotaLimits): string {
  return sentences[name](limits[name], kind === 'address' ? ' from your network address' : '')
}

/** `as` is what was refused: the creation of an upload, or bytes for one that is there. */
export function overQuota(
  as: 'creation' | 'append',
  refused: { readonly limit: QuotaName; readonly retryAfterMs?: number },
  kind: AccountKind,
  limits: QuotaLimits,
): Refusal {
  const { limit, retryAfterMs } = refused
  const isOfBytes = limit === 'unfinishedBytes' || limit === 'totalBytes'
  const usualS =
    limit === 'creationsPerMinute' ? 60 : isOfBytes ? tryAgainAfterS.bytes : tryAgainAfterS[limit]
  const retryAfterS = retryAfterMs === undefined ? usualS : Math.max(1, Math.ceil(retryAfterMs / 1000))
  const sentence = sentenceOf(limit, kind, limits)
  const detail = limit === 'creationsPerMinute' ? `${sentence}; try again in ${retryAfterS} s` : sentence
  if (as === 'creation') return new Refusal('over-quota', { detail, retryAfterS })
  return new Refusal('over-quota-append', { detail, retryAfterS, isUnheard: true })
}

/** What can not have room, however long somebody waits, is refused for good. */
export function refuseTooLarge(bytes: number, kind: AccountKind, limits: QuotaLimits): Refusal | undefined {
  const name = limits.totalBytes < limits.unfinishedBytes ? 'totalBytes' : 'unfinishedBytes'
  if (bytes <= limits[name]) return undefined
  const from = kind === 'address' ? ' from your network address' : ''
  const which = name === 'totalBytes' ? 'uploads' : 'unfinished uploads'
  return new Refusal('too-large', { detail: `${which}${from} may have ${limits[name]} bytes together` })
}
