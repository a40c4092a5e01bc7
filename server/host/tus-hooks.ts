/**
 * The hooks and events of @tus/server, called at the moments and with the values that its documentation names.
 * A web Request is made only when a hook is there to look at it.
 */
import { randomUUID } from 'node:crypto'
import { validateHeaderName, validateHeaderValue } from 'node:http'
import type { Readable } from 'node:stream'
import type { ServerOptions } from '@tus/server'
import { EVENTS, type Upload } from '@tus/utils'
import type { Locker, RequestSummary, UploadEvent, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import { uploadOf } from '../../stores/file/file-store.ts'
import type { Admission } from '../access/admission.ts'
import type { Hooks } from '../hooks/hooks.ts'
import { withoutSecrets } from '../hooks/payload.ts'
import { RequestHooks, summaryOf } from '../hooks/request-hooks.ts'
import { formatMetadata, type Metadata, maxMetadataBytes, parseMetadata } from '../protocol/metadata.ts'
import { type Answer, methodOf } from '../protocol/tus.ts'
import { ProgressPace } from '../uploads/progress-pace.ts'
import { newRecord } from '../uploads/rules.ts'
import type { Teller } from '../uploads/teller.ts'
import { type Asker, anybody, type UploadRequest } from '../uploads/upload-request.ts'
import type { Exchange } from './exchange.ts'

export type HookOptions = Partial<
  Pick<
    ServerOptions,
    | 'namingFunction'
    | 'onIncomingRequest'
    | 'onUploadCreate'
    | 'onUploadFinish'
    | 'maxSize'
    | 'postReceiveInterval'
    | 'disableTerminationForFinishedUploads'
  >
> & {
  /** Asked before a client's termination, under the lock of the upload; what it throws keeps the upload. */
  readonly onUploadTerminate?: (request: Exchange['request'], upload: Upload) => Promise<void> | void
}

/** How events leave: `tell` must not throw into the request. */
export interface Events {
  isHeard(event: string): boolean
  tell(event: string, ...args: unknown[]): void
}

/** One request, seen by the engine; keeps what a finish hook wants changed in the answer. */
export class HookedRequest implements UploadRequest {
  readonly #exchange: Exchange
  readonly #options: HookOptions
  readonly #events: Events
  readonly #urlOf: (id: string) => string
  /** The hooks that tusd has, where there are some. */
  readonly hooks: RequestHooks | undefined
  #finishAnswer: Awaited<ReturnType<NonNullable<ServerOptions['onUploadFinish']>>> | undefined
  readonly #pace: ProgressPace
  locker: Locker | undefined
  named: UploadRequest['named']
  /** Set as soon as it is known; until then nobody was asked. */
  asker: Asker = anybody
  client: string | undefined
  #admission: Admission | undefined

  constructor(
    exchange: Exchange,
    options: HookOptions,
    events: Events,
    urlOf: (id: string) => string,
    hooks?: Hooks,
  ) {
    this.#exchange = exchange
    this.#options = options
    this.#pace = new ProgressPace(options.postReceiveInterval ?? 1000)
    this.#events = events
    this.#urlOf = urlOf
    if (hooks === undefined) return
    const { url, headers, peerAddress, peerPort } = exchange
    const method = methodOf(exchange.method, headers)
    this.hooks = new RequestHooks(hooks, summaryOf({ method, url, headers, peerAddress, peerPort }))
  }

  /** The request was let in as somebody. */
  admit(admission: Admission): void {
    this.#admission = admission
    this.asker = admission.asker
  }

  body() {
    return this.#exchange.body()
  }

  hasOwnPieces(body: Readable): boolean {
    return this.#exchange.hasOwnPieces?.(body) === true
  }

  get asksBeforeFinish(): boolean {
    return this.#options.onUploadFinish !== undefined || this.hooks !== undefined
  }

  wholeBody(length: number): Uint8Array | undefined {
    return this.#exchange.wholeBody?.(length)
  }

  get isNamedByOthers(): boolean {
    return this.#options.namingFunction !== undefined
  }

  get isGone(): boolean {
    return this.#exchange.isGone
  }

  get signal(): AbortSignal {
    return this.#exchange.signal
  }

  get waitsToSend(): boolean {
    return this.#exchange.facts.expectsContinue === true
  }

  get mayTerminateFinished(): boolean {
    return this.#options.disableTerminationForFinishedUploads !== true
  }

  async nameUpload(metadata: string | undefined, suggested?: string): Promise<string> {
    const { namingFunction } = this.#options
    const id = namingFunction
      ? await namingFunction(
          this.#exchange.request,
          metadata === undefined ? undefined : parseMetadata(metadata),
        )
      : (suggested ?? newId())
    this.#exchange.facts.uploadId = id
    return id
  }

  async maxBytes(id: string | null): Promise<number> {
    const { maxSize = 0 } = this.#options
    const bytes = typeof maxSize === 'function' ? await maxSize(this.#exchange.request, id) : maxSize
    const ofServer = bytes > 0 ? bytes : Number.POSITIVE_INFINITY
    return this.#admission?.maxBytes(ofServer) ?? ofServer
  }

  async incoming(id: string): Promise<void> {
    await this.#options.onIncomingRequest?.(this.#exchange.request, id)
  }

  async repeated(id: string): Promise<void> {
    this.#exchange.facts.uploadId = id
    await this.incoming(id)
  }

  async beforeCreate(draft: UploadHead, length: number | undefined): Promise<UploadHead> {
    const head = this.#admission?.limit(draft, length) ?? draft
    await this.incoming(head.id)
    const wanted = this.#options.onUploadCreate ? await this.#onUploadCreate(head, length) : head
    if (!this.hooks) return wanted
    const changed = await this.hooks.beforeCreate(wanted, length)
    this.#exchange.facts.uploadId = changed.id
    return changed
  }

  async #onUploadCreate(head: UploadHead, length: number | undefined): Promise<UploadHead> {
    const upload = uploadOf(newRecord(head, length))
    const patch = await this.#options.onUploadCreate!(this.#exchange.request, upload)
    if (!patch?.metadata) return head
    const { metadata: asSent, ...rest } = head
    const metadata = checkedMetadata(patch.metadata, asSent)
    return metadata === undefined ? rest : { ...rest, metadata }
  }

  async beforeTerminate(record: UploadRecord): Promise<void> {
    await this.#options.onUploadTerminate?.(this.#exchange.request, uploadOf(record))
    await this.hooks?.beforeTerminate(record)
  }

  mayGoOn(): boolean {
    return this.#admission?.mayGoOn() ?? true
  }

  reauthorize(): Promise<void> | undefined {
    return this.#admission?.again()
  }

  /** Whether the upload was finished by this request. */
  hasFinished = false

  async beforeFinish(record: UploadRecord): Promise<void> {
    this.hasFinished = true
    if (this.hooks) await this.hooks.beforeFinish(record)
    const { onUploadFinish } = this.#options
    if (onUploadFinish) this.#finishAnswer = await onUploadFinish(this.#exchange.request, uploadOf(record))
  }

  /** @tus/server knows no parts. */
  async beforePartFinish(record: UploadRecord): Promise<void> {
    this.hasFinished = true
    await this.hooks?.beforeFinish(record)
  }

  get stopping(): AbortSignal | undefined {
    return this.hooks?.stopping
  }

  summary(): RequestSummary | undefined {
    return this.hooks && withoutSecrets(this.hooks.summary)
  }

  received(record: UploadRecord, hasEnded = false): void {
    this.hooks?.received(record, hasEnded)
    if (!this.#events.isHeard(EVENTS.POST_RECEIVE)) return
    if (!this.#pace.isDue(record.mark.offset, hasEnded)) return
    this.#events.tell(EVENTS.POST_RECEIVE, this.#exchange.request, uploadOf(record))
  }

  /** What the client is answered; what was done for no client is answered with 204. */
  answer: Answer = { status: 204, headers: {} }

  /** What listeners are told of an event, in the order of @tus/server's arguments, and the id of the event. */
  tell({ id, kind, record }: UploadEvent): void {
    const upload = uploadOf(record)
    const { request } = this.#exchange
    const tell = (event: string, ...args: unknown[]) => this.#events.tell(event, request, ...args, { id })
    if (kind === 'created') tell(EVENTS.POST_CREATE, upload, this.#urlOf(upload.id))
    else if (kind === 'finished') tell(EVENTS.POST_FINISH, asResponse(this.answer), upload)
    else tell(EVENTS.POST_TERMINATE, asResponse(this.answer), upload.id)
  }

  /**
   * The answer to who finished an upload, changed as the finish hook asked. The finish is told with it, and all the same
   * where the hook asked for what no answer can carry, and this throws.
   */
  conclude(ours: Answer, record: UploadRecord, teller: Pick<Teller, 'tell'>): Answer {
    if (!this.hasFinished) return this.withFinishHook(ours)
    let changed = ours
    try {
      changed = this.withFinishHook(ours)
      return changed
    } finally {
      this.answer = changed
      teller.tell('finished', record, this)
    }
  }

  /** The answer, changed as the finish hook asked. Throws when it asked for what no answer can carry. */
  withFinishHook(ours: Answer): Answer {
    const answer = this.hooks?.change(ours) ?? ours
    const wanted = this.#finishAnswer
    if (!wanted) return answer
    const added = Object.entries(wanted.headers ?? {}).map(([name, value]) => [name, String(value)] as const)
    for (const [name, value] of added) {
      validateHeaderName(name)
      validateHeaderValue(name, value)
    }
    if (wanted.status_code !== undefined) checkStatus(wanted.status_code)
    return {
      status: wanted.status_code ?? answer.status,
      headers: { ...answer.headers, ...Object.fromEntries(added) },
      ...((wanted.body ?? answer.body) !== undefined && { body: wanted.body ?? answer.body! }),
    }
  }
}

/** What a hook gives reaches the headers of later answers, so it has to pass the same checks as what clients send. */
function checkedMetadata(metadata: Metadata, asSent: string | undefined): string | undefined {
  const header = formatMetadata(metadata, asSent)
  if (header.length > maxMetadataBytes)
    throw new Error('a hook gave more metadata than can be in Upload-Metadata')
  if (parseMetadata(header) === undefined)
    throw new Error('onUploadCreate gave metadata with a key that can not be in Upload-Metadata')
  return header || undefined
}

/** 122 random bits. Node keeps a store of them for this, where random bytes would be drawn for each upload alone. */
function newId(): string {
  return randomUUID().replaceAll('-', '')
}

function asResponse({ status, headers, body }: Answer): Response {
  return new Response(status === 204 ? null : (body ?? null), { status, headers })
}

/** Throws when hooks want a status that no final answer can have. */
export function checkStatus(status: number): void {
  if (!Number.isInteger(status) || status < 200 || status > 599)
    throw new RangeError(`a hook gave the status ${status}`)
}

/** What hooks throw to refuse a request, in the manner of @tus/server. */
export function hookRefusal(error: unknown): { status: number; body: string } | undefined {
  if (typeof error !== 'object' || error === null || !('status_code' in error)) return undefined
  const { status_code: status, body } = error as { status_code: unknown; body?: unknown }
  if (typeof status !== 'number' || !Number.isInteger(status) || status < 400 || status > 599)
    return undefined
  return { status, body: typeof body === 'string' ? body : '' }
}
