// A connection that sends bytes as they are, and reads what comes back with no mercy: an answer that is not HTTP to the
// letter, has a wrong length, lacks what every answer must carry, or says more than it should, is an error.

import { connect, type Socket } from 'node:net'
import { deferred } from '../support/deferred.ts'

export interface Answer {
  readonly status: number
  /** By name in lower case; a header that came twice is an error. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: Buffer
}

/** Nothing in these tests may take longer; it ends what hangs. */
const patienceMs = 15_000

export class Wire {
  readonly socket: Socket
  /** Resolves when nothing more can come, however it ended. */
  readonly closed: Promise<void>
  /** `100 Continue` has come. */
  readonly continued: Promise<void>
  readonly #continue = deferred()
  readonly #methods: string[] = []
  readonly #answers: Answer[] = []
  readonly #listeners = new Set<() => void>()
  #input: Buffer = Buffer.alloc(0)
  #fault: unknown
  #isClosed = false

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1')
    this.socket.setNoDelay(true)
    this.continued = this.#continue.promise
    this.closed = new Promise((resolve) => this.socket.once('close', () => resolve()))
    this.socket.on('error', () => undefined) // It ends the connection, and that is what counts.
    this.socket.on('data', (data) => {
      this.#input = Buffer.concat([this.#input, data])
      this.#look()
    })
    this.socket.on('close', () => {
      this.#isClosed = true
      this.#look()
    })
  }

  /** Requests are named, since the answer to a HEAD has no body. */
  expects(...methods: string[]): this {
    this.#methods.push(...methods)
    return this
  }

  /** Text is latin1, so that any byte can be written. */
  write(bytes: string | Uint8Array): boolean {
    return this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)
  }

  async drained(): Promise<void> {
    if (!this.socket.writableNeedDrain) return
    await new Promise<void>((resolve) => {
      this.socket.once('drain', resolve)
      this.socket.once('close', resolve)
    })
  }

  /** The first `count` answers; fails when the connection ends before, or when nothing comes. */
  answers(count = 1): Promise<Answer[]> {
    const isThere = () => this.#answers.length >= count
    return this.#until(`${count} answers`, () => {
      if (!isThere() && this.#isClosed)
        throw new Error(
          `the connection ended after ${this.#answers.length} of ${count} answers: ${this.#shown()}`,
        )
      return isThere()
    })
  }

  /** All answers, once the server has closed the connection. */
  untilClosed(): Promise<Answer[]> {
    return this.#until('the end of the connection', () => this.#isClosed)
  }

  /** Bytes that came and belong to no answer. */
  get surplus(): string {
    return this.#shown()
  }

  async cut(how: 'end' | 'destroy' | 'reset' = 'destroy'): Promise<void> {
    if (how === 'end') this.socket.end()
    else if (how === 'reset') this.socket.resetAndDestroy()
    else this.socket.destroy()
    if (how !== 'end') await this.closed
  }

  #shown(): string {
    return this.#input.toString('latin1', 0, 2000)
  }

  async #until(what: string, isSo: () => boolean): Promise<Answer[]> {
    let timer: NodeJS.Timeout | undefined
    let listener: () => void = () => undefined
    try {
      await new Promise<void>((resolve, reject) => {
        timer = setTimeout(
          () => reject(new Error(`no ${what} within ${patienceMs} ms: ${this.#shown()}`)),
          patienceMs,
        )
        listener = () => {
          try {
            if (this.#fault) throw this.#fault
            if (isSo()) resolve()
          } catch (error) {
            reject(error)
          }
        }
        this.#listeners.add(listener)
        listener()
      })
      return [...this.#answers]
    } finally {
      clearTimeout(timer)
      this.#listeners.delete(listener)
    }
  }

  #look(): void {
    try {
      for (;;) {
        const method = this.#methods[this.#answers.length]
        const found = parseAnswer(this.#input, method ?? 'GET', this.#isClosed)
        if (!found) break
        this.#input = found.rest
        if (found.answer) this.#answers.push(found.answer)
        else this.#continue.resolve()
      }
      if (this.#isClosed && this.#input.length > 0)
        throw new Error(`an answer was cut in the middle: ${this.#shown()}`)
    } catch (error) {
      this.#fault ??= error
    }
    for (const listener of this.#listeners) listener()
  }
}

/** One answer from the beginning of `input`; without `answer` for `100 Continue`; undefined when more has to come. */
function parseAnswer(
  input: Buffer,
  method: string,
  isClosed: boolean,
): { answer?: Answer; rest: Buffer } | undefined {
  const end = input.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const [statusLine = '', ...lines] = input.toString('latin1', 0, end).split('\r\n')
  const status = Number(/^HTTP\/1\.1 (\d{3}) [\x20-\x7e]+$/.exec(statusLine)?.[1])
  if (!status) throw new Error(`no status line: ${JSON.stringify(statusLine)}`)
  const rest = input.subarray(end + 4)
  if (status === 100) return { rest }
  const headers = parseHeaders(lines)
  const length = headers.get('content-length')
  if (length !== undefined && !/^\d+$/.test(length)) throw new Error(`Content-Length: ${length}`)
  if (method === 'HEAD' || status === 204 || status === 304) {
    // What is refused unread is refused without a look at its method; the connection ends with it.
    const isRefusedUnread = method === 'HEAD' && headers.get('connection') === 'close' && rest.length > 0
    if (!isRefusedUnread) return { answer: { status, headers, body: Buffer.alloc(0) }, rest }
  }
  if (headers.get('transfer-encoding') === 'chunked') {
    if (length !== undefined) throw new Error('both Content-Length and Transfer-Encoding')
    const found = parseChunks(rest)
    return found && { answer: { status, headers, body: found.body }, rest: found.rest }
  }
  if (length === undefined) throw new Error(`a body of unknown length: ${input.toString('latin1', 0, 500)}`)
  if (rest.length < Number(length)) {
    if (isClosed) throw new Error(`a body that is too short: ${input.toString('latin1', 0, 500)}`)
    return undefined
  }
  return {
    answer: { status, headers, body: rest.subarray(0, Number(length)) },
    rest: rest.subarray(Number(length)),
  }
}

function parseHeaders(lines: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>()
  for (const line of lines) {
    const match = /^([!#$%&'*+.^_`|~\w-]+): ?([\t\x20-\x7e\x80-\xff]*)$/.exec(line)
    const name = match?.[1]?.toLowerCase()
    if (name === undefined) throw new Error(`no header: ${JSON.stringify(line)}`)
    if (headers.has(name)) throw new Error(`${name} came twice`)
    headers.set(name, match?.[2] ?? '')
  }
  return headers
}

function parseChunks(input: Buffer): { body: Buffer; rest: Buffer } | undefined {
  const chunks: Buffer[] = []
  for (let at = 0; ; ) {
    const lineEnd = input.indexOf('\r\n', at)
    if (lineEnd < 0) return undefined
    const line = input.toString('latin1', at, lineEnd)
    if (!/^[0-9a-f]+$/i.test(line)) throw new Error(`no chunk: ${JSON.stringify(line)}`)
    const size = Number.parseInt(line, 16)
    const next = lineEnd + 2 + size + 2
    if (input.length < next) return undefined
    if (size === 0) return { body: Buffer.concat(chunks), rest: input.subarray(next) }
    chunks.push(input.subarray(lineEnd + 2, lineEnd + 2 + size))
    at = next
  }
}

const tellsTooMuch =
  /(?:^|[\s"'(])\/(?!files\b)[\w.-]+\/[\w./-]*|node:|\bat .+:\d+|\.[jt]s:\d|E[A-Z]{5,}\b|Error:/

/** What every answer must be, whatever was asked. */
export function faultsOf(answer: Answer, { isTus = true } = {}): string[] {
  const { status, headers, body } = answer
  const faults: string[] = []
  if (status < 200 || status >= 500) faults.push(`status ${status}`)
  if (isTus && headers.get('tus-resumable') !== '1.0.0') faults.push('no Tus-Resumable')
  if (isTus && headers.get('access-control-allow-origin') !== '*') faults.push('no CORS')
  const text = status >= 400 ? body.toString() : ''
  if (status >= 400 && tellsTooMuch.test(text)) faults.push('it tells too much')
  if (status >= 400 && body.length > 1000) faults.push('a refusal that is a book')
  if (isTus && text !== '' && !/^[a-z]+(?:-[a-z]+)*: [^\n]+\n$/.test(text))
    faults.push('no code and sentence')
  if (isTus && text !== '' && headers.get('content-type') !== 'text/plain; charset=utf-8')
    faults.push('no plain text')
  if (isTus && text !== '' && headers.get('x-content-type-options') !== 'nosniff') faults.push('no nosniff')
  return faults.map((fault) => `${fault}: ${status} ${JSON.stringify([...headers])} ${text.slice(0, 300)}`)
}
