/**
 * Hooks as programs in a folder, named like their events: the payload on standard input, the answer on standard output.
 * A program that does not end in time, or talks without end, is ended with all that it started.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { stat } from 'node:fs/promises'
import path from 'node:path'
import { type HookCall, type HookCaller, HookError, type HookType } from './hook-types.ts'

export interface DirCallerOptions {
  readonly directory: string
  readonly timeoutMs: number
  readonly sizeLimitBytes: number
  /** What programs find in their environment beside what is said of the upload. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Told what a program wrote to standard error. */
  readonly onSaid: (hook: HookType, text: string) => void
}

const mostSaidBytes = 8 * 1024

export class DirCaller implements HookCaller {
  readonly #options: DirCallerOptions
  readonly #directory: string
  readonly #environment: Record<string, string | undefined>
  readonly #running = new Set<ChildProcess>()

  constructor(options: DirCallerOptions) {
    this.#options = options
    this.#directory = path.resolve(options.directory)
    // Our own settings hold secrets, and are no business of a hook.
    this.#environment = Object.fromEntries(
      Object.entries(options.environment).filter(([name]) => !name.startsWith('TIDEMARK_')),
    )
  }

  async ask(call: HookCall): Promise<string> {
    const file = path.join(this.#directory, call.type)
    const isThere = await stat(file).then(
      () => true,
      (cause: NodeJS.ErrnoException) => {
        if (cause.code === 'ENOENT') return false
        throw new HookError('the program of a hook can not be found', { cause })
      },
    )
    return isThere ? this.#run(file, call) : ''
  }

  async tell(call: HookCall): Promise<void> {
    await this.ask(call)
  }

  async close(): Promise<void> {
    for (const child of this.#running) endAll(child)
  }

  #run(file: string, { type, body, upload, signal }: HookCall): Promise<string> {
    const { timeoutMs, sizeLimitBytes, onSaid } = this.#options
    return new Promise((resolve, reject) => {
      // A group of its own, so that what it started can be ended with it.
      const child = spawn(file, [], {
        cwd: this.#directory,
        detached: true,
        env: {
          ...this.#environment,
          TUS_ID: upload.id,
          TUS_SIZE: String(upload.size),
          TUS_OFFSET: String(upload.offset),
        },
      })
      this.#running.add(child)
      const out = new Collected(sizeLimitBytes)
      const said = new Collected(mostSaidBytes)
      let failure: HookError | undefined
      const fail = (error: HookError) => {
        failure ??= error
        endAll(child)
        // Who left the group may hold these for ever.
        child.stdout.destroy()
        child.stderr.destroy()
      }
      const late = () => fail(new HookError(`a hook did not end within ${timeoutMs} ms`, { isPassing: true }))
      const timer = setTimeout(late, timeoutMs)
      const onAbort = () => fail(new HookError('a hook was not waited for'))
      signal.addEventListener('abort', onAbort)
      if (signal.aborted) onAbort()
      child.stdout.on('data', (chunk: Buffer) => {
        if (!out.add(chunk)) fail(new HookError(`a hook answered more than ${sizeLimitBytes} bytes`))
      })
      child.stderr.on('data', (chunk: Buffer) => void said.add(chunk))
      // Not every program reads what it is told.
      child.stdin.on('error', () => undefined)
      child.stdin.end(body)
      const end = (error: HookError | undefined) => {
        clearTimeout(timer)
        signal.removeEventListener('abort', onAbort)
        this.#running.delete(child)
        if (said.text !== '') onSaid(type, said.text)
        if (error) reject(error)
        else resolve(out.text)
      }
      child.once('error', (cause) => end(new HookError('the program of a hook can not be run', { cause })))
      child.once('close', (code, by) => {
        const bad = code === 0 ? undefined : new HookError(`a hook ended with ${code ?? by}`)
        end(failure ?? bad)
      })
    })
  }
}

function endAll(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}

/** The first bytes of a stream. */
class Collected {
  readonly #limit: number
  readonly #chunks: Buffer[] = []
  #bytes = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** False when there is more than is kept. */
  add(chunk: Buffer): boolean {
    const room = this.#limit - this.#bytes
    if (room > 0) this.#chunks.push(chunk.subarray(0, room))
    this.#bytes += chunk.length
    return this.#bytes <= this.#limit
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString('utf8')
  }
}
