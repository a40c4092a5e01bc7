/** The requests of the cases, with every answer checked: a server that answers wrongly has no numbers. */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Answer, Connection, headerOf } from './connection.ts'
import type { Content } from './content.ts'

export interface Target {
  readonly port: number
  /** Where uploads are created, with a slash at its end: `/files/`. */
  readonly basePath: string
}

export interface Upload {
  readonly path: string
  readonly content: Content
  readonly length: number
}

const offsetType = 'Content-Type: application/offset+octet-stream\r\n'
/** The shortest pause of usual clients. */
const retryMs = 100
/** A file name, as every usual client sends one. */
const metadata = `Upload-Metadata: filename ${Buffer.from('measured.bin').toString('base64')}\r\n`

/** One client with one connection, which is opened anew when the server has ended it. */
export class Client {
  readonly #target: Target
  #connection: Connection | undefined

  constructor(target: Target) {
    this.#target = target
  }

  /** How often the server made us connect again. */
  reconnects = -1

  async create(content: Content, length: number): Promise<Upload> {
    const { basePath } = this.#target
    const head = this.#head('POST', basePath, `Upload-Length: ${length}\r\n${metadata}Content-Length: 0\r\n`)
    const answer = await this.#ask({ head }, 201)
    return { path: pathOf(answer), content, length }
  }

  /** Creation-with-upload: the whole upload in its first request. */
  async createWith(content: Content, length: number): Promise<Upload> {
    const headers = `Upload-Length: ${length}\r\n${metadata}${offsetType}Content-Length: ${length}\r\n`
    const head = this.#head('POST', this.#target.basePath, headers)
    const answer = await this.#ask({ head, body: { content, from: 0, to: length } }, 201)
    checkOffset(answer, length)
    return { path: pathOf(answer), content, length }
  }

  /** One PATCH with the bytes of the upload from `from` to `to`. */
  async append({ path, content }: Upload, from: number, to: number): Promise<void> {
    const head = this.#head('PATCH', path, patchHeaders(from, to))
    checkOffset(await this.#ask({ head, body: { content, from, to } }, 204), to)
  }

  /** A PATCH whose body comes by `send`. */
  async beginAppend({ path, length }: Upload): Promise<ReturnType<Connection['begin']>> {
    const connection = await this.#connected()
    return connection.begin(this.#head('PATCH', path, patchHeaders(0, length)))
  }

  /** Goes on where an upload stopped, as clients do: asks for the offset, sends the rest, and tries again while refused. */
  async resume(upload: Upload): Promise<void> {
    for (;;) {
      const asked = await this.#answer({ head: this.#head('HEAD', upload.path) })
      if (asked.status === 200) {
        const from = Number(headerOf(asked.head, 'upload-offset'))
        const head = this.#head('PATCH', upload.path, patchHeaders(from, upload.length))
        const body = { content: upload.content, from, to: upload.length }
        const answer = await this.#answer({ head, body })
        if (answer.status === 204) return checkOffset(answer, upload.length)
        if (answer.status !== 423 && answer.status !== 409) throw wrongAnswer('PATCH', answer)
      } else if (asked.status !== 423) throw wrongAnswer('HEAD', asked)
      await sleep(retryMs)
    }
  }

  /** PUT, for servers that know no tus. */
  async put(content: Content, length: number, name: string): Promise<Upload> {
    const path = `${this.#target.basePath}${name}`
    const head = this.#head('PUT', path, `Content-Length: ${length}\r\n`, '')
    await this.#ask({ head, body: { content, from: 0, to: length } }, 201)
    return { path, content, length }
  }

  async offset({ path }: Upload): Promise<number> {
    return Number(headerOf((await this.#ask({ head: this.#head('HEAD', path) }, 200)).head, 'upload-offset'))
  }

  /** GET; the number of bytes that came. */
  async download({ path }: Upload, onBody?: (bytes: Buffer) => void): Promise<number> {
    const head = this.#head('GET', path, '', '')
    return (await this.#ask({ head, ...(onBody && { onBody }) }, 200)).bodyBytes
  }

  /** Asks for the whole content again and compares its digest. */
  async verify(upload: Upload): Promise<void> {
    const hash = createHash('sha256')
    await this.download(upload, (bytes) => void hash.update(bytes))
    if (hash.digest('hex') !== upload.content.digest(upload.length)) {
      throw new Error(`${upload.path} holds other bytes than were sent`)
    }
  }

  async remove({ path }: Upload): Promise<void> {
    await this.#ask({ head: this.#head('DELETE', path) }, 204)
  }

  close(): void {
    this.#connection?.close()
    this.#connection = undefined
  }

  #head(method: string, path: string, headers = '', protocol = 'Tus-Resumable: 1.0.0\r\n'): string {
    return `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1:${this.#target.port}\r\n${protocol}${headers}\r\n`
  }

  async #ask(request: Parameters<Connection['request']>[0], wanted: number): Promise<Answer> {
    const answer = await this.#answer(request)
    if (answer.status === wanted) return answer
    throw wrongAnswer(request.head.split('\r\n', 1)[0]!, answer)
  }

  async #answer(request: Parameters<Connection['request']>[0]): Promise<Answer> {
    return (await this.#connected()).request(request)
  }

  async #connected(): Promise<Connection> {
    if (this.#connection?.isOpen) return this.#connection
    this.#connection = await Connection.open(this.#target.port)
    this.reconnects++
    return this.#connection
  }
}

function wrongAnswer(request: string, { status, head }: Answer): Error {
  return new Error(`${request} was answered ${status}:\n${head}`)
}

function patchHeaders(from: number, to: number): string {
  return `Upload-Offset: ${from}\r\n${offsetType}Content-Length: ${to - from}\r\n`
}

function checkOffset(answer: Answer, wanted: number): void {
  const offset = headerOf(answer.head, 'upload-offset')
  // Servers may leave it out of the answer to a creation; then the sample that is read back decides alone.
  if (offset === undefined && answer.status === 201) return
  if (offset !== String(wanted)) throw new Error(`the answer says Upload-Offset ${offset}, not ${wanted}`)
}

function pathOf(answer: Answer): string {
  const location = headerOf(answer.head, 'location')
  if (location === undefined) throw new Error(`a creation was answered without Location:\n${answer.head}`)
  return location.replace(/^(https?:)?\/\/[^/]*/, '')
}
