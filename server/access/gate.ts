/**
 * The door: from a request to who asks. Every way to sign in is one `Gate`; what it finds is the same `Identity`, and
 * what it refuses is the same 401, so that nothing behind the door knows tokens from claims.
 */
import { Refusal } from '../errors.ts'
import type { RequestHeaders } from '../protocol/tus.ts'
import type { Identity } from './identity.ts'

/** What a gate sees of a request; never its body. */
export interface AccessRequest {
  /** As it counts: `X-HTTP-Method-Override` is applied. */
  readonly method: string
  /** As the client sent it. */
  readonly url: string
  /** Names in lower case. */
  readonly headers: RequestHeaders
  /** Every `Authorization` header of the request; `headers` would show the first alone. */
  readonly authorization: readonly string[]
}

/**
 * - `identify` is asked when a request begins, and again before it finishes an upload. It answers who asks, or throws a
 *   `Refusal`: `unauthorized` where nobody is known by this request, `unavailable` where that can not be told now.
 * - `stands` is asked while a body runs, about once a second: whether an identity still holds. It answers at once.
 *   Without it an identity holds until its `expiresAt`.
 */
export interface Gate {
  identify(request: AccessRequest, moment: 'begin' | 'finish'): Promise<Identity> | Identity
  stands?(identity: Identity): boolean
  close?(): Promise<void> | void
}

const realm = 'Tidemark'

/** 401. `error` as in RFC 6750, 3.1; without one the request did not try to sign in. */
export function unauthorized(error?: 'invalid_token' | 'invalid_request', detail?: string): Refusal {
  const words = detail ?? 'sign in: send "Authorization: Bearer" with a token'
  const challenge = `Bearer realm="${realm}"`
  return new Refusal('unauthorized', {
    detail: words,
    challenge:
      error === undefined
        ? challenge
        : `${challenge}, error="${error}", error_description="${quoted(words)}"`,
  })
}

/** 403, with the sentence that says what is missing. */
export function outOfScope(scope: string): Refusal {
  const detail = `this token may not do that; it needs the scope "${scope}"`
  const challenge = `Bearer realm="${realm}", error="insufficient_scope", scope="${scope}"`
  return new Refusal('forbidden', { detail, challenge })
}

/** RFC 6750, 3: neither quotes nor backslashes in an error_description. */
function quoted(text: string): string {
  return text.replaceAll(/["\\]/g, "'").replaceAll(/[^\x20-\x7e]/g, '?')
}

/** Whether an identity still holds by what everybody knows of it: its end. */
export function hasEnded(identity: Identity, now: number): boolean {
  return identity.expiresAt !== undefined && identity.expiresAt <= now
}
