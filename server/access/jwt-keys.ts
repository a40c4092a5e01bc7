/**
 * The keys that claims are checked with. What a key is decides which algorithms it is used with, never the token: so
 * neither `alg: none` nor a public key taken for a secret is ever tried.
 */
import { createPublicKey, createSecretKey, type KeyObject } from 'node:crypto'
import {
  type CryptoKey,
  createLocalJWKSet,
  createRemoteJWKSet,
  type FlattenedJWSInput,
  type JSONWebKeySet,
  type JWK,
  type JWSHeaderParameters,
  errors as joseErrors,
} from 'jose'
import { BadValue } from '../setting-kinds.ts'

type Key = CryptoKey | KeyObject
/** Finds the key for a token by its header; fails with an error of jose when there is none, or with `KeysAway`. */
type FindKey = (header: JWSHeaderParameters, token: FlattenedJWSInput) => Promise<Key> | Key

export interface JwtKeys {
  readonly algorithms: readonly string[]
  readonly find: FindKey
  close?(): void
}

/** The keys can not be had right now. Nobody knows whether the token is good. */
export class KeysAway extends Error {
  constructor(cause: unknown) {
    super('the keys that tokens are checked with can not be had now', { cause })
    this.name = 'KeysAway'
  }
}

const edwards = ['EdDSA', 'Ed25519']
const publicAlgorithms = ['RS256', 'ES256', ...edwards]
/** RFC 7518, 3.2: no shorter than the digest. */
const leastSecretBytes = 32
const leastRsaBits = 2048

/** HS256 with the bytes of a secret. Throws a sentence. */
export function secretKeys(secret: string | Uint8Array): JwtKeys {
  const bytes = Buffer.from(secret as Uint8Array)
  if (bytes.length < leastSecretBytes)
    throw new BadValue(`must be a secret of ${leastSecretBytes} bytes or more, best of random ones`)
  // A public key is known to everybody: with it as secret, everybody could make tokens.
  if (/-----BEGIN [A-Z ]*(PUBLIC KEY|CERTIFICATE)-----/.test(bytes.toString('latin1')))
    throw new BadValue('must be a secret, and this is a public key; give it as --jwt-key-file')
  const key = createSecretKey(bytes)
  return { algorithms: ['HS256'], find: () => key }
}

/** Public keys from a file: PEM (a key or a certificate), one JWK, or a JWKS. Throws a sentence. */
export function publicKeys(text: string): JwtKeys {
  if (text.includes('PRIVATE KEY-----'))
    throw new BadValue('must hold a public key; this one is private, and belongs to who makes the tokens')
  if (text.includes('-----BEGIN ')) return pemKeys(text)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new BadValue('must be a public key as PEM, a JWK or a JWKS')
  }
  const { keys = [value] } = value as { keys?: unknown }
  if (!Array.isArray(keys) || keys.length === 0) throw new BadValue('must hold at least one key')
  const algorithms = keys.map((jwk: unknown) => algorithmsOfJwk(jwk))
  const [only] = keys as JWK[]
  // As one of PEM it is tried whatever a token calls its key.
  if (keys.length === 1 && only!.kid === undefined && (only!.use ?? 'sig') === 'sig') {
    const key = createPublicKey({ key: only as never, format: 'jwk' })
    return { algorithms: algorithms.flat(), find: () => key }
  }
  return { algorithms: [...new Set(algorithms.flat())], find: createLocalJWKSet({ keys } as JSONWebKeySet) }
}

function pemKeys(text: string): JwtKeys {
  let key: KeyObject
  try {
    key = createPublicKey(text)
  } catch {
    throw new BadValue('must hold a public key as PEM, and this one can not be read')
  }
  return { algorithms: algorithmsOfKey(key), find: () => key }
}

function algorithmsOfJwk(jwk: unknown): readonly string[] {
  const { kty, d, alg } = (jwk ?? {}) as JWK
  if (kty === 'oct') throw new BadValue('must hold public keys; give a secret as --jwt-secret-file')
  if (d !== undefined)
    throw new BadValue('must hold public keys; a private one belongs to who makes the tokens')
  let algorithms: readonly string[]
  try {
    algorithms = algorithmsOfKey(createPublicKey({ key: jwk as never, format: 'jwk' }))
  } catch (error) {
    if (error instanceof BadValue) throw error
    throw new BadValue('must hold keys of RSA, P-256 or Ed25519, and one can not be read')
  }
  if (alg !== undefined && !algorithms.includes(alg))
    throw new BadValue(
      `must hold keys for ${publicAlgorithms.join(', ')}, and one is for ${JSON.stringify(alg)}`,
    )
  return algorithms
}

function algorithmsOfKey(key: KeyObject): readonly string[] {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (type === 'ed25519') return edwards
  if (type === 'ec' && details?.namedCurve === 'prime256v1') return ['ES256']
  if (type === 'rsa') {
    if ((details?.modulusLength ?? 0) >= leastRsaBits) return ['RS256']
    throw new BadValue(`must hold keys of RSA with ${leastRsaBits} bits or more`)
  }
  throw new BadValue('must hold keys of RSA, P-256 or Ed25519')
}

export interface RemoteKeysOptions {
  readonly url: URL
  /** Told when keys can not be had, once for each time that they go. */
  readonly onAway?: ((error: unknown) => void) | undefined
  /** A key that is not known is looked for at most so often. Default 10,000. */
  readonly cooldownMs?: number | undefined
  /** Keys are fetched again after so long, and those that are gone are forgotten. Default 300,000. */
  readonly refreshMs?: number | undefined
}

/** How long is not asked again after keys could not be had. */
const awayMs = 1000

/**
 * Public keys from a JWKS URL. Known keys go on while it is away; one that is not known is asked for at once, but not
 * again and again: who forges tokens must not make this server ask.
 */
export function remoteKeys({
  url,
  onAway,
  cooldownMs = 10_000,
  refreshMs = 300_000,
}: RemoteKeysOptions): JwtKeys {
  const remote = createRemoteJWKSet(url, {
    cacheMaxAge: Number.POSITIVE_INFINITY,
    cooldownDuration: cooldownMs,
    timeoutDuration: 5000,
  })
  let away: { readonly until: number; readonly error: unknown } | undefined
  let isTold = false
  const failed = (error: unknown): KeysAway => {
    away = { until: performance.now() + awayMs, error }
    if (!isTold) onAway?.(error)
    isTold = true
    return new KeysAway(error)
  }
  const refresh = async () => {
    try {
      await remote.reload()
      away = undefined
      isTold = false
    } catch (error) {
      failed(error)
    }
  }
  const timer = setInterval(() => void refresh(), refreshMs).unref()
  const find: FindKey = async (header, token) => {
    const known = remote.jwks()
    const isAway = away !== undefined && performance.now() < away.until
    // While it is away only what is known is looked at; what is not known may be good or not.
    if (isAway && known === undefined) throw new KeysAway(away!.error)
    const look = isAway ? createLocalJWKSet(known!) : remote
    try {
      const key = await look(header, token)
      if (!isAway && away !== undefined) [away, isTold] = [undefined, false]
      return key
    } catch (error) {
      if (isAway && error instanceof joseErrors.JWKSNoMatchingKey) throw new KeysAway(away!.error)
      throw isAboutTheToken(error) ? error : failed(error)
    }
  }
  return { algorithms: publicAlgorithms, find, close: () => clearInterval(timer) }
}

function isAboutTheToken(error: unknown): boolean {
  return (
    error instanceof joseErrors.JWKSNoMatchingKey ||
    error instanceof joseErrors.JWKSMultipleMatchingKeys ||
    error instanceof joseErrors.JOSENotSupported
  )
}
