/** What the plain doors need of the server that they belong to. */
import type { Readable } from 'node:stream'
import type { UploadRecord } from '../../stores/contracts.ts'
import type { Exchange, Reply } from '../host/exchange.ts'
import type { HookedRequest } from '../host/tus-hooks.ts'
import type { CorsOptions } from '../protocol/cors.ts'
import type { Command } from '../protocol/messages.ts'
import type { Answer } from '../protocol/tus.ts'
import type { UploadEngine } from '../uploads/engine.ts'

export interface Door {
  readonly engine: UploadEngine
  readonly options: CorsOptions & {
    readonly disableTermination?: boolean | undefined
    readonly disableDownload?: boolean | undefined
  }
  /** Lets a request in, or fails. `writes`: whether it brings bytes of an upload. */
  enter(exchange: Exchange, writes: boolean): Promise<Visit>
  /** The URL of an upload below the base path. */
  locationOf(id: string, exchange: Exchange): string
  download(record: UploadRecord, exchange: Exchange, request: HookedRequest): Promise<Reply>
  /** What a client is told of a failure, as the hooks want it. */
  answerError(error: unknown, exchange: Exchange, method: string): Promise<Answer>
}

/** One request that was let in. */
export interface Visit {
  readonly exchange: Exchange
  /** The request as engine and hooks see it; with a body of its own for each upload that it makes. */
  requestOf(body?: () => Readable): Promise<HookedRequest>
  /** Asked before the engine is, of everything; fails when hooks do not allow it. */
  allow(request: HookedRequest, command: Command): Promise<void>
}

/** Tells that an upload was finished, and lets the finish hook change the answer. */
export function conclude(door: Door, request: HookedRequest, record: UploadRecord, answer: Answer): Answer {
  if (!request.hasFinished) return request.withFinishHook(answer)
  let changed = answer
  try {
    changed = request.withFinishHook(answer)
    return changed
  } finally {
    request.answer = changed
    door.engine.teller.tell('finished', record, request)
  }
}
