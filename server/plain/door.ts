/** What the plain doors need of the server that they belong to. */
import type { UploadRecord } from '../../stores/contracts.ts'
import type { Exchange, Reply } from '../host/exchange.ts'
import type { HookedRequest } from '../host/tus-hooks.ts'
import type { CorsOptions } from '../protocol/cors.ts'
import type { Answer } from '../protocol/tus.ts'
import type { UploadEngine } from '../uploads/engine.ts'

export interface Door {
  readonly engine: UploadEngine
  readonly options: CorsOptions & {
    readonly disableTermination?: boolean | undefined
    readonly disableDownload?: boolean | undefined
  }
  /** A request as engine and hooks see it, when it is known whose it is. Fails when it is refused. */
  requestOf(exchange: Exchange): Promise<HookedRequest>
  /** The URL of an upload below the base path. */
  locationOf(id: string, exchange: Exchange): string
  download(record: UploadRecord, exchange: Exchange, request: HookedRequest): Promise<Reply>
  /** What a client is told of a failure, as the hooks want it. */
  answerError(error: unknown, exchange: Exchange, method: string): Promise<Answer>
}

/** Tells that an upload was finished, and lets the finish hook change the answer. */
export function conclude(door: Door, request: HookedRequest, record: UploadRecord, answer: Answer): Answer {
  if (!request.hasFinished) return answer
  let changed = answer
  try {
    changed = request.withFinishHook(answer)
    return changed
  } finally {
    request.answer = changed
    door.engine.teller.tell('finished', record, request)
  }
}
