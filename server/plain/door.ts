/** What the plain doors need of the server that they belong to. */
import type { Readable } from 'node:stream'
import type { UploadRecord } from '../../stores/contracts.ts'
import type { Refusal } from '../errors.ts'
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

/** Finishes an upload as it stands, whose length is known since the end of its body was seen. Fails with what kept it open. */
export async function finishAsItStands(
  { engine }: Door,
  { head, mark }: UploadRecord,
  request: HookedRequest,
  whyStopped: () => Refusal,
): Promise<UploadRecord> {
  const { offset } = mark
  const nothing = { contentLength: 0, checksum: undefined }
  const command = { do: 'append', id: head.id, offset, length: offset, ...nothing } as const
  const outcome = await engine.append(command, request)
  if (outcome.is === 'appended') return outcome.record
  throw outcome.is === 'refused' ? outcome.refusal : whyStopped()
}
