/**
 * Locks beside those of the uploads: for what one server does at a time. Hidden names are no ids, so none of these can be
 * the lock of an upload.
 */
import { type Lock, LockError, type LockErrorCode } from '../../stores/contracts.ts'

/** For what is no upload's own, as a sweep. */
export const commonLock = (name: string): string => `.${name}`
/** For telling what is noted of an upload. */
export const eventsLock = (id: string): string => `${id}/.events`
/** For making a final of its parts. */
export const assemblyLock = (id: string): string => `${id}/.assembly`

/** Undefined when the lock can not be had: somebody else has it, or this server is being stopped. */
export function asLockOrNothing(
  acquiring: Promise<Lock | undefined>,
  { failsWith }: { failsWith?: LockErrorCode } = {},
): Promise<Lock | undefined> {
  return acquiring.catch((error: unknown) => {
    if (error instanceof LockError && error.code !== failsWith) return undefined
    throw error
  })
}
