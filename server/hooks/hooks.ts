/**
 * The hooks of a server: who is asked, how often, and what becomes of it when nobody answers. Blocking hooks fail closed:
 * what was to be asked and could not be is not done.
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RequestSummary, UploadRecord } from '../../stores/contracts.ts'
import { type HookAnswer, parseAnswer } from './answer.ts'
import { DirCaller } from './dir-caller.ts'
import {
  defaultHookTypes,
  type HookCall,
  type HookCaller,
  HookError,
  type HookType,
  hookTypes,
} from './hook-types.ts'
import { HttpCaller } from './http-caller.ts'
import { type HookPayload, type HookStorage, hookUploadOf, payloadOf, withoutSecrets } from './payload.ts'

/** Where hooks are, and which. Either `http` or `directory`. */
export interface HookSettings {
  readonly http?: {
    readonly url: string
    /** Headers of the client's request that are sent to the hooks too. */
    readonly forwardHeaders?: readonly string[]
    /** Take any certificate. */
    readonly skipVerify?: boolean
    /** `whsec_...`; every one of them signs. */
    readonly secrets?: readonly string[]
  }
  /** Folder of programs that are named like the events. */
  readonly directory?: string
  /** Default: all but `pre-access`, `pre-finish` and `pre-terminate`. */
  readonly enabled?: readonly HookType[]
  /** How often a blocking hook that failed is asked once more. Default 3. */
  readonly retries?: number
  /** How long to wait before. Default 1000. */
  readonly backoffMs?: number
  /** How long an answer may take. Default 15,000. */
  readonly timeoutMs?: number
  /** How long an answer may be. Default 5120. */
  readonly sizeLimitBytes?: number
  /** How often `post-receive` is told while a body runs. Default 1000. */
  readonly progressIntervalMs?: number
  /** After this time an event that could not be delivered is set aside. Default 3 days. */
  readonly giveUpAfterMs?: number
}

export type HookEvent =
  | { readonly is: 'hook-called'; readonly hook: HookType; readonly id: string }
  | { readonly is: 'hook-failed'; readonly hook: HookType; readonly id: string; readonly error: unknown }
  | { readonly is: 'hook-said'; readonly hook: HookType; readonly text: string }

export interface HooksParts {
  readonly settings: HookSettings
  /** Where an upload lies, in the words of tusd. */
  readonly storageOf: (record: UploadRecord) => HookStorage
  readonly report: (event: HookEvent) => void
  /** What time it is for signatures. Default: the wall clock. */
  readonly now?: () => number
  /** For programs. Default: that of this process. */
  readonly environment?: Readonly<Record<string, string | undefined>>
}

/** A server that is being stopped waits so long for hooks that hold a request up. */
const graceMs = 3_000

export class Hooks {
  readonly progressIntervalMs: number
  readonly giveUpAfterMs: number
  readonly #parts: HooksParts
  readonly #caller: HookCaller
  readonly #enabled: ReadonlySet<HookType>
  readonly #retries: number
  readonly #backoffMs: number
  readonly #forwarded: readonly string[]
  readonly #ending = new AbortController()
  #grace: NodeJS.Timeout | undefined

  constructor(parts: HooksParts) {
    const { settings } = parts
    this.#parts = parts
    this.#caller = callerOf(parts)
    this.#enabled = new Set(settings.enabled ?? defaultHookTypes)
    for (const type of this.#enabled)
      if (!hookTypes.includes(type)) throw new TypeError(`${type} is not a hook`)
    this.#retries = settings.retries ?? 3
    this.#backoffMs = settings.backoffMs ?? 1_000
    this.#forwarded = settings.http?.forwardHeaders?.map((name) => name.toLowerCase()) ?? []
    this.progressIntervalMs = settings.progressIntervalMs ?? 1_000
    this.giveUpAfterMs = settings.giveUpAfterMs ?? 3 * 86_400_000
  }

  has(type: HookType): boolean {
    return this.#enabled.has(type)
  }

  /** An upload that is there, as hooks are told of it. */
  uploadOf(record: UploadRecord) {
    return hookUploadOf(record, this.#parts.storageOf(record))
  }

  /** Asks, and once more when that fails. Fails with a `HookError` when nobody gave an answer that can be used. */
  async ask(payload: HookPayload, request: RequestSummary, metadata?: string): Promise<HookAnswer> {
    const call = this.#call(payload, request, randomBytes(16).toString('hex'), this.#ending.signal)
    for (let failures = 0; ; failures++) {
      try {
        this.#parts.report({ is: 'hook-called', hook: call.type, id: call.upload.id })
        return parseAnswer(await this.#caller.ask(call), metadata)
      } catch (error) {
        this.#parts.report({ is: 'hook-failed', hook: call.type, id: call.upload.id, error })
        const isPassing = error instanceof HookError && error.isPassing
        if (!isPassing || failures >= this.#retries || this.#ending.signal.aborted) throw error
        await sleep(this.#backoffMs, undefined, { signal: this.#ending.signal, ref: false }).catch(() => {
          throw error
        })
      }
    }
  }

  /** Tells of an event, under its own id, once. What holds secrets was taken out of its request. */
  async tell(
    type: HookType,
    id: string,
    record: UploadRecord,
    request: RequestSummary,
    signal: AbortSignal,
  ): Promise<void> {
    const payload = payloadOf(type, this.uploadOf(record), withoutSecrets(request))
    this.#parts.report({ is: 'hook-called', hook: type, id: record.head.id })
    await this.#caller.tell(this.#call(payload, withoutSecrets(request), id, signal))
  }

  /** Those that still hold a request up have a moment left. */
  stopSoon(): void {
    this.#grace ??= setTimeout(() => this.#ending.abort(), graceMs).unref()
  }

  async close(): Promise<void> {
    clearTimeout(this.#grace)
    this.#ending.abort()
    await this.#caller.close()
  }

  #call(payload: HookPayload, request: RequestSummary, id: string, signal: AbortSignal): HookCall {
    const { ID, Size, Offset } = payload.Event.Upload
    const headers: Record<string, string> = {}
    for (const name of this.#forwarded) {
      const value = request.headers[name]
      if (value !== undefined) headers[name] = typeof value === 'string' ? value : value.join(', ')
    }
    const upload = { id: ID, size: Size, offset: Offset }
    return { type: payload.Type, id, body: JSON.stringify(payload), headers, upload, signal }
  }
}

function callerOf({ settings, report, now = Date.now, environment }: HooksParts): HookCaller {
  const { http, directory, timeoutMs = 15_000, sizeLimitBytes = 5_120 } = settings
  const limits = { timeoutMs, sizeLimitBytes }
  if (http !== undefined && directory === undefined) {
    const { url, skipVerify = false, secrets = [] } = http
    return new HttpCaller({ url, skipVerify, secrets, now, ...limits })
  }
  if (directory !== undefined && http === undefined)
    return new DirCaller({
      directory,
      ...limits,
      environment: environment ?? process.env,
      onSaid: (hook, text) => report({ is: 'hook-said', hook, text }),
    })
  throw new TypeError('hooks are either behind a URL or programs in a folder')
}
