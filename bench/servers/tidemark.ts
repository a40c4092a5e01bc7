/** Tidemark as it is built in dist/, a process of its own; with a Redis of its own where it is asked for. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { findProgram } from '../../scripts/test-programs.mjs'
import type { Child } from '../../test/support/child.ts'
import { freePort } from '../../test/support/free-port.ts'
import { type RunningServer, type Server, startProgram, stopProgram } from './server.ts'

const main = fileURLToPath(new URL('../../dist/server/main.js', import.meta.url))

interface Kind {
  readonly name: string
  readonly title: string
  readonly args: readonly string[]
  readonly withRedis?: boolean
  readonly onDisk?: boolean
}

function tidemark({ name, title, args, withRedis = false, onDisk = false }: Kind): Server {
  return {
    name,
    title,
    onDisk,
    abilities: ['tus', 'one-writer', 'creation-with-upload', 'download'],
    missing() {
      if (!existsSync(main)) return 'dist/ is not built; npm run build builds it'
      if (withRedis && findProgram('redis').is !== 'found') return 'there is no redis-server'
      return args.includes('--workers') && !knowsWorkers() ? 'it has no --workers' : undefined
    },
    version: () => `Tidemark ${readVersion()}${withRedis ? `, ${redisVersion()}` : ''}`,
    async start(folder) {
      const redis = withRedis ? await startRedis(folder) : undefined
      try {
        return await startTidemark(name, folder, args, redis)
      } catch (error) {
        if (redis) await stopProgram(redis.child)
        throw error
      }
    },
  }
}

export const tidemarks: readonly Server[] = [
  tidemark({ name: 'tidemark', title: 'Tidemark', args: ['--durability', 'none'] }),
  tidemark({
    name: 'tidemark-redis',
    title: 'Tidemark with Redis',
    args: ['--durability', 'none'],
    withRedis: true,
  }),
  tidemark({
    name: 'tidemark-2',
    title: 'Tidemark, 2 workers',
    args: ['--durability', 'none', '--workers', '2'],
  }),
  tidemark({
    name: 'tidemark-finish',
    title: 'Tidemark, synced on a disk',
    args: ['--durability', 'finish'],
    onDisk: true,
  }),
]

async function startTidemark(
  name: string,
  folder: string,
  args: readonly string[],
  redis: { child: Child; port: number } | undefined,
): Promise<RunningServer> {
  const port = await freePort()
  const where = ['--host', '127.0.0.1', '--port', String(port), '--upload-dir', folder]
  const shared = redis ? ['--redis-url', `redis://127.0.0.1:${redis.port}`] : []
  // No peer writes a line for each request here, so neither does Tidemark.
  const quiet = ['--log-level', 'warn', '--show-page=false']
  const command = [main, ...where, ...shared, ...quiet, ...args]
  const child = await startProgram(process.execPath, command, { port, name })
  return {
    port,
    basePath: '/files/',
    pids: { server: child.pid, ...(redis && { redis: redis.child.pid }) },
    output: child.output,
    async stop() {
      await stopProgram(child)
      if (redis) await stopProgram(redis.child)
    },
  }
}

/** As production has it beside uploads: it answers from memory, and writes nothing itself. */
async function startRedis(folder: string): Promise<{ child: Child; port: number }> {
  const port = await freePort()
  const settings = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder]
  const args = [...settings, '--save', '', '--appendonly', 'no', '--daemonize', 'no']
  return { child: await startProgram(redisPath(), args, { port, name: 'Redis' }), port }
}

function redisPath(): string {
  const search = findProgram('redis')
  return search.is === 'found' ? search.path : 'redis-server'
}

function redisVersion(): string {
  const said = spawnSync(redisPath(), ['--version'], { encoding: 'utf8' }).stdout
  return `Redis ${said.match(/v=(\S+)/)?.[1] ?? '?'}`
}

let workersAreKnown: boolean | undefined

function knowsWorkers(): boolean {
  workersAreKnown ??= spawnSync(process.execPath, [main, '--help'], { encoding: 'utf8' }).stdout.includes(
    '--workers',
  )
  return workersAreKnown
}

function readVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
