/**
 * The hooks of one request: asked at the moments that the engine names, with what is known of the request. Keeps what
 * they want changed in its answer.
 */
import { isIPv6 } from 'node:net'
import type { RequestSummary, UploadHead, UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { Answer } from '../protocol/tus.ts'
import { ProgressPace } from '../uploads/progress-pace.ts'
import { type HookAnswer, type HookResponse, merged } from './answer.ts'
import { HookRefusal } from './hook-refusal.ts'
import type { HookType } from './hook-types.ts'
import type { Hooks } from './hooks.ts'
import { type AccessAction, type HookUpload, payloadOf, plannedUploadOf } from './payload.ts'

export class RequestHooks {
  readonly #hooks: Hooks
  readonly summary: RequestSummary
  readonly #stop = new AbortController()
  #response: HookResponse = { headers: {} }
  readonly #pace: ProgressPace
  #isTelling = false
  /** What is to be told of the body when the open question is answered: it has ended. */
  #last: UploadRecord | undefined

  constructor(hooks: Hooks, summary: RequestSummary) {
    this.#hooks = hooks
    this.summary = summary
    this.#pace = new ProgressPace(hooks.progressIntervalMs)
  }

  /** Aborts when a hook wants the running body to end and its upload to go; the reason is what the client is told. */
  get stopping(): AbortSignal {
    return this.#stop.signal
  }

  get asksForAccess(): boolean {
    return this.#hooks.has('pre-access')
  }

  async beforeAccess(action: AccessAction, upload: UploadRecord | HookUpload): Promise<void> {
    const shown = 'mark' in upload ? this.#hooks.uploadOf(upload) : upload
    const { rejectsAccess, response } = await this.#ask('pre-access', shown, { action })
    if (rejectsAccess || isRefusal(response)) throw new HookRefusal('access-rejected', response)
  }

  async beforeCreate(head: UploadHead, length: number | undefined): Promise<UploadHead> {
    if (!this.#hooks.has('pre-create')) return head
    const { metadata: asSent, ...rest } = head
    const answer = await this.#ask('pre-create', plannedUploadOf(head, length), { metadata: asSent })
    if (answer.rejectsUpload) throw new HookRefusal('upload-rejected', answer.response)
    this.#response = merged(this.#response, answer.response)
    const { id, metadata = asSent, storagePath } = answer.change
    return {
      ...rest,
      ...(metadata && { metadata }),
      ...(id !== undefined && { id }),
      // At its own name it is already.
      ...(storagePath !== undefined && storagePath !== (id ?? head.id) && { storagePath }),
    }
  }

  async beforeFinish(record: UploadRecord): Promise<void> {
    if (!this.#hooks.has('pre-finish')) return
    const answer = await this.#ask('pre-finish', this.#hooks.uploadOf(record))
    if (answer.rejectsUpload || isRefusal(answer.response))
      throw new HookRefusal('finish-rejected', answer.response)
    this.#response = merged(this.#response, answer.response)
  }

  async beforeTerminate(record: UploadRecord): Promise<void> {
    if (!this.#hooks.has('pre-terminate')) return
    const answer = await this.#ask('pre-terminate', this.#hooks.uploadOf(record))
    if (answer.rejectsTermination) throw new HookRefusal('termination-rejected', answer.response)
    this.#response = merged(this.#response, answer.response)
  }

  /** While a body runs, and when it `hasEnded`; never waits, and never has two questions open. */
  received(record: UploadRecord, hasEnded = false): void {
    if (!this.#hooks.has('post-receive')) return
    if (this.#isTelling) {
      if (hasEnded) this.#last = record
      return
    }
    if (!this.#pace.isDue(record.mark.offset, hasEnded)) return
    this.#isTelling = true
    this.#ask('post-receive', this.#hooks.uploadOf(record))
      .then(({ stopsUpload, response }) => {
        if (stopsUpload) this.#stop.abort(new HookRefusal('upload-stopped', response))
      })
      // It was reported; what a hook has to say of a running upload can wait for the next time.
      .catch(() => undefined)
      .finally(() => {
        this.#isTelling = false
        if (this.#last) this.received(this.#last, true)
        this.#last = undefined
      })
  }

  /** The answer of a request that succeeded, as the hooks want it. */
  change(answer: Answer): Answer {
    return changed(answer, this.#response)
  }

  async #ask(
    type: HookType,
    upload: HookUpload,
    { action, metadata }: { action?: AccessAction; metadata?: string | undefined } = {},
  ): Promise<HookAnswer> {
    try {
      return await this.#hooks.ask(payloadOf(type, upload, this.summary, action), this.summary, metadata)
    } catch (cause) {
      throw new Refusal('hook-failed', { cause })
    }
  }
}

/** An answer with what a hook wants changed in it. */
export function changed(answer: Answer, { status, headers, body }: HookResponse): Answer {
  const names = new Set(Object.keys(headers).map((name) => name.toLowerCase()))
  const kept = Object.entries(answer.headers).filter(([name]) => !names.has(name.toLowerCase()))
  // A browser shall not find out by itself what a body is.
  const needsType = body !== undefined && !names.has('content-type')
  return {
    ...answer,
    ...(status !== undefined && { status }),
    headers: {
      ...Object.fromEntries(kept),
      ...(needsType && { 'Content-Type': 'text/plain; charset=utf-8' }),
      ...headers,
    },
    ...(body !== undefined && { body }),
  }
}

export interface SeenRequest {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly peerAddress: string | undefined
  readonly peerPort: number | undefined
}

/** To be made when the request begins: of a connection that has ended nobody knows where it came from. */
export function summaryOf({ method, url, headers, peerAddress, peerPort }: SeenRequest): RequestSummary {
  const there = Object.entries(headers).filter(([, value]) => value !== undefined)
  return {
    method,
    uri: url,
    remoteAddress: peerAddress === undefined ? '' : `${inUrl(peerAddress)}:${peerPort ?? 0}`,
    headers: Object.fromEntries(there) as RequestSummary['headers'],
  }
}

function inUrl(address: string): string {
  return isIPv6(address) ? `[${address}]` : address
}

function isRefusal({ status }: HookResponse): boolean {
  return status !== undefined && status >= 400
}
