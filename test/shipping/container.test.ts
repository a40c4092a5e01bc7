// What Docker is told, held against the project: without an engine, but with everything that can be done without one.
// The image's own steps are run in a folder of their own, and what comes out is started as the image starts it.

import { execFile } from 'node:child_process'
import { chmod, chown, cp, mkdir, readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { parse } from 'yaml'
import { loadConfig } from '../../server/config.ts'
import { settings, variableOf } from '../../server/settings.ts'
import { startChild, stopChild, untilReady } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { freePort } from '../support/free-port.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { startRedis } from '../support/redis.ts'
import { startUpload } from '../support/tus-client.ts'
import { copiesOf, execForm, instructionsOf, parseDockerfile, type Stage, variablesOf } from './dockerfile.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string) => readFile(join(root, path), 'utf8')
const exists = (path: string) => stat(join(root, path)).then(Boolean, () => false)

type Service = {
  image: string
  command?: string[]
  environment?: Record<string, string>
  volumes?: string[]
  networks: string[] | Record<string, { aliases?: string[] }>
  depends_on?: Record<string, { condition: string }>
  stop_grace_period: string
  restart: string
}

let stages: Stage[]
let image: Stage
let services: Record<string, Service>

beforeAll(async () => {
  stages = parseDockerfile(await read('Dockerfile'))
  image = stages.at(-1)!
  services = parse(await read('docker-compose.yml'), { merge: true }).services
})

describe('the image', () => {
  it('is made of files that are there and that .dockerignore lets in', async () => {
    const sources = stages.flatMap(copiesOf).flatMap(({ from, sources }) => (from ? [] : sources))
    const letIn = (await read('.dockerignore'))
      .split('\n')
      .flatMap((line) => line.match(/^!(.+)$/)?.[1] ?? [])
    expect(new Set(letIn)).toEqual(new Set(sources))
    for (const source of sources) expect([source, await exists(source)]).toEqual([source, true])
  })

  it('runs Node itself, as a user without rights, on the port that it exposes', () => {
    const last = (name: string) => instructionsOf(image, name).at(-1)?.words
    expect(execForm(last('ENTRYPOINT'))).toEqual(['node', 'dist/server/main.js'])
    expect(last('CMD')).toBeUndefined()
    expect(last('USER')).toBe('node')
    expect(last('STOPSIGNAL')).toBe('SIGTERM')
    expect(last('EXPOSE')).toBe(settings.port.default)
    expect(last('VOLUME')).toBe(variablesOf(image).TIDEMARK_UPLOAD_DIR)
  })

  it('can be built, started without rights, checked and stopped', { timeout: 400_000 }, async () => {
    const folder = await temporaryFolder()
    await chmod(folder, 0o755)
    for (const stage of stages) await performStage(stage, folder)
    const app = stageFolder(folder, image)
    const modules = join(app, 'node_modules')
    expect(await stat(join(modules, 'fastify')).then(Boolean)).toBe(true)
    for (const tool of ['typescript', 'vite', 'vitest', '@uppy']) {
      expect([tool, await stat(join(modules, tool)).catch(() => 'left out')]).toEqual([tool, 'left out'])
    }

    const data = join(folder, 'data')
    await mkdir(data)
    const user = await userWithoutRights(data)
    const port = await freePort()
    const settingsHere = {
      TIDEMARK_UPLOAD_DIR: data,
      TIDEMARK_PORT: String(port),
      TIDEMARK_HOST: '127.0.0.1',
    }
    const env = { PATH: process.env.PATH, ...variablesOf(image), ...settingsHere }
    const [, ...args] = execForm(instructionsOf(image, 'ENTRYPOINT')[0]?.words)!
    const server = startChild(process.execPath, args, { cwd: app, env, ...user })
    onTestFinished(async () => void (await stopChild(server)))
    const isHealthy = () => checkHealth(env)
    await untilReady(server, isHealthy, { name: 'What the image runs', withinMs: 30_000 })

    const content = randomBytes('image', 3_000_000)
    const url = await startUpload(content, { endpoint: `http://127.0.0.1:${port}/files/` }).done
    expect(await sha256(Buffer.from(await (await fetch(url)).arrayBuffer()))).toBe(await sha256(content))
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(200)

    expect(await stopChild(server, 20_000)).toEqual({ code: 0, signal: null })
    expect(await isHealthy()).toBe(false)
  })

  /** The health check of the image, word for word. */
  async function checkHealth(env: NodeJS.ProcessEnv): Promise<boolean> {
    const [, ...args] = execForm(instructionsOf(image, 'HEALTHCHECK')[0]?.words)!
    return run(process.execPath, args, { env }).then(
      () => true,
      () => false,
    )
  }

  function stageFolder(folder: string, stage: Stage): string {
    return join(folder, stage.name ?? 'image')
  }

  /** COPY and the npm commands of a stage, in order, with its WORKDIR as the folder. */
  async function performStage(stage: Stage, folder: string): Promise<void> {
    const here = stageFolder(folder, stage)
    await mkdir(here)
    for (const { from, sources, target } of copiesOf(stage)) {
      for (const source of sources) {
        const path = from ? join(folder, from, source.replace(/^\/app\//, '')) : join(root, source)
        const to = target.endsWith('/') ? join(here, target, basename(source)) : join(here, target)
        await cp(path, to, { recursive: true, verbatimSymlinks: true })
      }
    }
    for (const { words } of instructionsOf(stage, 'RUN')) {
      if (!words.startsWith('npm ')) continue
      const env = { PATH: process.env.PATH, HOME: process.env.HOME, ...variablesOf(stage), ...npmOffline }
      await run('npm', words.split(' ').slice(1), { cwd: here, env })
    }
  }
})

describe('the compose file', () => {
  it('gives the servers settings that they understand, and time to end', () => {
    const servers = Object.values(services).filter(({ image }) => image === 'tidemark')
    expect(servers).toHaveLength(2)
    for (const { environment, stop_grace_period, restart } of servers) {
      const config = loadConfig([], { ...variablesOf(image), ...environment })
      expect(config.behindProxy).toBe(true)
      expect(config.redisUrl).toBe('redis://redis:6379')
      expect(Number.parseInt(stop_grace_period, 10) * 1000).toBeGreaterThan(config.shutdownTimeoutMs)
      expect(restart).toBe('unless-stopped')
    }
  })

  it('lets both keep uploads in one volume, where the image has its data', () => {
    const volumes = ['tidemark-1', 'tidemark-2'].map((name) => services[name]?.volumes)
    expect(volumes).toEqual(Array(2).fill([`uploads:${variablesOf(image).TIDEMARK_UPLOAD_DIR}`]))
  })

  it('starts each service after those that it needs are healthy', () => {
    const needs = Object.entries(services).map(([name, { depends_on }]) => [name, depends_on ?? {}])
    const healthy = { condition: 'service_healthy' }
    expect(Object.fromEntries(needs)).toEqual({
      'tidemark-1': { redis: healthy },
      'tidemark-2': { redis: healthy },
      redis: {},
      nginx: { 'tidemark-1': healthy, 'tidemark-2': healthy },
    })
  })

  it('gives nginx the file that is shipped, which asks for the servers by the name that they have', async () => {
    const [source] = services.nginx!.volumes![0]!.split(':')
    const [, name, port] = (await read(source!)).match(/^ *server ([\w-]+):(\d+) /m) ?? []
    expect(port).toBe(settings.port.default)
    for (const server of ['tidemark-1', 'tidemark-2']) {
      const { networks } = services[server]!
      expect(networks).toMatchObject({ front: { aliases: [name] } })
    }
    expect(services.nginx!.networks).toEqual(['front'])
  })

  it('starts a Redis that throws nothing away', async () => {
    const [, ...args] = services.redis!.command!
    const redis = await startRedis({ args })
    onTestFinished(() => redis.stop())
    expect(await redis.command('CONFIG', 'GET', 'maxmemory-policy')).toContain('noeviction')
    expect(await redis.command('CONFIG', 'GET', 'appendonly')).toContain('yes')
  })
})

it('names no setting that does not exist', async () => {
  const known = new Set(Object.values(settings).map(({ flag }) => variableOf(flag)))
  const files = ['Dockerfile', 'docker-compose.yml', 'deploy/nginx.conf', 'docs/production.md']
  const named = (await Promise.all(files.map(read))).join('\n').match(/TIDEMARK_[A-Z_]+/g) ?? []
  expect(named.length).toBeGreaterThan(3)
  expect(named.filter((name) => !known.has(name))).toEqual([])
})

/** What the installation for these tests has fetched is not fetched again. */
const npmOffline = { npm_config_prefer_offline: 'true', npm_config_loglevel: 'error' }

/** Nobody, where these tests are run by root; else the one who runs them. */
async function userWithoutRights(data: string): Promise<{ uid?: number; gid?: number }> {
  if (process.getuid?.() !== 0) return {}
  await chown(data, 65_534, 65_534)
  return { uid: 65_534, gid: 65_534 }
}
