/** From what failed to what the request is answered. */
import { LockError, StoreError } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { Outcome } from '../protocol/messages.ts'

/** Passing conditions are told to go away soon. */
export const retryAfterS = 1

/** What a failure means for the request. A question about an upload is never answered as a server error. */
export function outcomeOf(error: unknown, purpose: 'append' | 'ask'): Outcome {
  const refused = (refusal: Refusal): Outcome => ({ is: 'refused', refusal })
  if (error instanceof Refusal) return refused(error)
  if (error instanceof LockError) {
    if (error.code === 'unavailable')
      return refused(new Refusal(purpose === 'ask' ? 'busy' : 'unavailable', { retryAfterS, cause: error }))
    return refused(new Refusal('locked', { retryAfterS, cause: error }))
  }
  if (error instanceof StoreError) {
    if (error.code === 'superseded') return { is: 'cut', record: undefined, why: 'lease-lost' }
    if (error.code === 'exists') return refused(new Refusal('exists', { cause: error }))
    if (error.code === 'bad-id') return refused(new Refusal('id-invalid', { cause: error }))
    if (purpose === 'ask') return refused(new Refusal('busy', { retryAfterS, cause: error }))
    if (error.code === 'full') return refused(new Refusal('full', { cause: error }))
    if (error.code === 'unavailable')
      return refused(new Refusal('unavailable', { retryAfterS, cause: error }))
  }
  throw error
}
