/**
 * Sign-in by JSON Web Tokens (RFC 7519) that somebody else makes: signature, times, issuer and audience are checked by
 * jose, and the claims become an identity. `sub` is the owner; what a token may do it says in `scope` and `tidemark`.
 */
import { type JWTPayload, type JWTVerifyGetKey, errors as joseErrors, jwtVerify } from 'jose'
import { Refusal } from '../errors.ts'
import { BadValue } from '../setting-kinds.ts'
import { bearerOf } from './bearer.ts'
import { type AccessRequest, type Gate, unauthorized } from './gate.ts'
import { allScopes, type Identity, isOwnerName, parseLimits, readOnlyScopes, type Scope } from './identity.ts'
import { type JwtKeys, KeysAway } from './jwt-keys.ts'

export interface JwtGateOptions {
  readonly keys: JwtKeys
  /** `iss` must be this one. Default: any. */
  readonly issuer?: string | undefined
  /** `aud` must name this one. Default: any. */
  readonly audience?: string | undefined
  /** How far the clocks of this server and of who makes the tokens may be apart. Default 0. */
  readonly clockToleranceMs?: number | undefined
  readonly now?: (() => number) | undefined
}

export class JwtGate implements Gate {
  readonly #options: JwtGateOptions

  constructor(options: JwtGateOptions) {
    this.#options = options
  }

  async identify(request: AccessRequest): Promise<Identity> {
    const payload = await this.#verify(bearerOf(request))
    try {
      return identityOf(payload, this.#options.clockToleranceMs ?? 0)
    } catch (error) {
      if (error instanceof BadValue) throw unauthorized('invalid_token', `this token ${error.message}`)
      throw error
    }
  }

  close(): void {
    this.#options.keys.close?.()
  }

  async #verify(token: string): Promise<JWTPayload> {
    const { keys, issuer, audience, clockToleranceMs = 0, now = Date.now } = this.#options
    try {
      const { payload } = await jwtVerify(token, keys.find as JWTVerifyGetKey, {
        algorithms: [...keys.algorithms],
        // Without an end a token that leaked would be good for ever.
        requiredClaims: ['sub', 'exp'],
        clockTolerance: clockToleranceMs / 1000,
        currentDate: new Date(now()),
        ...(issuer !== undefined && { issuer }),
        ...(audience !== undefined && { audience }),
      })
      return payload
    } catch (error) {
      if (error instanceof KeysAway)
        throw new Refusal('unavailable', {
          detail: 'who asks can not be told right now; try again',
          retryAfterS: 1,
          cause: error,
        })
      if (error instanceof joseErrors.JOSEError) throw unauthorized('invalid_token', whatIsWrong(error))
      throw error
    }
  }
}

/** In our own words: nothing of the token is repeated. */
function whatIsWrong(error: joseErrors.JOSEError): string {
  if (error instanceof joseErrors.JWTExpired) return 'this token has expired'
  if (error instanceof joseErrors.JWTClaimValidationFailed) {
    const claim = ['iss', 'aud', 'sub', 'exp', 'nbf', 'iat'].find((known) => known === error.claim)
    if (claim === 'nbf') return 'this token is not good yet'
    return claim ? `this token has no "${claim}" that is accepted here` : 'this token is not accepted here'
  }
  if (error instanceof joseErrors.JOSEAlgNotAllowed || error instanceof joseErrors.JOSENotSupported)
    return 'this token is signed in a way that is not accepted here'
  if (error instanceof joseErrors.JWKSNoMatchingKey)
    return 'this token is signed with a key that is not known'
  if (error instanceof joseErrors.JWKSMultipleMatchingKeys)
    return 'this token must say by "kid" which key it is signed with'
  if (error instanceof joseErrors.JWSSignatureVerificationFailed)
    return 'the signature of this token is wrong'
  return 'this is not a token that can be understood'
}

function identityOf(payload: JWTPayload, clockToleranceMs: number): Identity {
  const { sub, exp, jti } = payload
  if (!isOwnerName(sub)) throw new BadValue('must have a "sub" of 1 to 255 characters')
  const { limits, readOnly } = limitsOf(payload.tidemark ?? {})
  const said = scopesOf(payload)
  const allowed = readOnly ? (said ?? readOnlyScopes).filter((scope) => readOnlyScopes.includes(scope)) : said
  return {
    owner: sub,
    limits,
    ...(allowed && { scopes: allowed }),
    ...(exp !== undefined && { expiresAt: exp * 1000 + clockToleranceMs }),
    ...(typeof jti === 'string' && jti.length <= 128 && { tokenId: jti }),
  }
}

function limitsOf(claim: unknown) {
  try {
    return parseLimits(claim)
  } catch (error) {
    throw error instanceof BadValue ? new BadValue(`has a claim "tidemark" that ${error.message}`) : error
  }
}

/**
 * `scope` (RFC 8693, 4.2) or `scopes`: words between spaces, or a list. Words of other services (`openid`) mean nothing
 * here; `tidemark:create` is `create`. Undefined when a token says nothing of scopes.
 */
function scopesOf({ scope, scopes }: JWTPayload): Scope[] | undefined {
  const said = scope ?? scopes
  if (said === undefined) return undefined
  const words = typeof said === 'string' ? said.split(/\s+/) : said
  if (!Array.isArray(words)) throw new BadValue('has scopes that are neither a text nor a list')
  return allScopes.filter((known) => words.includes(known) || words.includes(`tidemark:${known}`))
}
