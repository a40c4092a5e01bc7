/**
 * One file of a form becomes an upload like any other. It goes on where an earlier sending of the same form was cut off,
 * or begins anew; what is kept of another file is never touched.
 */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type { UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { HookedRequest } from '../host/tus-hooks.ts'
import type { Outcome } from '../protocol/messages.ts'
import { metadataOf } from '../protocol/plain.ts'
import { type Door, finishAsItStands, type Visit } from './door.ts'
import type { FormFile } from './form-reader.ts'
import { compareWithKept, mostKept, type Overlap } from './kept-files.ts'
import { keyOfName, type NamedUploads } from './named-uploads.ts'

/** Of a file that is there with so much its length is known before it is made an upload. */
const smallBytes = 64 * 1024
/** Whoever holds an upload and moves it no more is taken for a connection that died unnoticed. */
const silentMs = 5_000

export interface StoredFile {
  readonly record: UploadRecord
  readonly request: HookedRequest
  readonly sha256: string
}

/** `unfinished`: what came is kept; the form, or this server, has come to its end. */
export type Stored =
  | ({ readonly is: 'stored' } & StoredFile)
  | { readonly is: 'unfinished' }
  | { readonly is: 'cut'; readonly why: string }

export class FormFiles {
  readonly #door: Door
  readonly #uploads: NamedUploads

  constructor(door: Door, uploads: NamedUploads) {
    this.#door = door
    this.#uploads = uploads
  }

  async store(sent: FormFile, visit: Visit, who: readonly string[]): Promise<Stored> {
    const { bytes } = this.#door.engine
    const file = hashing(sent)
    const key = keyOfName('form', who, file.name)
    const { asker } = await visit.requestOf()
    const kept = await this.#uploads.resting(key, asker, silentMs, mostKept)
    const overlap = await compareWithKept(file, kept, bytes)
    const body = new FileBody(file, overlap, bytes)
    const request = await visit.requestOf(() => body.open())
    try {
      const outcome = await this.#send(file, key, overlap, { body, request, visit })
      if (outcome?.is === 'refused') throw outcome.refusal
      if (outcome?.is === 'cut') return { is: 'cut', why: outcome.why }
      if (outcome?.is !== 'created' && outcome?.is !== 'appended') return { is: 'unfinished' }
      const { record } = outcome
      if (!file.isWhole || record.mark.offset !== file.size) return { is: 'unfinished' }
      const stopped = () => new Refusal('unavailable', { retryAfterS: 1 })
      const isFinished = record.mark.state === 'finished'
      const finished = isFinished ? record : await finishAsItStands(this.#door, record, request, stopped)
      await this.#uploads.forget(key, finished.head.id)
      return { is: 'stored', record: finished, request, sha256: file.sha256() }
    } finally {
      body.close()
    }
  }

  async #send(
    file: HashedFile,
    key: string,
    { goesOn, matched }: Overlap,
    { body, request, visit }: { body: FileBody; request: HookedRequest; visit: Visit },
  ): Promise<Outcome | undefined> {
    if (goesOn) {
      const { id } = goesOn.head
      const { offset } = goesOn.mark
      await request.incoming(id)
      body.from = offset
      const rest = { length: undefined, contentLength: undefined, checksum: undefined }
      const append = { do: 'append', id, offset, ...rest } as const
      await visit.allow(request, append)
      const outcome = await this.#door.engine.append(append, request)
      // Somebody else went on with it, or took it away: then it is a new one.
      if (outcome.is !== 'refused' || body.isOpen) return outcome
      body.from = 0
    }
    const length = matched === 0 ? await body.lengthWithin(smallBytes) : undefined
    // Nothing came of it, and no end.
    if (file.size === 0 && !file.isWhole) return undefined
    // What is here already, whole, will not be looked for.
    if (length === undefined) request.named = (id) => this.#uploads.note(key, id, { lasting: false })
    const create = {
      do: 'create',
      length,
      metadata: metadataOf(file.name, file.type),
      isBytes: true,
      hasBody: length !== 0,
      contentLength: length,
      checksum: undefined,
      dialect: 'form',
    } as const
    await visit.allow(request, create)
    return this.#door.engine.create(create, request)
  }
}

interface HashedFile extends FormFile {
  sha256(): string
}

/** A file whose bytes are hashed as they are taken. */
function hashing(file: FormFile): HashedFile {
  const hash = createHash('sha256')
  const take = file.next.bind(file)
  file.next = async () => {
    const chunk = await take()
    if (chunk) hash.update(chunk)
    return chunk
  }
  return Object.assign(file, { sha256: () => hash.digest('hex') })
}

/** The bytes of a file from `from` on: what was compared is copied from where it is kept, the rest is what comes. */
class FileBody {
  readonly #file: FormFile
  readonly #overlap: Overlap
  readonly #bytes: Door['engine']['bytes']
  readonly #taken: Buffer[]
  #stream: Readable | undefined
  from = 0

  constructor(file: FormFile, overlap: Overlap, bytes: Door['engine']['bytes']) {
    this.#file = file
    this.#overlap = overlap
    this.#bytes = bytes
    this.#taken = overlap.rest ? [overlap.rest] : []
  }

  get isOpen(): boolean {
    return this.#stream !== undefined
  }

  open(): Readable {
    this.#stream = Readable.from(this.#chunks(), { objectMode: false, highWaterMark: 256 * 1024 })
    return this.#stream
  }

  close(): void {
    this.#stream?.destroy()
  }

  /** The length of the file when it ends within so many bytes; takes them. */
  async lengthWithin(most: number): Promise<number | undefined> {
    while (!this.#file.isWhole) {
      if (this.#file.size > most) return undefined
      const chunk = await this.#file.next()
      if (chunk) this.#taken.push(chunk)
      else if (!this.#file.isWhole) return undefined
    }
    return this.#file.size
  }

  async *#chunks(): AsyncGenerator<Buffer> {
    const { has, matched } = this.#overlap
    if (has && matched > this.from) yield* await this.#bytes.read(has, this.from, matched)
    for (let chunk = this.#taken.shift(); chunk; chunk = this.#taken.shift()) yield chunk
    for (let chunk = await this.#file.next(); chunk; chunk = await this.#file.next()) yield chunk
  }
}
