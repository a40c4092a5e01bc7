// The engine without HTTP: an engine over a folder, and requests that are plain values.

import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { onTestFinished } from 'vitest'
import { type EngineParts, UploadEngine } from '../../server/uploads/engine.ts'
import type { EngineEvent } from '../../server/uploads/engine-event.ts'
import { anybody, type UploadRequest } from '../../server/uploads/upload-request.ts'
import type { UploadEvent, UploadRecord } from '../../stores/contracts.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { LmdbRecords } from '../../stores/local/lmdb-records.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'

export async function startEngine(
  directory: string,
  {
    settings,
    ...parts
  }: Partial<Omit<EngineParts, 'settings'>> & { settings?: Partial<EngineParts['settings']> } = {},
): Promise<{ engine: UploadEngine; events: EngineEvent[] }> {
  const events: EngineEvent[] = []
  const engine = new UploadEngine({
    bytes: new FileBytes({ directory, durability: 'none' }),
    records: new LmdbRecords({ directory: path.join(directory, '.tidemark') }),
    locker: new LocalLocker(),
    report: (event) => events.push(event),
    settings: {
      expiry: { afterMs: 0, mode: 'sliding' },
      idleMs: 60_000,
      leastBytesPerSecond: 0,
      acquireLockTimeoutMs: 5_000,
      removeParts: false,
      reserveFreeBytes: 0,
      refuseMetadata: undefined,
      ...settings,
    },
    ownRequest: () => request(),
    audiences: [{ name: 'test', isImmediate: true, hears: () => true, tell: tellRequest }],
    ...parts,
  })
  await engine.start()
  onTestFinished(() => engine.close())
  return { engine, events }
}

async function tellRequest({ kind, record }: UploadEvent, to: UploadRequest | undefined): Promise<void> {
  if (kind !== 'terminated') (to as TestRequest | undefined)?.told[kind].push(record)
}

export interface TestRequest extends UploadRequest {
  /** Uploads that the engine told it created and, behind the answer, finished, for this request. */
  readonly told: {
    readonly created: UploadRecord[]
    readonly beforeFinish: UploadRecord[]
    readonly finished: UploadRecord[]
  }
}

/** A request with a body, or none; `changes` put other answers in place of the plain ones. */
export function request(
  body?: Readable | Uint8Array | string,
  changes: Partial<UploadRequest> = {},
): TestRequest {
  const told = {
    created: [] as UploadRecord[],
    beforeFinish: [] as UploadRecord[],
    finished: [] as UploadRecord[],
  }
  return {
    told,
    body: () => asStream(body),
    signal: new AbortController().signal,
    mayTerminateFinished: true,
    nameUpload: async (_, suggested) => suggested ?? randomBytes(16).toString('hex'),
    repeated: async () => undefined,
    beforeCreate: async (head) => head,
    beforeTerminate: async () => undefined,
    reauthorize: async () => undefined,
    asker: anybody,
    maxBytes: async () => Number.POSITIVE_INFINITY,
    beforeFinish: async (record) => void told.beforeFinish.push(record),
    received: () => undefined,
    ...changes,
  }
}

/** A body that stays open until somebody ends it. */
export function openBody(first?: string): PassThrough {
  const body = new PassThrough()
  if (first !== undefined) body.write(first)
  return body
}

/** Creates an upload, with the first bytes when there are some, and says its id. */
export async function createUpload(
  engine: UploadEngine,
  length: number | undefined,
  first?: string,
): Promise<string> {
  const outcome = await engine.create(
    {
      do: 'create',
      length,
      metadata: undefined,
      isBytes: first !== undefined,
      hasBody: first !== undefined,
      contentLength: first === undefined ? 0 : Buffer.byteLength(first),
      checksum: undefined,
    },
    request(first),
  )
  if (outcome.is !== 'created') throw new Error(`the upload was not created but ${outcome.is}`)
  return outcome.record.head.id
}

/** Appends a body of unknown length. */
export function append(
  engine: UploadEngine,
  id: string,
  offset: number,
  body: Readable | string,
  req = request(body),
) {
  return engine.append(
    { do: 'append', id, offset, length: undefined, contentLength: undefined, checksum: undefined },
    req,
  )
}

function asStream(body: Readable | Uint8Array | string | undefined): Readable {
  if (body instanceof Readable) return body
  return Readable.from(body === undefined ? [] : [Buffer.from(body as string)])
}
