// A Fastify with uploads and /uploads in it, and people in front: `Authorization: Bearer ann` is Ann, `Bearer root` may see
// all, nothing is nobody. What they upload goes to the engine directly, as theirs.

import type { IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Readable } from 'node:stream'
import fastify from 'fastify'
import { onTestFinished } from 'vitest'
import { Refusal } from '../../server/errors.ts'
import { type UploadsApiOptions, uploadsApi } from '../../server/host/uploads-api.ts'
import { type OpenUploadsOptions, openUploads, type Uploads } from '../../server/open-uploads.ts'
import type { Asker } from '../../server/uploads/upload-request.ts'
import { append, request } from './engine.ts'
import { type EventReader, readEvents } from './event-reader.ts'
import { temporaryFolder } from './folder.ts'

export interface HouseOptions {
  folder?: string
  /** Nobody is asked who they are. */
  isOpen?: boolean
  uploads?: Partial<OpenUploadsOptions>
  api?: Partial<UploadsApiOptions>
}

export interface House {
  readonly url: string
  readonly folder: string
  readonly uploads: Uploads
  create: (who: string, more?: Creation) => Promise<string>
  append: (who: string, id: string, offset: number, body: Readable | string) => Promise<string>
  terminate: (who: string, id: string) => Promise<void>
  /** A final of these parts. */
  concat: (who: string, parts: string[]) => Promise<string>
  /** Status and JSON, or text where it is none. */
  get: (
    path: string,
    who?: string,
    headers?: Record<string, string>,
  ) => Promise<{ status: number; body: Body }>
  watch: (path: string, who?: string, headers?: Record<string, string>) => Promise<EventReader>
  close: () => Promise<void>
}

// biome-ignore lint/suspicious/noExplicitAny: whatever the server wrote; the test says what it is
type Body = any

interface Creation {
  length?: number | undefined
  body?: string
  metadata?: string
  partial?: boolean
}

export async function startHouse(options: HouseOptions = {}): Promise<House> {
  const folder = options.folder ?? (await temporaryFolder())
  const uploads = await openUploads({
    path: '/files',
    directory: folder,
    durability: 'none',
    ...options.uploads,
  })
  const app = fastify({ forceCloseConnections: true })
  const whoAsks = async (req: IncomingMessage) =>
    nameOf(req) ? askerOf(nameOf(req)) : new Refusal('owner-needed')
  await app.register(uploadsApi, { uploads, ...(!options.isOpen && { whoAsks }), ...options.api })
  let isClosed = false
  const close = async () => {
    if (isClosed) return
    isClosed = true
    await uploads.drain()
    await app.close()
    await uploads.close()
  }
  onTestFinished(close)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const { engine } = uploads.server
  const by = (who: string | undefined) => (who === undefined ? {} : { Authorization: `Bearer ${who}` })
  const idOf = (outcome: Awaited<ReturnType<typeof engine.create>>) => {
    if (outcome.is === 'created') return outcome.record.head.id
    throw new Error(`it was not created: ${JSON.stringify(outcome)}`)
  }
  return {
    url,
    folder,
    uploads,
    close,
    async create(who, { length, body, metadata, partial } = {}) {
      const bytes = { isBytes: body !== undefined, hasBody: body !== undefined, checksum: undefined }
      const part = { partial: partial ? ('partial' as const) : undefined }
      const command = {
        do: 'create',
        length: length ?? body?.length,
        metadata,
        contentLength: body?.length ?? 0,
      } as const
      return idOf(
        await engine.create({ ...command, ...bytes, ...part }, request(body, { asker: askerOf(who) })),
      )
    },
    append: async (who, id, offset, body) =>
      (await append(engine, id, offset, body, request(body, { asker: askerOf(who) }))).is,
    async terminate(who, id) {
      const outcome = await engine.terminate(id, request(undefined, { asker: askerOf(who) }))
      if (outcome.is !== 'terminated') throw new Error(`it was not terminated but ${outcome.is}`)
    },
    async concat(who, parts) {
      const asSent = `final;${parts.map((id) => `/files/${id}`).join(' ')}` as const
      const command = { do: 'concat', asSent, parts, metadata: undefined } as const
      return idOf(await engine.concat(command, request(undefined, { asker: askerOf(who) })))
    },
    async get(path, who, headers = {}) {
      const answer = await fetch(url + path, { headers: { ...by(who), ...headers } })
      const text = await answer.text()
      return { status: answer.status, body: text.startsWith('{') ? (JSON.parse(text) as Body) : text }
    },
    async watch(path, who, headers = {}) {
      const reader = await readEvents(url + path, { ...by(who), ...headers } as Record<string, string>)
      onTestFinished(() => reader.close())
      return reader
    },
  }
}

function nameOf(req: IncomingMessage): string {
  return /^Bearer (\w+)$/.exec(req.headers.authorization ?? '')?.[1] ?? ''
}

function askerOf(who: string): Asker {
  return { owner: who, seesAll: who === 'root' }
}
