/** Events of uploads, and who is told of them. */
import { createHash } from 'node:crypto'
import type { EventKind, UploadEvent, UploadRecord } from '../../stores/contracts.ts'
import type { UploadRequest } from './upload-request.ts'

/** Somebody who wants to know. The name stands in notes, and means the same on all servers. */
export interface Audience {
  readonly name: string
  /** Told the moment it is true, and never failing; the others are told in order, behind everybody's back. */
  readonly isImmediate?: boolean
  hears(kind: EventKind): boolean
  /** Told of finished parts too; others only of the final that is made of them. */
  readonly hearsParts?: boolean
  /** Whether the request that made an event true is kept with it. */
  readonly wantsRequest?: boolean
  /** After this time an event that it could not be told of is set aside. Default: never. */
  readonly giveUpAfterMs?: number
  /**
   * Fails when it could not be told; then it is told again later, perhaps by another server. `request` is the one that
   * made it true, while it is still there. `signal` aborts when this server can wait no longer.
   */
  tell(event: UploadEvent, request: UploadRequest | undefined, signal: AbortSignal): Promise<void>
}

export type TellerEvent =
  | {
      readonly is: 'telling-failed'
      readonly id: string
      readonly eventId: string
      readonly kind: EventKind
      readonly audience: string
      readonly failures: number
      readonly error: unknown
    }
  | {
      readonly is: 'undelivered'
      readonly id: string
      readonly eventId: string
      readonly audience: string
      readonly failures: number
    }
  | { readonly is: 'outbox-failed'; readonly error: unknown }

/** Names an event for ever: an id may be used again, but not at the same time. */
export function eventIdOf(kind: EventKind, { head }: UploadRecord): string {
  return createHash('sha256').update(`${kind}\n${head.createdAt}\n${head.id}`).digest('hex').slice(0, 32)
}

/** What is told of an upload at a moment; with the request, where somebody wants to know it. */
export function eventOf(
  kind: EventKind,
  record: UploadRecord,
  at: number,
  hearing: readonly Audience[],
  asked: UploadRequest | undefined,
): UploadEvent {
  const request = hearing.some(({ wantsRequest }) => wantsRequest) ? asked?.summary?.() : undefined
  return { id: eventIdOf(kind, record), kind, at, record, ...(request && { request }) }
}
