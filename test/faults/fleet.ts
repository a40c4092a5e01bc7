// Several servers on one folder and one Redis, as people run them; or one server that has its folder for itself. Tests
// kill and start them, and are told of every finish that a server told its listeners, however it ended afterwards.

import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { inject, onTestFinished } from 'vitest'
import { childrenOf } from '../support/child.ts'
import { type Finish, finishJournal } from '../support/finishes.ts'
import { temporaryFolder } from '../support/folder.ts'
import { showSeedOnFailure } from '../support/seed.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'

export type FleetOptions = {
  /** How many; 2. One that is embedded stands alone. */
  servers?: number
  /** Another Redis than the one of the whole run, or a proxy in front of one; `embedded` for none. */
  redisUrl?: string | 'embedded'
  /** The upload folder; one of its own, else. */
  folder?: string
  /** Further flags of every server: `['--lease', '2s']`. */
  args?: string[]
  env?: Record<string, string>
  nodeArgs?: string[]
}

export type Fleet = {
  servers: readonly ServerProcess[]
  /** `http://127.0.0.1:port` of each server. */
  urls: readonly string[]
  /** The upload folder. */
  folder: string
  /** Undefined when embedded. */
  redis: { url: string; prefix: string } | undefined
  /** Whether any server was ended other than in order. */
  readonly wasKilled: boolean
  /** SIGKILL; resolves when the process is gone. */
  kill: (index: number) => Promise<void>
  /** SIGKILL, and another process in its place. */
  killAndRestart: (index: number) => Promise<void>
  /** With `--workers`: the processes that receive uploads for this server now. */
  workersOf: (index: number) => number[]
  /** A signal for one of them; one that does not survive it is replaced. */
  signalWorker: (pid: number, signal: NodeJS.Signals) => void
  /** SIGTERM, and another process in its place once this one has ended. */
  restart: (index: number) => Promise<void>
  /** Everything that listeners were told so far, on all servers. */
  finishes: () => Promise<Finish[]>
  /** The log lines of all processes, the ended ones too. */
  logs: () => Record<string, unknown>[]
}

/** For use inside a test, which ends them when it has finished. */
export async function startFleet(options: FleetOptions = {}): Promise<Fleet> {
  showSeedOnFailure()
  const { servers: count = options.redisUrl === 'embedded' ? 1 : 2, args = [], env = {} } = options
  const own = await temporaryFolder()
  const folder = options.folder ?? join(own, 'uploads')
  await mkdir(folder, { recursive: true })
  const journal = finishJournal(own)
  const redis =
    options.redisUrl === 'embedded'
      ? undefined
      : { url: options.redisUrl ?? inject('redisUrl'), prefix: `${randomUUID()}:` }
  const flags = redis ? ['--redis-url', redis.url, '--redis-key-prefix', redis.prefix] : []

  const servers: ServerProcess[] = []
  onTestFinished(async () => void (await Promise.all(servers.map((server) => server.stop()))))
  for (let i = 0; i < count; i++)
    servers.push(
      await startServer({
        dir: folder,
        args: [...flags, ...args],
        env: { ...journal.env, ...env },
        nodeArgs: [...journal.nodeArgs, ...(options.nodeArgs ?? [])],
      }),
    )

  let wasKilled = false
  const pastLogs: Record<string, unknown>[] = []
  const kill = async (index: number) => {
    wasKilled = true
    await servers[index]!.kill('SIGKILL')
  }
  const restart = async (index: number) => {
    const server = servers[index]!
    await server.stop()
    pastLogs.push(...server.logs())
    await server.restart()
  }
  return {
    servers,
    urls: servers.map(({ url }) => url),
    folder,
    redis,
    get wasKilled() {
      return wasKilled
    },
    kill,
    async killAndRestart(index) {
      await kill(index)
      await restart(index)
    },
    workersOf: (index) => childrenOf(servers[index]!.pid),
    signalWorker(pid, signal) {
      wasKilled = true
      process.kill(pid, signal)
    },
    restart,
    finishes: journal.read,
    logs: () => [...pastLogs, ...servers.flatMap((server) => server.logs())],
  }
}
