/**
 * The values that every dialect speaks. A dialect parses a request into a `Command`, the engine answers with an
 * `Outcome`, the dialect renders it. Neither side knows the other's headers or files.
 */
import type { Digest, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import type { Refusal } from '../errors.ts'

export type Command =
  | { readonly do: 'options' }
  | CreateCommand
  | ConcatCommand
  | AppendCommand
  | { readonly do: 'offset'; readonly id: string }
  | { readonly do: 'terminate'; readonly id: string }
  /** `isHead`: only what would be said of the bytes. */
  | { readonly do: 'read'; readonly id: string; readonly isHead?: boolean }

/** What the bytes of one request must hash to. */
export interface Checksum {
  readonly algorithm: 'sha1' | 'sha256' | 'sha512' | 'md5' | 'crc32'
  readonly digest: Uint8Array
}

/** A checksum that came before the body, or one that the client says after it: read it once the body has ended. */
export type ExpectedChecksum = Checksum | { readonly is: 'trailing'; readonly read: () => Checksum }

export interface CreateCommand {
  readonly do: 'create'
  /** Total bytes; undefined when the client will say later. */
  readonly length: number | undefined
  /** Metadata exactly as sent, already checked. */
  readonly metadata: string | undefined
  /** Whether the request speaks of bytes: it has a body for the upload, or could have had one. */
  readonly isBytes: boolean
  /** Whether the request carries the first bytes of the upload. */
  readonly hasBody: boolean
  /** Bytes of the body when its length is known. */
  readonly contentLength: number | undefined
  readonly checksum: ExpectedChecksum | undefined
  /** The words that make it a part of a later final, as sent. */
  readonly partial?: string | undefined
  /** What the whole upload must hash to. */
  readonly digest?: Digest | undefined
  /** Where it came from; `tus` when nothing is said. */
  readonly dialect?: UploadHead['dialect']
}

/** Makes one upload of the bytes of others. */
export interface ConcatCommand {
  readonly do: 'concat'
  /** The words that asked for it, as sent. */
  readonly asSent: string
  /** Ids of the parts, in order; one may be there twice. */
  readonly parts: readonly string[]
  readonly metadata: string | undefined
  /** What the whole upload must hash to. */
  readonly digest?: Digest | undefined
}

export interface AppendCommand {
  readonly do: 'append'
  readonly id: string
  readonly offset: number
  /** The total length, when the client says it only now. */
  readonly length: number | undefined
  readonly contentLength: number | undefined
  readonly checksum: ExpectedChecksum | undefined
}

/** What was done. `expiresAt` in milliseconds since the epoch; undefined when the upload does not expire. */
export type Outcome =
  | { readonly is: 'options' }
  | { readonly is: 'created'; readonly record: UploadRecord; readonly expiresAt: number | undefined }
  | { readonly is: 'appended'; readonly record: UploadRecord; readonly expiresAt: number | undefined }
  | { readonly is: 'offset'; readonly record: UploadRecord; readonly expiresAt: number | undefined }
  /** As it was before. */
  | { readonly is: 'terminated'; readonly record: UploadRecord }
  | { readonly is: 'readable'; readonly record: UploadRecord }
  | { readonly is: 'refused'; readonly refusal: Refusal }
  /** The client is gone, or has to be cut off: there is nobody to answer. */
  | {
      readonly is: 'cut'
      readonly record: UploadRecord | undefined
      readonly why: 'client-gone' | 'idle' | 'lease-lost'
    }
