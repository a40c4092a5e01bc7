/** What @tus stores throw, `{ status_code, body }` or anything else, as the engine knows failures. */
import { StoreError } from '../contracts.ts'
import { asStoreError } from '../file/file-system.ts'

/** The status of an error in the manner of @tus/server; undefined for anything else. */
export function statusOf(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null || !('status_code' in error)) return undefined
  return typeof error.status_code === 'number' ? error.status_code : undefined
}

/**
 * A refusal that the store makes with a status of its own (410, 413, ...) stays as it is, and is answered so. What is
 * a failure there is one here: a question about an upload must never be answered with 5xx or 429, since clients then
 * begin again at byte 0. `what` completes "could not ...".
 */
export function failureOf(error: unknown, what: string): unknown {
  const status = statusOf(error)
  if (status === undefined) return asStoreError(error, what)
  const failed = (code: 'unavailable' | 'full' | 'io') =>
    new StoreError(code, `the store could not ${what}`, { cause: error })
  if (status === 429 || status === 503) return failed('unavailable')
  if (status === 507) return failed('full')
  return status >= 400 && status < 500 ? error : failed('io')
}
