/** What is asked of /uploads, parsed: the way, what to look at, which page. */
import type { ListPlace } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import { pathOf } from '../protocol/upload-url.ts'

export interface UploadsQuery {
  /** A stream of what happens, or how it is now. */
  readonly isStream: boolean
  /** One upload by its path: it is not there, rather than left out. */
  readonly isOne: boolean
  /** Undefined for lists. */
  readonly ids: readonly string[] | undefined
  readonly owner: string | undefined
  readonly state: 'open' | 'finished' | undefined
  readonly limit: number
  readonly after: ListPlace | undefined
}

const idsAtMost = 100
const limitAtMost = 100
const defaultLimit = 50

/** Undefined where nothing is. Throws a refusal for what can not be asked. */
export function parseUploadsQuery(url: string, base: string): UploadsQuery | undefined {
  const target = targetOf(pathOf(url).slice(base.length))
  if (target === undefined) return undefined
  const question = url.indexOf('?')
  const query = new URLSearchParams(question < 0 ? '' : url.slice(question + 1))
  const named = target.id === undefined ? query.getAll('id') : [target.id]
  if (named.length > idsAtMost) throw invalid(`at most ${idsAtMost} uploads can be named at a time`)
  if (named.length > 0 && target.id === undefined) {
    for (const other of ['state', 'limit', 'after', 'owner'])
      if (query.has(other)) throw invalid(`"${other}" is for lists, and these uploads are named`)
  }
  return {
    isStream: target.isStream,
    isOne: target.id !== undefined,
    ids: named.length > 0 ? [...new Set(named)] : undefined,
    owner: query.get('owner') ?? undefined,
    state: parseState(query.get('state')),
    limit: parseLimit(query.get('limit')),
    after: parseCursor(query.get('after')),
  }
}

/** A place in a list, for the client to give back as it is. */
export function formatCursor([createdAt, id]: ListPlace): string {
  return Buffer.from(JSON.stringify([createdAt, id])).toString('base64url')
}

/** `Last-Event-ID`: the server's time when that event was sent. */
export function parseLastEventId(header: string | string[] | undefined): number | undefined {
  return typeof header === 'string' && /^\d{1,15}$/.test(header) ? Number(header) : undefined
}

/** `/`, `/events`, `/ID`, `/ID/events`. An upload with the id `events` can be named by `?id=`. */
function targetOf(path: string): { isStream: boolean; id?: string } | undefined {
  const [first = '', second, ...more] = path.split('/').slice(1)
  if (more.length > 0 || (second !== undefined && second !== 'events' && second !== '')) return undefined
  if (first === '') return second === undefined ? { isStream: false } : undefined
  if (first === 'events' && !second) return { isStream: true }
  try {
    return { isStream: second === 'events', id: decodeURIComponent(first) }
  } catch {
    return undefined
  }
}

function parseState(state: string | null): 'open' | 'finished' | undefined {
  if (state === null || state === 'open' || state === 'finished') return state ?? undefined
  throw invalid('"state" is open or finished')
}

function parseLimit(limit: string | null): number {
  if (limit === null) return defaultLimit
  const number = /^\d{1,4}$/.test(limit) ? Number(limit) : 0
  if (number < 1 || number > limitAtMost) throw invalid(`"limit" is a number from 1 to ${limitAtMost}`)
  return number
}

function parseCursor(cursor: string | null): ListPlace | undefined {
  if (cursor === null) return undefined
  try {
    const place: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    if (Array.isArray(place) && place.length === 2) {
      const [createdAt, id] = place as [unknown, unknown]
      if (Number.isSafeInteger(createdAt) && typeof id === 'string') return [createdAt as number, id]
    }
  } catch {
    // Told below, as for any other text.
  }
  throw invalid('"after" is what "next" of another page said')
}

function invalid(detail: string): Refusal {
  return new Refusal('query-invalid', { detail })
}
