/**
 * A file that is put under a name. A PUT from the first byte begins a new upload, and what was finished before stays what
 * the name means until the new one is; a PUT with `Content-Range` goes on with the one that was begun last.
 */
import { Readable } from 'node:stream'
import type { UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import { BodyExchange } from '../host/body-exchange.ts'
import type { Exchange, Reply } from '../host/exchange.ts'
import type { HookedRequest } from '../host/tus-hooks.ts'
import type { Outcome } from '../protocol/messages.ts'
import { type ContentRange, metadataOf, type PutCommand } from '../protocol/plain.ts'
import { notAnyMore } from '../uploads/outcomes.ts'
import { type Door, finishAsItStands, type Visit } from './door.ts'
import { keyOfName, type NamedUploads } from './named-uploads.ts'

export class Puts {
  readonly #door: Door
  readonly #uploads: NamedUploads

  constructor(door: Door, uploads: NamedUploads) {
    this.#door = door
    this.#uploads = uploads
  }

  async put(command: PutCommand, visit: Visit): Promise<Reply> {
    const { exchange } = visit
    const body = new CountedBody(exchange, command)
    const request = await visit.requestOf(() => body.open())
    const key = keyOf(request, command.name)
    const before = await this.#uploads.find(key, request.asker)
    request.named = (id) => this.#uploads.note(key, id, { lasting: true })
    const { range } = command
    const first = range?.first ?? 0
    if (first > 0 && before.begun === undefined && isAllOf(range!, before.finished))
      return this.#answer(before.finished!, command, exchange, { status: 200 })
    const outcome =
      first === 0
        ? await this.#begin(command, request, visit)
        : await this.#goOn(before.begun, range!, { command, request, visit }, before.finished?.mark.offset)
    if (outcome.is === 'refused') throw outcome.refusal
    if (outcome.is === 'cut') {
      exchange.facts.code = outcome.why
      return { is: 'cut' }
    }
    if (!('record' in outcome)) throw new Refusal('internal')
    let { record } = outcome
    exchange.facts.offset = record.mark.offset
    exchange.facts.bytesReceived = record.mark.offset - first
    if (record.mark.state !== 'finished') {
      const { offset } = record.mark
      if (body.isLonger) throw new Refusal('range-length', { offset })
      if (!body.hasEnded || offset !== first + body.size) throw this.#stopped(offset, request)
      if (range && offset !== range.last + 1) throw new Refusal('body-cut', { offset })
      // Somebody who said no size has sent all of it when the body ends; who sends ranges has not said so yet.
      if (range) return this.#answer(record, command, exchange, { status: 202 })
      record = await finishAsItStands(this.#door, record, request, () => this.#stopped(offset, request))
    }
    await this.#uploads.tidy(key, request.asker)
    const status = before.finished === undefined ? 201 : 200
    return this.#answer(record, command, exchange, { status, request })
  }

  /** How far the upload is that was begun last, and what the name means now. */
  async ask(name: string, visit: Visit): Promise<Reply> {
    const { exchange } = visit
    const request = await visit.requestOf()
    const { finished, begun } = await this.#uploads.find(keyOf(request, name), request.asker)
    const now = begun && (await this.#offsetOf(begun, request, visit))
    const shown = now ?? finished
    if (shown === undefined) throw new Refusal('name-unknown')
    exchange.facts.uploadId = shown.head.id
    exchange.facts.offset = shown.mark.offset
    const served = now?.mark.state === 'finished' ? now : finished
    if (shown !== now) {
      await request.incoming(shown.head.id)
      await visit.allow(request, { do: 'offset', id: shown.head.id })
    }
    const headers = served ? await this.#headersOf(served, exchange, request) : {}
    return { is: 'answer', status: 200, headers: { ...headers, ...offsetHeaders(shown) } }
  }

  async read(name: string, visit: Visit): Promise<Reply> {
    const { exchange } = visit
    if (this.#door.options.disableDownload) throw new Refusal('download-disabled')
    const request = await visit.requestOf()
    const { finished } = await this.#uploads.find(keyOf(request, name), request.asker)
    if (finished === undefined) throw new Refusal('name-unknown')
    const { id } = finished.head
    exchange.facts.uploadId = id
    await request.incoming(id)
    await visit.allow(request, { do: 'read', id })
    const outcome = await this.#door.engine.read(id, request)
    if (outcome.is !== 'readable') throw new Refusal('name-unknown')
    const reply = await this.#door.download(outcome.record, exchange, request)
    if (reply.is !== 'answer') return reply
    // The same name may mean other bytes the next time.
    return { ...reply, headers: { ...reply.headers, 'Cache-Control': 'no-cache' } }
  }

  async remove(name: string, visit: Visit): Promise<Reply> {
    const { exchange } = visit
    if (this.#door.options.disableTermination) throw new Refusal('termination-disabled')
    const request = await visit.requestOf()
    const key = keyOf(request, name)
    const { finished, begun } = await this.#uploads.find(key, request.asker)
    if (finished === undefined && begun === undefined) throw new Refusal('name-unknown')
    const answer = { status: 204, headers: {} }
    for (const { head } of [finished, begun].filter((record) => record !== undefined)) {
      exchange.facts.uploadId = head.id
      await request.incoming(head.id)
      await visit.allow(request, { do: 'terminate', id: head.id })
      const outcome = await this.#door.engine.terminate(head.id, request)
      if (outcome.is === 'terminated') {
        request.answer = answer
        this.#door.engine.teller.tell('terminated', outcome.record, request)
      } else if (outcome.is !== 'refused') return { is: 'cut' }
      else if (!['not-found', 'gone'].includes(outcome.refusal.code)) throw outcome.refusal
      await this.#uploads.forget(key, head.id)
    }
    await this.#uploads.forgetAll(key, request.asker)
    return { is: 'answer', ...answer }
  }

  async #begin(
    { name, range, contentLength, type }: PutCommand,
    request: HookedRequest,
    visit: Visit,
  ): Promise<Outcome> {
    const command = {
      do: 'create',
      length: range ? range.size : contentLength,
      metadata: metadataOf(name, type),
      isBytes: true,
      hasBody: contentLength !== 0,
      contentLength,
      checksum: undefined,
      dialect: 'put',
    } as const
    await visit.allow(request, command)
    return this.#door.engine.create(command, request)
  }

  /** `otherwise` is where a client stands for whom nothing is begun. */
  async #goOn(
    begun: UploadRecord | undefined,
    { first, size }: ContentRange,
    { command, request, visit }: { command: PutCommand; request: HookedRequest; visit: Visit },
    otherwise = 0,
  ): Promise<Outcome> {
    if (begun === undefined) throw new Refusal('range-conflict', { offset: otherwise })
    const { id } = begun.head
    await request.incoming(id)
    const isOther = begun.mark.length !== undefined && size !== undefined && begun.mark.length !== size
    if (isOther) throw new Refusal('range-conflict', { offset: begun.mark.offset })
    const { contentLength } = command
    const append = {
      do: 'append',
      id,
      offset: first,
      length: size,
      contentLength,
      checksum: undefined,
    } as const
    await visit.allow(request, append)
    await request.named?.(id)
    const outcome = await this.#door.engine.append(append, request)
    if (outcome.is !== 'refused') return outcome
    const { code, offset = 0 } = outcome.refusal
    if (code === 'offset-conflict') throw new Refusal('range-conflict', { offset })
    if (code === 'not-found' || code === 'gone') throw new Refusal('range-conflict', { offset: otherwise })
    return outcome
  }

  /** The token was taken back, this server is being stopped, or somebody else wants the upload; what came is kept. */
  #stopped(offset: number, request: HookedRequest): Refusal {
    if (!request.mayGoOn()) return notAnyMore(offset)
    if (!this.#door.engine.isDraining) return new Refusal('displaced', { offset })
    return new Refusal('unavailable', { offset, retryAfterS: 1 })
  }

  /** Where whoever goes on has to begin: who is sending is asked to stop, as for a tus HEAD. Undefined when it is gone. */
  async #offsetOf(
    { head }: UploadRecord,
    request: HookedRequest,
    visit: Visit,
  ): Promise<UploadRecord | undefined> {
    await request.incoming(head.id)
    await visit.allow(request, { do: 'offset', id: head.id })
    const outcome = await this.#door.engine.offset(head.id, request)
    if (outcome.is === 'offset') return outcome.record
    if (outcome.is !== 'refused') throw new Refusal('busy', { retryAfterS: 1 })
    if (outcome.refusal.code === 'not-found' || outcome.refusal.code === 'gone') return undefined
    throw outcome.refusal
  }

  /** What a GET would be told. */
  async #headersOf(record: UploadRecord, exchange: Exchange, request: HookedRequest) {
    if (this.#door.options.disableDownload) return {}
    const reply = await this.#door.download(record, new HeadExchange(exchange), request)
    if (reply.is !== 'answer') return {}
    if (reply.body instanceof Readable) reply.body.destroy()
    return reply.headers
  }

  #answer(
    record: UploadRecord,
    { name, type }: PutCommand,
    exchange: Exchange,
    { status, request }: { status: number; request?: HookedRequest },
  ): Reply {
    const { head, mark } = record
    const url = this.#door.locationOf(head.id, exchange)
    const words = { id: head.id, name, url, size: mark.length, offset: mark.offset, type }
    const headers = {
      ...offsetHeaders(record),
      Location: url,
      'Content-Type': 'application/json; charset=utf-8',
    }
    const answer = { status, headers, body: `${JSON.stringify(words)}\n` }
    const { teller } = this.#door.engine
    return { is: 'answer', ...(request ? request.conclude(answer, record, teller) : answer) }
  }
}

/** Without sign-in there is one folder for all; with it everybody has one. */
function keyOf({ asker }: HookedRequest, name: string): string {
  return keyOfName('put', asker.owner === undefined ? ['all'] : ['owner', asker.owner], name)
}

/** Whether a range says that nothing is left of what is finished. */
function isAllOf({ first, size }: ContentRange, finished: UploadRecord | undefined): boolean {
  return first === size && finished?.mark.offset === size
}

function offsetHeaders({ mark }: UploadRecord): Record<string, string> {
  return {
    'Cache-Control': 'no-store',
    'Upload-Offset': String(mark.offset),
    ...(mark.length !== undefined && { 'Upload-Length': String(mark.length) }),
  }
}

/** A question about the whole, whatever part was asked for. */
class HeadExchange extends BodyExchange {
  constructor(whole: Exchange) {
    super(whole, () => whole.body())
  }

  override get headers() {
    const { range: _, 'if-range': __, ...headers } = super.headers
    return headers
  }
}

/** A body whose end is seen, and which is no longer than its range. */
class CountedBody {
  readonly #exchange: Exchange
  readonly #limit: number
  readonly #isCounted: boolean
  size = 0
  hasEnded: boolean
  isLonger = false

  constructor(exchange: Exchange, { range, contentLength }: PutCommand) {
    this.#exchange = exchange
    this.#limit = range ? range.last - range.first + 1 : Number.POSITIVE_INFINITY
    // What says its length is as long as it says, or the client is gone.
    this.#isCounted = contentLength === undefined
    this.size = contentLength ?? 0
    this.hasEnded = contentLength !== undefined
  }

  open(): Readable {
    const body = this.#exchange.body()
    if (!this.#isCounted) return body
    return Readable.from(this.#counted(body), { objectMode: false, highWaterMark: 256 * 1024 })
  }

  async *#counted(body: Readable): AsyncGenerator<Buffer> {
    for await (const chunk of body.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      const room = this.#limit - this.size
      this.isLonger = chunk.length > room
      const taken = this.isLonger ? chunk.subarray(0, room) : chunk
      this.size += taken.length
      if (taken.length > 0) yield taken
      if (this.isLonger) return
    }
    this.hasEnded = true
  }
}
