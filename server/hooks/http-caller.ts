/**
 * Hooks behind a URL, asked by POST. Whatever listens there may be slow, huge or broken: an answer has to be whole within
 * its time and its size, and no redirection is followed, for nobody said that other places may be asked.
 */
import { Agent, request } from 'undici'
import { type HookCall, type HookCaller, HookError } from './hook-types.ts'
import { keyOf, signed } from './signature.ts'

export interface HttpCallerOptions {
  readonly url: string
  /** How long an answer may take, to its last byte. */
  readonly timeoutMs: number
  readonly sizeLimitBytes: number
  /** Take any certificate. */
  readonly skipVerify: boolean
  /** Every one signs. */
  readonly secrets: readonly string[]
  /** What time it is for signatures: milliseconds since the epoch. */
  readonly now: () => number
}

/** Connections at a time; more questions than that wait for each other. */
const connections = 64

export class HttpCaller implements HookCaller {
  readonly #options: HttpCallerOptions
  readonly #url: URL
  readonly #authorization: string | undefined
  readonly #keys: readonly Buffer[]
  readonly #agent: Agent

  constructor(options: HttpCallerOptions) {
    this.#options = options
    this.#url = new URL(options.url)
    this.#authorization = basicOf(this.#url)
    this.#url.username = ''
    this.#url.password = ''
    this.#keys = options.secrets.map((secret) => {
      const key = keyOf(secret)
      if (key === undefined)
        throw new TypeError('a secret for hooks must be whsec_ and 24 to 64 bytes in base64')
      return key
    })
    this.#agent = new Agent({ connections, connect: { rejectUnauthorized: !options.skipVerify } })
  }

  async ask(call: HookCall): Promise<string> {
    const { status, type, text } = await this.#post(call)
    failUnlessTaken(status)
    if (type?.split(';')[0]?.trim().toLowerCase() !== 'application/json')
      throw new HookError('a hook answered without Content-Type: application/json')
    return text
  }

  async tell(call: HookCall): Promise<void> {
    const { status } = await this.#post(call)
    failUnlessTaken(status)
  }

  close(): Promise<void> {
    return this.#agent.destroy()
  }

  async #post({ id, body, headers, signal: ending }: HookCall) {
    const { timeoutMs, now } = this.#options
    const late = AbortSignal.timeout(timeoutMs)
    try {
      const answer = await request(this.#url, {
        method: 'POST',
        headers: {
          'user-agent': 'tidemark',
          ...headers,
          ...(this.#authorization !== undefined && { authorization: this.#authorization }),
          'content-type': 'application/json',
          accept: 'application/json',
          ...signed(this.#keys, id, now(), body),
        },
        body,
        dispatcher: this.#agent,
        signal: AbortSignal.any([late, ending]),
        // One limit for all of it is above.
        headersTimeout: 0,
        bodyTimeout: 0,
      })
      const type = answer.headers['content-type']
      const text = await this.#read(answer.body)
      return { status: answer.statusCode, type: Array.isArray(type) ? type[0] : type, text }
    } catch (cause) {
      if (cause instanceof HookError) throw cause
      if (late.aborted) throw new HookError(`no hook answered within ${timeoutMs} ms`, { isPassing: true })
      throw new HookError(`the hooks could not be reached${reasonOf(cause)}`, {
        isPassing: !ending.aborted,
        cause,
      })
    }
  }

  async #read(body: AsyncIterable<Buffer>): Promise<string> {
    const { sizeLimitBytes } = this.#options
    const chunks: Buffer[] = []
    let bytes = 0
    // What is thrown here ends the connection.
    for await (const chunk of body) {
      bytes += chunk.length
      if (bytes > sizeLimitBytes) throw new HookError(`a hook answered more than ${sizeLimitBytes} bytes`)
      chunks.push(chunk)
    }
    return Buffer.concat(chunks).toString('utf8')
  }
}

function failUnlessTaken(status: number): void {
  if (status >= 200 && status < 300) return
  throw new HookError(`a hook answered with status ${status}`, { isPassing: status >= 500 || status === 429 })
}

/** Name and password of a URL, as a header. */
function basicOf({ username, password }: URL): string | undefined {
  if (username === '' && password === '') return undefined
  const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return `Basic ${Buffer.from(pair).toString('base64')}`
}

function reasonOf(cause: unknown): string {
  const code = (cause as { code?: unknown } | undefined)?.code
  return typeof code === 'string' ? `: ${code}` : ''
}
