// A server process under attack, with what must come to no harm: a folder in folders of its own, an upload that has
// begun and one that is finished. After each attack `expectCalm` finds out whether all is as it was.

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, vi } from 'vitest'
import { makeFolder } from '../support/folder.ts'
import { randomBytes } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { type Answer, faultsOf, Wire } from './wire.ts'

export type Headers = readonly (readonly [name: string, value: string | number])[]

/** The headers of a request with bytes of an upload. */
export function bytesAt(offset: number | string, length: number): Headers {
  return [
    ['Tus-Resumable', '1.0.0'],
    ['Content-Type', 'application/offset+octet-stream'],
    ['Upload-Offset', offset],
    ['Content-Length', length],
  ]
}

export const version: Headers = [['Tus-Resumable', '1.0.0']]

export function headOf(method: string, url: string, headers: Headers): string {
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${url} HTTP/1.1\r\nHost: besieged\r\n${lines.join('')}\r\n`
}

const MiB = 1024 * 1024
const inside = fileURLToPath(new URL('./inside.mjs', import.meta.url))
const secret = 'nobody reads or writes this'
const known = randomBytes('known', MiB)
const pieceBytes = 1000

/** What the process holds, after the garbage is gone. */
interface Held {
  readonly sockets: number
  readonly timers: number
  readonly heapBytes: number
  readonly rssBytes: number
  readonly files: number
}

export class Besieged {
  readonly server: ServerProcess
  /** The upload folder. */
  readonly folder: string
  readonly #outer: { path: string; remove: () => Promise<void> }
  readonly #pid: number
  #before: Held | undefined
  #begun = ''
  #begunOffset = 0
  #finished = ''

  static async start(): Promise<Besieged> {
    const outer = await makeFolder()
    const folder = join(outer.path, 'one', 'two', 'uploads')
    await mkdir(folder, { recursive: true })
    for (const place of ['.', 'one', 'one/two']) await writeFile(join(outer.path, place, 'secret'), secret)
    const server = await startServer({
      dir: folder,
      args: ['--durability', 'none', '--behind-proxy', '--shutdown-timeout', '5s'],
      nodeArgs: ['--expose-gc', '--import', inside],
    })
    const besieged = new Besieged(server, folder, outer)
    await besieged.#prepare()
    return besieged
  }

  private constructor(
    server: ServerProcess,
    folder: string,
    outer: { path: string; remove: () => Promise<void> },
  ) {
    this.server = server
    this.folder = folder
    this.#outer = outer
    this.#pid = server.pid
  }

  get port(): number {
    return this.server.port
  }

  /** Whether a path, after one decoding, is that of an upload that must come to no harm. */
  isProtected(path: string): boolean {
    return path.includes(this.#begun) || path.includes(this.#finished)
  }

  /** The paths of the uploads that must come to no harm. */
  get paths(): { begun: string; finished: string } {
    return { begun: this.#begun, finished: this.#finished }
  }

  open(): Wire {
    return new Wire(this.port)
  }

  /** One request with a right body, on a connection of its own. */
  async send(method: string, url: string, headers: Headers, body: string | Uint8Array = ''): Promise<Answer> {
    const wire = this.open().expects(method)
    try {
      wire.write(headOf(method, url, headers))
      wire.write(body)
      const [answer] = await wire.answers()
      return answer!
    } finally {
      await wire.cut()
    }
  }

  /** Path of a new upload. */
  async create(length: number | 'deferred', body: Uint8Array = new Uint8Array()): Promise<string> {
    const size = length === 'deferred' ? 'Upload-Defer-Length' : 'Upload-Length'
    const answer = await this.send(
      'POST',
      '/files/',
      [...bytesAt(0, body.length), [size, length === 'deferred' ? 1 : length]],
      body,
    )
    if (answer.status !== 201) throw new Error(`creation: ${answer.status} ${answer.body}`)
    return new URL(answer.headers.get('location') ?? '').pathname
  }

  /** `3/6`, or `3/?`, or the status. */
  async shown(path: string): Promise<string> {
    const { status, headers } = await this.send('HEAD', path, version)
    if (status !== 200) return String(status)
    return `${headers.get('upload-offset')}/${headers.get('upload-length') ?? '?'}`
  }

  async stored(path: string): Promise<Buffer> {
    return readFile(join(this.folder, path.slice('/files/'.length)))
  }

  /** All is as it was before the attack: the process, its memory, timers, sockets and files, and both uploads. */
  async expectCalm(withinMs = 20_000): Promise<void> {
    const { server } = this
    expect(server.pid).toBe(this.#pid)
    const live = await this.send('GET', '/health/live', [])
    expect(live.status).toBe(200)
    await this.#expectUploadsUntouched()
    expect(await this.#strangeFiles()).toEqual([])
    const before = this.#before!
    await vi.waitFor(
      async () => {
        const now = await this.#held()
        expect(now.sockets).toBeLessThanOrEqual(before.sockets)
        expect(now.timers).toBeLessThanOrEqual(before.timers)
        expect(now.files).toBeLessThanOrEqual(before.files)
        expect(now.heapBytes - before.heapBytes).toBeLessThan(24 * MiB)
        expect(now.rssBytes - before.rssBytes).toBeLessThan(160 * MiB)
      },
      { timeout: withinMs, interval: 100 },
    )
    expect(this.#complaints()).toEqual([])
  }

  /** Ends in order, with nothing left to wait for. */
  async stop(): Promise<void> {
    const exit = await this.server.stop()
    await this.#outer.remove()
    expect(exit).toEqual({ code: 0, signal: null })
  }

  async #prepare(): Promise<void> {
    this.#begun = await this.create(known.length)
    this.#finished = await this.create(known.length, known)
    for (let i = 0; i < 50; i++) await this.#expectUploadsUntouched()
    this.#before = await this.#held()
  }

  /** The one goes on by a piece, the other is served as it was sent. */
  async #expectUploadsUntouched(): Promise<void> {
    expect(await this.shown(this.#begun)).toBe(`${this.#begunOffset}/${known.length}`)
    const piece = known.subarray(this.#begunOffset, this.#begunOffset + pieceBytes)
    const goneOn = await this.send('PATCH', this.#begun, bytesAt(this.#begunOffset, piece.length), piece)
    expect(goneOn.status).toBe(204)
    this.#begunOffset += piece.length
    const stored = await this.stored(this.#begun)
    expect(stored.equals(known.subarray(0, this.#begunOffset))).toBe(true)
    const served = await this.send('GET', this.#finished, [])
    expect(served.status).toBe(200)
    expect(served.body.equals(known)).toBe(true)
  }

  /** Everything in and around the folder that is no upload's, and no work of ours. */
  async #strangeFiles(): Promise<string[]> {
    const entries = await readdir(this.#outer.path, { recursive: true, withFileTypes: true })
    const strange: string[] = []
    for (const entry of entries) {
      const path = join(entry.parentPath, entry.name)
      const isSecret = entry.name === 'secret' && (await readFile(path, 'utf8')) === secret
      const isOfUpload = entry.parentPath === this.folder && ofUpload.test(entry.name) && entry.isFile()
      const isOfServer = path.startsWith(join(this.folder, '.tidemark'))
      const isAround = entry.isDirectory() && this.folder.startsWith(path)
      if (!isSecret && !isOfUpload && !isOfServer && !isAround) strange.push(path)
    }
    return strange
  }

  /** Lines of the server that speak of a fault of its own, or are none of its lines. */
  #complaints(): string[] {
    const lines = this.server.output().split('\n')
    return lines.filter(
      (line) => line !== '' && (!line.startsWith('{') || /"level":"(warn|error|fatal)"/.test(line)),
    )
  }

  async #held(): Promise<Held> {
    const said = () => this.server.logs().filter((line) => 'inside' in line)
    const count = said().length
    this.server.signal('SIGUSR2')
    await vi.waitFor(() => expect(said().length).toBeGreaterThan(count), { timeout: 10_000, interval: 10 })
    const inside = said().at(-1)!.inside as Omit<Held, 'files'>
    const files = (await readdir(`/proc/${this.server.pid}/fd`)).length
    return { ...inside, files }
  }
}

const ofUpload = /^(?:[0-9a-f]{32}|\.[0-9a-f]{32}\.\d+\.(?:mark|data))$/

/** For a property: says what is wrong with an answer. */
export function expectProper(answers: readonly Answer[]): void {
  expect(answers.flatMap((answer) => faultsOf(answer))).toEqual([])
}
