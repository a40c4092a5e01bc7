/** From how a body ended, or what failed, to what the request is answered. */
import { LockError, StoreError } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { Outcome } from '../protocol/messages.ts'
import type { Filled } from './fill-plan.ts'
import { type Expiry, expiresAt } from './rules.ts'

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
    if (error.code === 'place-taken') return refused(new Refusal('place-taken', { cause: error }))
    if (error.code === 'bad-id') return refused(new Refusal('id-invalid', { cause: error }))
    if (purpose === 'ask') return refused(new Refusal('busy', { retryAfterS, cause: error }))
    if (error.code === 'full') return refused(new Refusal('full', { cause: error }))
    if (error.code === 'unavailable')
      return refused(new Refusal('unavailable', { retryAfterS, cause: error }))
  }
  throw error
}

/** A creation is always told its URL, also when its body was stopped; an append that was displaced has to ask. */
export function answerOf(filled: Filled, as: 'created' | 'appended', expiry: Expiry): Outcome {
  const { why, record } = filled
  const isFinished = record.mark.state === 'finished'
  const answer: Outcome = { is: as, record, expiresAt: expiresAt(record, expiry) }
  switch (why) {
    case 'overflow':
      return { is: 'refused', refusal: overflowOf(filled, record.mark.length) }
    case 'client-gone':
    case 'idle':
      return isFinished ? answer : { is: 'cut', record, why }
    case 'displaced':
      if (as === 'created' || isFinished) return answer
      return { is: 'refused', refusal: new Refusal('displaced', { offset: record.mark.offset }) }
    case 'unauthorized':
      if (as === 'created' || isFinished) return answer
      return { is: 'refused', refusal: notAnyMore(record.mark.offset) }
    case 'complete':
    case 'drain':
      return answer
  }
}

/** Whose request was let in, and may not go on. */
export function notAnyMore(offset?: number): Refusal {
  return new Refusal('unauthorized', {
    ...(offset !== undefined && { offset }),
    detail: 'this token is not good any more; what came is kept, go on with another one',
    challenge: 'Bearer realm="Tidemark", error="invalid_token"',
  })
}

export function overflowOf({ record }: Filled, length: number | undefined): Refusal {
  return new Refusal(length === undefined ? 'too-large' : 'body-too-long', { offset: record.mark.offset })
}
