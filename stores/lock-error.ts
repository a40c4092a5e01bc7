/** What a wait that ended without its lock is told, the same words from every locker. */
import { LockError, type LockErrorCode, type WaitOptions } from './contracts.ts'

const sentences: Record<LockErrorCode, string> = {
  timeout: 'The upload was not released in time.',
  superseded: 'A newer request waits for this upload.',
  aborted: 'The request ended before the upload was released.',
  unavailable: 'Locks cannot be had now: Redis is away, or the server is shutting down.',
}

export function lockError(code: LockErrorCode, cause?: unknown): LockError {
  return new LockError(code, sentences[code], { cause })
}

/** Whoever has gone away already disturbs no holder. */
export function refuseAborted(options: WaitOptions): void {
  if (options.isAborted ?? options.signal?.aborted) throw lockError('aborted', options.signal?.reason)
}
