/**
 * What requests were, counted as they end: a handful of kinds, methods, statuses and codes, so that no client can make
 * the numbers grow in any other way than up.
 */
import { Counts, Spread } from '../../stores/meter.ts'
import { errorTable } from '../errors.ts'

/** What a request wanted. `page` is everything that is no upload's and has no kind of its own. */
export const requestKinds = [
  ...(['create', 'append', 'ask', 'read', 'terminate', 'options', 'other'] as const),
  ...(['page', 'health', 'metrics'] as const),
] as const
export type RequestKind = (typeof requestKinds)[number]

/** In the order of tusd. */
const methods = ['GET', 'HEAD', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'PUT']
const durationsS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600]

/** A request that has ended. */
export interface EndedRequest {
  readonly kind: RequestKind
  readonly method: string
  /** Undefined when it was cut without an answer. */
  readonly status: number | undefined
  /** Of a refusal. */
  readonly code: string | undefined
  readonly durationMs: number
}

export class RequestTally {
  connections = 0
  /** By method, of uploads alone, as tusd counts them. */
  readonly byMethod = new Counts([...methods, 'other'])
  /** By `status code`. What appears with its first count is no increase for Prometheus: so all are there from the start. */
  readonly errors = new Counts(Object.entries(errorTable).map(([code, [status]]) => `${status} ${code}`))
  /** By `kind status`. */
  readonly byKind = new Counts()
  readonly refusals = new Counts(Object.keys(errorTable))
  readonly durations = new Map(requestKinds.map((kind) => [kind, new Spread(durationsS)]))

  add({ kind, method, status, code, durationMs }: EndedRequest): void {
    const isOfUploads = kind !== 'page' && kind !== 'health' && kind !== 'metrics'
    if (isOfUploads) this.byMethod.add(methods.includes(method) ? method : 'other')
    this.byKind.add(`${kind} ${status ?? 'cut'}`)
    this.durations.get(kind)!.add(durationMs)
    if (code !== undefined) this.refusals.add(knownCode(code))
    if (isOfUploads && status !== undefined && status >= 400)
      this.errors.add(`${status} ${knownCode(code ?? 'none')}`)
  }

  /** A request that was refused before anybody could read it: no kind, no method. */
  addUnread(status: number, code: string): void {
    this.refusals.add(knownCode(code))
    this.errors.add(`${status} ${knownCode(code)}`)
  }
}

export function kindOf(method: string): RequestKind {
  switch (method) {
    case 'POST':
      return 'create'
    case 'PATCH':
      return 'append'
    case 'HEAD':
      return 'ask'
    case 'GET':
      return 'read'
    case 'DELETE':
      return 'terminate'
    case 'OPTIONS':
      return 'options'
    default:
      return 'other'
  }
}

function knownCode(code: string): string {
  return Object.hasOwn(errorTable, code) || code === 'refused-by-hook' || code === 'none' ? code : 'other'
}
