/**
 * Uploads whose bytes are here already: who says what a new upload hashes to, and has a finished one of the same bytes,
 * is given it at once. The index of digests is a hint; what counts is a mark that says finished, with a digest that was
 * computed here. Whatever is in the way of it, the bytes are sent as ever.
 */
import type { Adoption, ByteStore, RecordStore, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import type { CreateCommand } from '../protocol/messages.ts'
import { Receiver } from './byte-path.ts'
import type { EngineEvent } from './engine-event.ts'
import type { EngineSettings } from './engine-parts.ts'
import { isPart } from './kin.ts'
import type { Pulse } from './pulse.ts'
import type { UploadRequest } from './upload-request.ts'

/** - `owner`: of the same owner, and of nobody where nobody says who they are; `global`: of anybody */
export type InstantScope = 'off' | 'owner' | 'global'

/** Of so many uploads one will do. */
const lookedAt = 8

export interface InstantParts {
  readonly bytes: ByteStore
  readonly records: RecordStore | undefined
  readonly settings: EngineSettings
  readonly pulse: Pulse
  readonly draining: AbortSignal
  readonly report: (event: EngineEvent) => void
}

export class InstantUploads {
  readonly #parts: InstantParts

  constructor(parts: InstantParts) {
    this.#parts = parts
  }

  /** Whether it is worth looking. */
  mayBeFound({ digest, owner, ...head }: UploadHead): boolean {
    // A file of a name that others know is theirs to move, and to take away with its upload.
    if (head.storagePath !== undefined) return false
    const { bytes, records, settings } = this.#parts
    const { instantUpload: scope = 'off' } = settings
    if (scope === 'off' || (scope === 'owner' && owner === undefined)) return false
    return bytes.linkFrom !== undefined && records !== undefined && digest !== undefined && !isPart(head)
  }

  /** A finished upload that has the bytes which a new one shall have. */
  async find(head: UploadHead, length: number | undefined): Promise<UploadRecord | undefined> {
    const { bytes, records, settings, report } = this.#parts
    const { instantUpload: scope } = settings
    const { digest, owner } = head
    if (!records || !digest || length === undefined) return undefined
    try {
      const ids = await records.withDigest(digest, lookedAt, scope === 'owner' ? owner : undefined)
      for (const id of ids) {
        const record = await bytes.look(id)
        if (record && has(record, length, digest) && (scope === 'global' || record.head.owner === owner))
          return record
      }
    } catch (error) {
      report({ is: 'instant-failed', id: head.id, error })
    }
    return undefined
  }

  /** Readies the bytes of `source` for a new upload; undefined when they have to be sent. */
  async adopt(upload: UploadRecord, source: UploadRecord): Promise<Adoption | undefined> {
    return this.#parts.bytes.linkFrom?.(upload, source)
  }

  /** Clients that send bytes with a creation listen when they have sent them; who waits for a word has it in the answer. */
  async hearOut({ hasBody, length }: CreateCommand, request: UploadRequest): Promise<void> {
    if (!hasBody || request.waitsToSend) return
    const { pulse, draining, settings } = this.#parts
    const { idleMs, leastBytesPerSecond } = settings
    const source = request.body()
    const receiver = new Receiver({
      ...{ source, pulse, offset: 0, endLimit: length ?? 0, idleMs, leastBytesPerSecond },
      write: async () => {},
      freesPieces: request.hasOwnPieces?.(source) === true,
    })
    const stop = () => receiver.stop('drain')
    draining.addEventListener('abort', stop)
    if (draining.aborted) stop()
    await receiver.done
    draining.removeEventListener('abort', stop)
  }
}

function has({ head, mark }: UploadRecord, length: number, digest: UploadHead['digest']): boolean {
  return (
    mark.state === 'finished' &&
    !isPart(head) &&
    head.storagePath === undefined &&
    mark.length === length &&
    mark.digest?.algorithm === digest?.algorithm &&
    mark.digest?.base64 === digest?.base64
  )
}
