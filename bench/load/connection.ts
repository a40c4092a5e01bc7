/**
 * One keep-alive connection that speaks HTTP/1.1 by hand, so that the load costs as little as it can: requests are
 * prepared text, bodies are pieces of one buffer, all connections read into one buffer, and of an answer only what a
 * case looks at is parsed. One request at a time; nothing is pipelined.
 */
import { connect, type Socket } from 'node:net'
import type { Content } from './content.ts'

export interface Answer {
  readonly status: number
  /** The header block as it came. */
  readonly head: string
  readonly bodyBytes: number
}

export interface Request {
  /** Request line and headers, with the empty line that ends them. */
  readonly head: string
  readonly body?: { readonly content: Content; readonly from: number; readonly to: number }
  /** Sees the bytes of the answer's body; they are gone when it returns. */
  readonly onBody?: (bytes: Buffer) => void
}

const readBytes = 256 * 1024
/** Written at a time; larger pieces only wait in the kernel. */
const pieceBytes = 1024 * 1024
/** Nothing that is measured takes this long without a sign of life. */
const silenceMs = 60_000

const sharedBuffer = Buffer.allocUnsafe(readBytes)

export class Connection {
  readonly #socket: Socket
  #pending: Pending | undefined
  #asked = ''
  #isOpen = true

  static async open(port: number): Promise<Connection> {
    let connection: Connection | undefined
    const socket = connect({
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer: sharedBuffer,
        callback: (bytes) => {
          connection?.onBytes(sharedBuffer.subarray(0, bytes))
          return true
        },
      },
    })
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        resolve()
      })
    })
    connection = new Connection(socket)
    return connection
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('error', () => undefined) // 'close' follows, and tells whoever waits.
    socket.setTimeout(silenceMs, () => socket.destroy())
    socket.once('close', () => {
      this.#isOpen = false
      this.#fail(`the server closed the connection before it answered ${this.#asked.split('\r\n', 1)}`)
    })
  }

  /** False once the server or we have ended it; then open another. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  async request({ head, body, onBody }: Request): Promise<Answer> {
    if (!this.#isOpen) throw new Error('the connection is closed')
    const pending = new Pending(head.startsWith('HEAD '), onBody)
    this.#pending = pending
    this.#asked = head
    if (body === undefined) this.#socket.write(head, 'latin1')
    else await this.#send(head, body, pending)
    return pending.answer
  }

  /** Begins a request whose body comes later, or never; for uploads that are slow on purpose. */
  begin(head: string): { readonly send: (bytes: Buffer) => void; readonly answer: Promise<Answer> } {
    const pending = new Pending(false)
    this.#pending = pending
    this.#asked = head
    this.#socket.setTimeout(0)
    this.#socket.write(head, 'latin1')
    return { send: (bytes) => void this.#socket.write(bytes), answer: pending.answer }
  }

  close(): void {
    this.#isOpen = false
    this.#socket.destroy()
  }

  async #send(head: string, body: NonNullable<Request['body']>, pending: Pending): Promise<void> {
    const { content, from, to } = body
    this.#socket.cork()
    this.#socket.write(head, 'latin1')
    let at = Math.min(to, from + pieceBytes)
    let isTaken = this.#socket.write(content.slice(from, at))
    this.#socket.uncork()
    while (at < to && !pending.isSettled && this.#isOpen) {
      if (!isTaken) await this.#drained()
      const next = Math.min(to, at + pieceBytes)
      isTaken = this.#socket.write(content.slice(at, next))
      at = next
    }
  }

  #drained(): Promise<void> {
    if (!this.#socket.writableNeedDrain) return Promise.resolve()
    return new Promise((resolve) => {
      const go = () => {
        this.#socket.off('drain', go).off('close', go)
        resolve()
      }
      this.#socket.on('drain', go).on('close', go)
    })
  }

  onBytes(bytes: Buffer): void {
    const pending = this.#pending
    if (pending === undefined) {
      this.#socket.destroy()
      return
    }
    if (!pending.take(bytes)) return
    this.#pending = undefined
    if (pending.endsConnection) this.close()
    pending.settle()
  }

  #fail(reason: string): void {
    this.#pending?.fail(new Error(reason))
    this.#pending = undefined
  }
}

/** An answer that is coming. Interim answers are passed over. */
class Pending {
  readonly answer: Promise<Answer>
  #resolve!: (answer: Answer) => void
  #reject!: (error: Error) => void
  readonly #isHead: boolean
  readonly #onBody: ((bytes: Buffer) => void) | undefined
  #head = ''
  #isHeadComplete = false
  #status = 0
  /** Undefined for a chunked body, whose end its last bytes tell. */
  #bodyLength: number | undefined = 0
  #bodyBytes = 0
  #tail = ''
  isSettled = false

  constructor(isHead: boolean, onBody?: (bytes: Buffer) => void) {
    this.#isHead = isHead
    this.#onBody = onBody
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.answer.catch(() => undefined) // Whoever waits for it sees it too.
  }

  get endsConnection(): boolean {
    return /^connection: *close/im.test(this.#head)
  }

  /** True when the answer is complete. */
  take(bytes: Buffer): boolean {
    if (this.#isHeadComplete) return this.#takeBody(bytes)
    const before = this.#head.length
    this.#head += bytes.toString('latin1')
    const end = this.#head.indexOf('\r\n\r\n', Math.max(0, before - 3))
    if (end < 0) return false
    const rest = bytes.subarray(end + 4 - before)
    this.#head = this.#head.slice(0, end)
    this.#status = Number(this.#head.slice(9, 12))
    if (this.#status < 200) {
      this.#head = ''
      return rest.length > 0 && this.take(rest)
    }
    this.#isHeadComplete = true
    this.#bodyLength = this.#bodyLengthFrom(this.#head)
    return this.#takeBody(rest)
  }

  #bodyLengthFrom(head: string): number | undefined {
    if (this.#isHead || this.#status === 204 || this.#status === 304) return 0
    const length = headerOf(head, 'content-length')
    if (length !== undefined) return Number(length)
    return /^transfer-encoding: *chunked/im.test(head) ? undefined : 0
  }

  #takeBody(bytes: Buffer): boolean {
    this.#bodyBytes += bytes.length
    if (bytes.length > 0) this.#onBody?.(bytes)
    if (this.#bodyLength !== undefined) return this.#bodyBytes >= this.#bodyLength
    this.#tail = (this.#tail + bytes.toString('latin1', Math.max(0, bytes.length - 5))).slice(-5)
    return this.#tail === '0\r\n\r\n' || this.#tail.endsWith('\n0\r\n\r\n')
  }

  settle(): void {
    this.isSettled = true
    this.#resolve({ status: this.#status, head: this.#head, bodyBytes: this.#bodyBytes })
  }

  fail(error: Error): void {
    this.isSettled = true
    this.#reject(error)
  }
}

/** @param name in lower case */
export function headerOf(head: string, name: string): string | undefined {
  // Most servers write names in their usual form; a search in lower case finds all of them.
  const lower = head.toLowerCase()
  const at = lower.indexOf(`\r\n${name}:`)
  if (at < 0) return undefined
  const from = at + name.length + 3
  const to = head.indexOf('\r\n', from)
  return head.slice(from, to < 0 ? undefined : to).trim()
}
