/**
 * API tokens, as text and as lines of a file. A token is `tm_<id>_<secret>`: the id finds its line, the secret is 256
 * random bits. Only a SHA-256 of the whole token is kept: slow hashes protect what people can remember, and no number of
 * guesses finds 256 bits; so every request can be checked at once.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { BadValue } from '../setting-kinds.ts'
import {
  type Identity,
  isOwnerName,
  limitNames,
  parseLimits,
  parseScopes,
  readOnlyScopes,
  type Scope,
} from './identity.ts'

/** One line of the file. Times are ISO 8601. */
export interface TokenLine {
  readonly id: string
  /** `sha256:` and the base64url of the digest of the token. */
  readonly hash: string
  readonly owner: string
  readonly name?: string
  readonly scopes?: readonly Scope[]
  readonly maxSize?: number | string
  readonly types?: readonly string[]
  readonly expireAfter?: string
  readonly readOnly?: boolean
  readonly openUploads?: number | string
  readonly creationsPerMinute?: number | string
  readonly unfinishedBytes?: number | string
  readonly totalBytes?: number | string
  readonly runningRequests?: number | string
  readonly created?: string
  readonly expires?: string
  readonly revoked?: string
}

/** A line that was checked, and what it stands for. */
export interface KnownToken {
  readonly line: TokenLine
  readonly digest: Buffer
  readonly identity: Identity
  readonly isRevoked: boolean
}

const tokenPattern = /^tm_([0-9a-z]{12})_[A-Za-z0-9_-]{43}$/
const names = new Set<string>(
  ['id', 'hash', 'owner', 'name', 'scopes', 'created', 'expires', 'revoked'].concat(limitNames),
)

/** A new token and the line that knows it. The token is not kept anywhere. */
export function makeToken(line: Omit<TokenLine, 'id' | 'hash'>): { token: string; line: TokenLine } {
  const id = randomBytes(6).toString('hex')
  const token = `tm_${id}_${randomBytes(32).toString('base64url')}`
  return { token, line: { id, hash: `sha256:${digestOf(token).toString('base64url')}`, ...line } }
}

/** The id that a text names when it has the form of a token. */
export function idOfToken(text: string): string | undefined {
  return tokenPattern.exec(text)?.[1]
}

const nobody = randomBytes(32)

/** Whether a text is that token. Takes as long for a token that nobody has. */
export function isToken(text: string, known: KnownToken | undefined): known is KnownToken {
  const isSame = timingSafeEqual(digestOf(text), known?.digest ?? nobody)
  return isSame && known !== undefined
}

/**
 * The tokens of a file: a JSON object a line, or one JSON array of them. Throws a sentence when any of it can not be
 * understood: half a file might be the half without the revocations.
 */
export function parseTokens(text: string): Map<string, KnownToken> {
  const tokens = new Map<string, KnownToken>()
  for (const [value, where] of valuesOf(text)) {
    const token = parseLine(value, where)
    if (tokens.has(token.line.id)) throw new BadValue(`${where}: the id ${token.line.id} is there twice`)
    tokens.set(token.line.id, token)
  }
  return tokens
}

export function formatTokens(lines: Iterable<TokenLine>): string {
  return [...lines].map((line) => `${JSON.stringify(line)}\n`).join('')
}

function* valuesOf(text: string): Iterable<[value: unknown, where: string]> {
  if (text.trimStart().startsWith('[')) {
    const list = parseJson(text, 'the file') as unknown[]
    for (const [i, value] of list.entries()) yield [value, `token ${i + 1}`]
    return
  }
  for (const [i, line] of text.split('\n').entries())
    if (line.trim() !== '') yield [parseJson(line, `line ${i + 1}`), `line ${i + 1}`]
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new BadValue(`${where} is not JSON`)
  }
}

function parseLine(value: unknown, where: string): KnownToken {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BadValue(`${where} is not a JSON object`)
  const given = value as Record<string, unknown>
  try {
    const unknown = Object.keys(given).find((name) => !names.has(name))
    if (unknown !== undefined)
      throw new BadValue(`has ${JSON.stringify(unknown.slice(0, 40))}, which is not known`)
    const { id, hash, owner, name, scopes } = given
    if (typeof id !== 'string' || !/^[0-9a-z]{12}$/.test(id))
      throw new BadValue('must have an id of 12 lower-case letters and digits')
    const digest = Buffer.from(/^sha256:([A-Za-z0-9_-]{43})$/.exec(String(hash))?.[1] ?? '', 'base64url')
    if (digest.length !== 32) throw new BadValue('must have a hash, sha256: and 43 characters')
    if (!isOwnerName(owner)) throw new BadValue('must have an owner, of 1 to 255 characters')
    if (name !== undefined && typeof name !== 'string') throw new BadValue('must have a text as name')
    const { limits, readOnly } = parseLimits(
      Object.fromEntries(limitNames.filter((n) => given[n] !== undefined).map((n) => [n, given[n]])),
    )
    timeOf(given, 'created')
    const expiresAt = timeOf(given, 'expires')
    const isRevoked = given.revoked !== undefined && timeOf(given, 'revoked') !== undefined
    const allowed = readOnly ? readOnlyScopes : scopes === undefined ? undefined : parseScopes(scopes)
    return {
      line: given as unknown as TokenLine,
      digest,
      isRevoked,
      identity: {
        owner,
        limits,
        tokenId: id,
        ...(allowed && { scopes: allowed }),
        ...(expiresAt !== undefined && { expiresAt }),
      },
    }
  } catch (error) {
    if (error instanceof BadValue) throw new BadValue(`${where} ${error.message}`)
    throw error
  }
}

function timeOf(line: Record<string, unknown>, name: 'created' | 'expires' | 'revoked'): number | undefined {
  const text = line[name]
  if (text === undefined) return undefined
  const at = typeof text === 'string' && /^\d{4}-\d\d-\d\d(T|$)/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(at)) throw new BadValue(`must have a time such as 2030-01-31T12:00:00Z as ${name}`)
  return at
}

function digestOf(token: string): Buffer {
  return createHash('sha256').update(token).digest()
}
