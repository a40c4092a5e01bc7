/** What the engine asks of a request, whichever dialect it came in; and what is shown to whom. */
import type { Readable } from 'node:stream'
import type { Locker, RequestSummary, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import type { GivenLimits } from './quota-accounts.ts'

/** Who asks. What others own is absent for them, however they ask. */
export interface Asker {
  /** What they create is theirs; undefined where nobody is asked who they are. */
  readonly owner?: string | undefined
  /** Whether they may use what others own too. */
  readonly seesAll: boolean
  /** What they may have at a time, where that is not what everybody may have. */
  readonly limits?: GivenLimits | undefined
}

/** Where nobody is asked who they are. */
export const anybody: Asker = { seesAll: true }

export function isShownTo({ owner, seesAll }: Asker, head: UploadHead): boolean {
  return seesAll || (owner !== undefined && head.owner === owner)
}

/** What every new upload says of its creator and of itself. */
export function newHeadOf(
  { asker: { owner }, client }: Pick<UploadRequest, 'asker' | 'client'>,
  metadata: string | undefined,
): Pick<UploadHead, 'owner' | 'client' | 'metadata'> {
  const head: { owner?: string; client?: string; metadata?: string } = {}
  if (metadata !== undefined) head.metadata = metadata
  if (owner !== undefined) head.owner = owner
  if (client !== undefined) head.client = client
  return head
}

/** What the engine needs of one request. */
export interface UploadRequest {
  /** The body; asking for it tells the client to send it. Only for requests that have one. */
  body(): Readable
  /** Whether every piece of this body is made for who reads it, and is all of its memory. */
  hasOwnPieces?(body: Readable): boolean
  /** Takes the whole body, where it has come already, has this length, and nobody else listens; then `body` has nothing more. */
  wholeBody?(length: number): Uint8Array | undefined
  /** Whether the client sends its body only when it is told to go on. */
  readonly waitsToSend?: boolean
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal
  /** Whether it has aborted, where that is known without it. */
  readonly isGone?: boolean
  /** Whose request it is, and what is shown to it. */
  readonly asker: Asker
  /** The network address that it comes from, as far as it is counted; undefined where addresses are not. */
  readonly client?: string | undefined
  /** Keeps the writers of this request's upload apart, where that is not the engine's own locker. */
  readonly locker?: Locker | undefined
  /** Whether what `nameUpload` says may be there, because somebody chooses it. */
  readonly isNamedByOthers?: boolean
  /** Names a new upload; by the name that is suggested, unless somebody wants another. */
  nameUpload(metadata: string | undefined, suggested?: string): Promise<string>
  /** Asked before the creation that made an upload is answered once more; its errors refuse the request. */
  repeated(id: string): Promise<void>
  /**
   * Asked before anything is made; gives the head that the upload shall have, perhaps with another id or other metadata.
   * Its errors refuse the creation.
   */
  beforeCreate(head: UploadHead, length: number | undefined): Promise<UploadHead>
  /** Told under which id an upload is about to be made, when nothing refuses it any more. Its errors keep it from being made. */
  named?: ((id: string) => Promise<void>) | undefined
  /** Largest length that this request may give the upload; Infinity without a limit. */
  maxBytes(id: string): Promise<number>
  /** Whether a finished upload may be terminated. */
  readonly mayTerminateFinished: boolean
  /** Asked before a termination, under the lock; its errors keep the upload. */
  beforeTerminate(record: UploadRecord): Promise<void>
  /** Asked while a body runs, about once a second: whether it may go on. Answers at once. Default: yes. */
  mayGoOn?(): boolean
  /** Asked once more, when all bytes of an upload are stored, whether this request may finish it; fails when not. Undefined: nobody is asked. */
  reauthorize(): Promise<void> | undefined
  /** Whether `beforeFinish` asks anybody. */
  readonly asksBeforeFinish?: boolean
  /** Asked when all bytes are stored, before the upload is finished; its errors keep the upload unfinished. */
  beforeFinish(record: UploadRecord): Promise<void>
  /** The same for a part of a later final. */
  beforePartFinish?(record: UploadRecord): Promise<void>
  /** Aborts when the running body shall end and its upload be removed; the reason refuses the request. */
  readonly stopping?: AbortSignal | undefined
  /** What is kept of the request for those who are told what it did; without its secrets. */
  summary?(): RequestSummary | undefined
  /** Told while a body runs, and when one `hasEnded` that brought something. */
  received(record: UploadRecord, hasEnded?: boolean): void
}
