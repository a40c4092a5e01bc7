/**
 * Who asks, and what they may do. An owner has the uploads that were created in its name; a scope is one kind of
 * request; limits only ever lower what the server allows everybody, but for quotas, which stand in place of the usual ones.
 */
import { BadValue, duration, size, wholeNumber } from '../setting-kinds.ts'
import type { Asker } from '../uploads/upload-request.ts'

/**
 * - `create`: create uploads, and make one of several; with bytes in the same request `append` is needed too
 * - `append`: send bytes
 * - `ask`: ask how far an upload is
 * - `terminate`: remove an upload
 * - `read`: download
 * - `admin`: see the uploads of every owner, and the back office: lists, metrics
 */
export const allScopes = ['create', 'append', 'ask', 'terminate', 'read', 'admin'] as const
export type Scope = (typeof allScopes)[number]

/** What is allowed where nothing is said. */
export const usualScopes: readonly Scope[] = allScopes.filter((scope) => scope !== 'admin')
export const readOnlyScopes: readonly Scope[] = ['ask', 'read']

export type OwnQuotas = NonNullable<Asker['limits']>

export interface Limits {
  /** Largest upload that may be created. */
  readonly maxBytes?: number | undefined
  /** Media types that uploads may declare, `image/png` or `image/*`, in lower case. */
  readonly types?: readonly string[] | undefined
  /** How long unfinished uploads live. */
  readonly expireAfterMs?: number | undefined
  /** How much the owner may have at a time, where that is not what everybody may have; 0 is no limit. */
  readonly quotas?: OwnQuotas | undefined
}

export interface Identity {
  /** Whose uploads these are: those of another owner look absent. 1 to 255 characters. */
  readonly owner: string
  /** Default: all but `admin`. */
  readonly scopes?: readonly Scope[] | undefined
  readonly limits?: Limits | undefined
  /** When it ends, in milliseconds since the epoch. */
  readonly expiresAt?: number | undefined
  /** Names what it was proven with, for logs: never a secret. */
  readonly tokenId?: string | undefined
}

export function may(identity: Identity, scope: Scope): boolean {
  return (identity.scopes ?? usualScopes).includes(scope)
}

export const isAdmin = (identity: Identity): boolean => may(identity, 'admin')

/** Whether a name of an owner can be kept beside uploads and shown in logs. */
export function isOwnerName(owner: unknown): owner is string {
  return typeof owner === 'string' && /^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]{1,255}$/u.test(owner)
}

/** Scopes as people write them: separated by spaces or commas, or a list. Throws a sentence. */
export function parseScopes(value: unknown): Scope[] {
  const words = typeof value === 'string' ? value.split(/[\s,]+/).filter(Boolean) : value
  if (!Array.isArray(words)) throw new BadValue('must be a list of scopes')
  return words.map((word: unknown) => {
    const scope = allScopes.find((known) => known === word)
    if (scope === undefined) throw new BadValue(`must be scopes among ${allScopes.join(', ')}`)
    return scope
  })
}

const expireAfter = duration({ min: 1000, max: 100 * 365 * 86_400_000 })
const typePattern = /^(\*\/\*|[a-z0-9!#$&^_.+-]{1,127}\/([a-z0-9!#$&^_.+-]{1,127}|\*))$/

const count = wholeNumber(0, 1_000_000)

/** Named like the settings, without `quota`. */
const quotaKinds = {
  openUploads: count,
  creationsPerMinute: count,
  unfinishedBytes: size,
  totalBytes: size,
  runningRequests: count,
} as const
type QuotaKind = keyof typeof quotaKinds
export const quotaNames = Object.keys(quotaKinds) as readonly QuotaKind[]

/** The names that a claim or a line of the token file may use. */
export const limitNames = ['maxSize', 'types', 'expireAfter', 'readOnly', ...quotaNames] as const

export interface ParsedLimits {
  readonly limits: Limits
  readonly readOnly: boolean
}

/** `{ maxSize, types, expireAfter, readOnly }` and quotas, as written. Throws a sentence: what is misspelt must not lift a limit. */
export function parseLimits(value: unknown): ParsedLimits {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BadValue('must be an object')
  const given = value as Record<string, unknown>
  const unknown = Object.keys(given).find((name) => !(limitNames as readonly string[]).includes(name))
  if (unknown !== undefined)
    throw new BadValue(
      `must hold ${limitNames.join(', ')} and nothing else, not ${JSON.stringify(unknown.slice(0, 40))}`,
    )
  const { maxSize, types, readOnly = false } = given
  if (typeof readOnly !== 'boolean') throw new BadValue('must have true or false as readOnly')
  const quotas = parseQuotas(given)
  return {
    readOnly,
    limits: {
      ...(maxSize !== undefined && { maxBytes: parsed('maxSize', () => size.parse(String(maxSize))) }),
      ...(types !== undefined && { types: parsed('types', () => parseTypes(types)) }),
      ...(given.expireAfter !== undefined && {
        expireAfterMs: parsed('expireAfter', () => expireAfter.parse(String(given.expireAfter))),
      }),
      ...(quotas && { quotas }),
    },
  }
}

function parseQuotas(given: Readonly<Record<string, unknown>>): OwnQuotas | undefined {
  const said = quotaNames.filter((name) => given[name] !== undefined)
  if (said.length === 0) return undefined
  return Object.fromEntries(
    said.map((name) => [name, parsed(name, () => quotaKinds[name].parse(String(given[name])))]),
  )
}

export function parseTypes(value: unknown): string[] {
  const words = typeof value === 'string' ? value.split(/[\s,]+/).filter(Boolean) : value
  if (!Array.isArray(words) || words.length === 0) throw new BadValue('must be a list of media types')
  return words.map((word: unknown) => {
    const type = String(word).toLowerCase()
    if (!typePattern.test(type)) throw new BadValue('must be media types such as image/png or image/*')
    return type
  })
}

function parsed<T>(name: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (error instanceof BadValue) throw new BadValue(`has a ${name} that ${error.message}`)
    throw error
  }
}

/** RFC 6838, 4.2: the names of a type and of its subtype. */
const mediaType = /^[a-z0-9][a-z0-9!#$&^_.+-]*\/[a-z0-9][a-z0-9!#$&^_.+-]*$/

/** Whether a declared media type, in small letters, is among the allowed ones. */
export function isTypeAllowed(declared: string, allowed: readonly string[]): boolean {
  if (allowed.includes('*/*')) return true
  if (!mediaType.test(declared)) return false
  return allowed.some(
    (pattern) =>
      pattern === declared || (pattern.endsWith('/*') && declared.startsWith(pattern.slice(0, -1))),
  )
}
