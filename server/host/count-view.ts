/** How the count of an upload is written as JSON. docs/counting.md says what each field means. */
import type { UploadRecord } from '../../stores/contracts.ts'
import { parseMetadata } from '../protocol/metadata.ts'
import type { Count } from '../uploads/counting.ts'

interface PartView {
  readonly id: string
  readonly url: string
  readonly state: 'open' | 'finished' | 'failed'
  readonly offset: number
  readonly length: number | null
}

export interface UploadView {
  readonly id: string
  readonly url: string
  readonly state: 'open' | 'finished' | 'failed'
  /** Bytes that were acknowledged. */
  readonly offset: number
  readonly length: number | null
  /** 0 to 100, with one digit behind the point; 100 only when all is there. */
  readonly percent: number | null
  readonly createdAt: string
  readonly movedAt: string
  /** Only for its owner, and for who sees all. */
  readonly name?: string | null
  /** Of an upload that is made of others. */
  readonly partCount?: number
  readonly partsFinished?: number
  readonly parts?: readonly (PartView | null)[]
}

export interface ViewOptions {
  readonly urlOf: (id: string) => string
  readonly mayName: (record: UploadRecord) => boolean
  readonly withParts: boolean
}

export function viewOf(count: Count, { urlOf, mayName, withParts }: ViewOptions): UploadView {
  const { record, state, offset, length, movedAt, parts } = count
  const { id, createdAt, metadata } = record.head
  return {
    id,
    url: urlOf(id),
    state,
    offset,
    length: length ?? null,
    percent: percentOf(count),
    createdAt: new Date(createdAt).toISOString(),
    movedAt: new Date(movedAt).toISOString(),
    ...(mayName(record) && { name: nameIn(metadata) }),
    ...(parts && {
      partCount: parts.length,
      partsFinished: parts.filter((part) => part?.mark.state === 'finished').length,
      ...(withParts && { parts: parts.map((part) => (part ? partView(part, urlOf) : null)) }),
    }),
  }
}

/** Nobody is told 100 while a byte is missing. */
function percentOf({ state, offset, length }: Count): number | null {
  if (state === 'finished') return 100
  if (length === undefined) return null
  return length === 0 ? 0 : Math.min(99.9, Math.floor((offset / length) * 1000) / 10)
}

function partView({ head, mark }: UploadRecord, urlOf: (id: string) => string): PartView {
  const { offset, length = null } = mark
  const state = mark.state === 'terminated' ? 'failed' : mark.state
  return { id: head.id, url: urlOf(head.id), state, offset, length }
}

function nameIn(metadata = ''): string | null {
  const known = parseMetadata(metadata) ?? {}
  return known.filename ?? known.name ?? null
}
