// Tidemark as its users run it: a process of its own, from dist/, with flags and variables, on a loopback port. Tests
// ask it by HTTP, read its log lines, end it by any signal and start it again on the same port and folder.

import { readFile } from 'node:fs/promises'
import { get } from 'node:http'
import { fileURLToPath } from 'node:url'
import { type Child, type Exit, startChild, stopChild, untilReady } from './child.ts'
import { freePort } from './free-port.ts'

const builtMain = fileURLToPath(new URL('../../dist/server/main.js', import.meta.url))

export type ServerOptions = {
  /** The upload folder. */
  dir: string
  port?: number
  redisUrl?: string
  /** Further flags: `['--max-size', '1000']`. */
  args?: string[]
  /** Beside PATH and the like; no TIDEMARK_ variable of the caller's own environment gets through. */
  env?: Record<string, string>
  /** For Node itself: `['--trace-gc']`. */
  nodeArgs?: string[]
  /** Another program in its place. */
  main?: string
}

export type ServerProcess = {
  url: string
  port: number
  /** Of the process that runs now; another one after a restart. */
  readonly pid: number
  /** Of the process that runs now. */
  readonly exited: Promise<Exit>
  kill: (signal?: NodeJS.Signals) => Promise<Exit>
  /** Sends a signal and returns at once, for SIGSTOP, SIGCONT and drains. */
  signal: (signal: NodeJS.Signals) => void
  /** Ends the process with SIGTERM if it still runs, and starts another on the same port and folder. */
  restart: () => Promise<void>
  /** SIGTERM, and SIGKILL when that does not help in time. */
  stop: () => Promise<Exit>
  /** The JSON lines of the present process; lines that are not JSON are left out. */
  logs: () => Record<string, unknown>[]
  /** Everything the present process said. */
  output: () => string
  rssBytes: () => Promise<number>
  /** The most memory it ever held (Linux). */
  peakRssBytes: () => Promise<number>
}

export async function startServer(options: ServerOptions): Promise<ServerProcess> {
  const port = options.port ?? (await freePort())
  const url = `http://127.0.0.1:${port}`
  let child = await launch(options, port, url)
  return {
    url,
    port,
    get pid() {
      return child.pid
    },
    get exited() {
      return child.exited
    },
    kill(signal = 'SIGKILL') {
      child.kill(signal)
      return child.exited
    },
    signal: (signal) => child.kill(signal),
    async restart() {
      await stopChild(child, 30_000)
      child = await launch(options, port, url)
    },
    stop: () => stopChild(child, 30_000),
    logs: () => child.stdout().split('\n').flatMap(parseLogLine),
    output: () => child.output(),
    rssBytes: () => memoryOf(child.pid, 'VmRSS'),
    peakRssBytes: () => memoryOf(child.pid, 'VmHWM'),
  }
}

async function launch(options: ServerOptions, port: number, url: string): Promise<Child> {
  const { dir, redisUrl, args = [], env = {}, nodeArgs = [], main = builtMain } = options
  const flags = ['--host', '127.0.0.1', '--port', String(port), '--upload-dir', dir]
  if (redisUrl) flags.push('--redis-url', redisUrl)
  const child = startChild(process.execPath, [...nodeArgs, main, ...flags, ...args], {
    env: { ...environmentWithoutSettings(), ...env },
  })
  // The first worker answers while others are being started; a start fails with the first of them that dies.
  const haveAllBegun = () => !args.includes('--workers') || child.output().includes('Tidemark listens')
  await untilReady(child, async () => haveAllBegun() && isLive(url), {
    name: `The server on port ${port}`,
    withinMs: 20_000,
  })
  return child
}

/** Without an agent: no idle connection of ours may stay and take part in the test. */
function isLive(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(`${url}/health/live`, { agent: false, timeout: 5_000 }, (response) => {
      response.resume()
      response.once('close', () => resolve(response.statusCode === 200))
    })
    request.once('timeout', () => request.destroy())
    request.once('error', () => resolve(false))
  })
}

function environmentWithoutSettings(): NodeJS.ProcessEnv {
  const isSetting = (name: string) =>
    name.startsWith('TIDEMARK_') || name === 'NODE_OPTIONS' || name === 'NODE_ENV'
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !isSetting(name)))
}

function parseLogLine(line: string): Record<string, unknown>[] {
  if (!line.startsWith('{')) return []
  try {
    return [JSON.parse(line) as Record<string, unknown>]
  } catch {
    // The last line may be cut where the process was killed.
    return []
  }
}

async function memoryOf(pid: number, field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const kibibytes = status.match(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm'))?.[1]
  if (kibibytes === undefined) throw new Error(`/proc/${pid}/status has no ${field}`)
  return Number(kibibytes) * 1024
}
