// A running TidemarkServer on a folder and a port of its own, and requests that are written to its socket exactly as a
// test says: whole, in pieces, chunked, held back, cut off. A test reads as an exchange: what is there, one request,
// what comes back, and what a HEAD shows afterwards.

import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import type { ServerEvent, TidemarkServerOptions } from '../../server/host/server-options.ts'
import { TidemarkServer } from '../../server/host/tidemark-server.ts'
import { FileStore } from '../../stores/file/file-store.ts'
import { type Deferred, deferred } from '../support/deferred.ts'
import { makeFolder } from '../support/folder.ts'

/** A header that is undefined is not sent, not even where one would be sent by itself (`Host`, `Tus-Resumable`). */
export type Headers = Record<string, string | number | undefined>

export interface Answer {
  readonly status: number
  /** By name in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
}

/** The headers of a PATCH, or of a creation with bytes. */
export function bytesAt(offset: number | string, more: Headers = {}): Headers {
  return { 'Upload-Offset': offset, 'Content-Type': 'application/offset+octet-stream', ...more }
}

export const bytesType = { 'Content-Type': 'application/offset+octet-stream' }

/** For use inside a test: closed and removed when the test has finished. */
export async function startSite(options: Partial<TidemarkServerOptions> = {}): Promise<Site> {
  const folder = await makeFolder()
  const reports: ServerEvent[] = []
  const server = new TidemarkServer({
    path: '/files',
    datastore: new FileStore({ directory: folder.path, durability: 'none' }),
    report: (event) => reports.push(event),
    ...options,
  })
  const http = server.listen(0, '127.0.0.1')
  await once(http, 'listening')
  onTestFinished(async () => {
    http.closeAllConnections()
    http.close()
    await server.close()
    await folder.remove()
  })
  return new Site(server, folder.path, (http.address() as AddressInfo).port, reports)
}

export class Site {
  readonly server: TidemarkServer
  readonly folder: string
  readonly port: number
  readonly reports: readonly ServerEvent[]

  constructor(server: TidemarkServer, folder: string, port: number, reports: readonly ServerEvent[]) {
    this.server = server
    this.folder = folder
    this.port = port
    this.reports = reports
  }

  get host(): string {
    return `127.0.0.1:${this.port}`
  }

  /** One request with its whole body, and its answer. */
  async send(
    method: string,
    url: string,
    headers: Headers = {},
    body?: string | Uint8Array,
  ): Promise<Answer> {
    const length = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) }
    const request = this.open(method, url, { ...length, ...headers })
    if (body !== undefined) request.write(body)
    try {
      return await request.answer
    } finally {
      request.cut()
    }
  }

  /** A request whose head is sent; its body is up to the test. */
  open(method: string, url: string, headers: Headers = {}): OpenRequest {
    const all: Headers = { Host: this.host, 'Tus-Resumable': '1.0.0', ...headers }
    const lines = Object.entries(all).flatMap(([name, value]) =>
      value === undefined ? [] : [`${name}: ${value}\r\n`],
    )
    return new OpenRequest(this.port, method, `${method} ${url} HTTP/1.1\r\n${lines.join('')}\r\n`)
  }

  /** Makes an upload, and gives the path of its URL. */
  async create(length: number | 'deferred', headers: Headers = {}, body?: string): Promise<string> {
    const size = length === 'deferred' ? { 'Upload-Defer-Length': 1 } : { 'Upload-Length': length }
    const answer = await this.send('POST', '/files', { ...size, ...headers }, body)
    if (answer.status !== 201) throw new Error(`creation: ${answer.status} ${answer.text}`)
    return pathOf(answer)
  }

  /** An upload that is finished with these bytes. */
  createFinished(body: string, headers: Headers = {}): Promise<string> {
    return this.create(Buffer.byteLength(body), { ...bytesType, ...headers }, body)
  }

  append(url: string, offset: number, body: string, headers: Headers = {}): Promise<Answer> {
    return this.send('PATCH', url, bytesAt(offset, headers), body)
  }

  head(url: string): Promise<Answer> {
    return this.send('HEAD', url)
  }

  /** What HEAD shows: `3/6` for 3 bytes of 6, `3/?` while the length is not known, else the status. */
  async shown(url: string): Promise<string> {
    const { status, headers } = await this.head(url)
    return status === 200 ? `${headers['upload-offset']}/${headers['upload-length'] ?? '?'}` : String(status)
  }
}

/** Path of the URL in a creation's answer. */
export function pathOf({ headers }: Answer): string {
  return new URL(headers.location ?? '', 'http://none').pathname
}

/** One request on a connection of its own. */
export class OpenRequest {
  /** Resolves with the whole answer; fails when the connection ends before. */
  readonly answer: Promise<Answer>
  /** `100 Continue` has come. */
  readonly continued: Promise<void>
  readonly closed: Promise<void>
  /** Something of the answer has come. */
  readonly begun: Promise<void>
  readonly #socket: Socket
  readonly #continue: Deferred = deferred()
  readonly #method: string
  #input: Buffer = Buffer.alloc(0)

  constructor(port: number, method: string, head: string) {
    this.#method = method
    this.#socket = connect(port, '127.0.0.1')
    this.#socket.write(head, 'latin1')
    this.continued = this.#continue.promise
    this.closed = new Promise((resolve) => this.#socket.once('close', () => resolve()))
    this.begun = new Promise((resolve) => this.#socket.once('data', () => resolve()))
    this.answer = this.#read()
    this.answer.catch(() => undefined) // Not every test waits for its answers.
  }

  /** Bytes of a body with a Content-Length. False when the system takes no more for now. */
  write(bytes: string | Uint8Array): boolean {
    return this.#socket.write(bytes)
  }

  /** The system takes more bytes. */
  async drained(): Promise<void> {
    if (this.#socket.writableNeedDrain) await once(this.#socket, 'drain')
  }

  chunk(bytes: string): void {
    this.#socket.write(`${Buffer.byteLength(bytes).toString(16)}\r\n${bytes}\r\n`)
  }

  lastChunk(): void {
    this.#socket.write('0\r\n\r\n')
  }

  /** The client goes away, after what it wrote. */
  cut(): void {
    this.#socket.destroySoon()
  }

  #read(): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const look = (isClosed: boolean) => {
        const answer = this.#parse(isClosed)
        if (answer) resolve(answer)
        else if (isClosed) reject(new Error(`the connection ended after: ${this.#input.toString('latin1')}`))
      }
      this.#socket.on('data', (data) => {
        this.#input = Buffer.concat([this.#input, data])
        look(false)
      })
      this.#socket.on('error', () => undefined) // It ends the connection, and that is what counts.
      this.#socket.on('close', () => look(true))
    })
  }

  /** The answer, once all of it is there. */
  #parse(isClosed: boolean): Answer | undefined {
    const end = this.#input.indexOf('\r\n\r\n')
    if (end < 0) return undefined
    const [statusLine = '', ...lines] = this.#input.toString('latin1', 0, end).split('\r\n')
    const status = Number(statusLine.split(' ')[1])
    const rest = this.#input.subarray(end + 4)
    if (status === 100) {
      this.#continue.resolve()
      this.#input = rest
      return this.#parse(isClosed)
    }
    const headers = parseHeaders(lines)
    const isEmpty = this.#method === 'HEAD' || status === 204 || status === 304
    const body = isEmpty ? Buffer.alloc(0) : parseBody(rest, headers, isClosed)
    return body && { status, headers, text: body.toString() }
  }
}

/** A header that came twice is shown as a list, as HTTP has it. */
function parseHeaders(lines: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value
  }
  return headers
}

function parseBody(rest: Buffer, headers: Record<string, string>, isClosed: boolean): Buffer | undefined {
  if (headers['transfer-encoding'] === 'chunked') return parseChunks(rest)
  const length = headers['content-length']
  if (length === undefined) return isClosed ? rest : undefined
  return rest.length >= Number(length) ? rest.subarray(0, Number(length)) : undefined
}

function parseChunks(rest: Buffer): Buffer | undefined {
  const chunks: Buffer[] = []
  for (let at = 0; ; ) {
    const lineEnd = rest.indexOf('\r\n', at)
    if (lineEnd < 0) return undefined
    const size = Number.parseInt(rest.toString('latin1', at, lineEnd), 16)
    if (rest.length < lineEnd + 2 + size + 2) return undefined
    if (size === 0) return Buffer.concat(chunks)
    chunks.push(rest.subarray(lineEnd + 2, lineEnd + 2 + size))
    at = lineEnd + 2 + size + 2
  }
}
