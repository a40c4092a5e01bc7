/**
 * A Tidemark lock in the form that @tus/server asks for, so that the same lockers can be used there.
 *
 * @tus/server answers whatever is thrown as `{ status_code, body }`. A wait that ended without the lock becomes its
 * own ERR_LOCK_TIMEOUT; what merely passes becomes 423, because clients begin again at byte 0 after a 5xx to HEAD.
 */
import { ERRORS, type RequestRelease, type Lock as TusLock } from '@tus/utils'
import { type Lock, LockError, type Locker } from './contracts.ts'

export function newTusLock(locker: Locker, id: string, timeoutMs: number): TusLock {
  let held: Lock | undefined
  return {
    async lock(signal: AbortSignal, requestRelease: RequestRelease): Promise<void> {
      try {
        held = await locker.acquire(id, { timeoutMs, signal, onWanted: () => void requestRelease() })
      } catch (error) {
        throw asTusError(error)
      }
      // All that @tus/server offers to end a request whose lease is lost.
      held.lost.addEventListener('abort', () => void requestRelease(), { once: true })
    },
    async unlock(): Promise<void> {
      const lock = held
      held = undefined
      await lock?.release()
    },
  }
}

function asTusError(error: unknown): unknown {
  if (!(error instanceof LockError)) return error
  if (error.code === 'timeout' || error.code === 'aborted') return ERRORS.ERR_LOCK_TIMEOUT
  return { status_code: 423, body: `${error.message}\n` }
}
