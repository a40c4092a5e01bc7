// What Prometheus reads of a server that does things, to the byte; and who may read it.

import { createHash, randomUUID } from 'node:crypto'
import { truncate } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import fastify from 'fastify'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { requireAdmin } from '../../server/access/admin.ts'
import { type AccessRequest, unauthorized } from '../../server/access/gate.ts'
import type { Identity, Scope } from '../../server/access/identity.ts'
import { metricsPage, openMetricsPort } from '../../server/metrics/endpoint.ts'
import { Metrics, textOf } from '../../server/metrics/metrics.ts'
import { FileStore } from '../../stores/file/file-store.ts'
import { childrenOf } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startRedis } from '../support/redis.ts'
import { parseScrape, type Scrape, scrape } from '../support/scrape.ts'
import { type ServerOptions, type ServerProcess, startServer } from '../support/server-process.ts'
import { rawConnection } from './process.ts'

const tus = { 'Tus-Resumable': '1.0.0' }

async function start(args = ['--durability', 'none'], options: Partial<ServerOptions> = {}) {
  const dir = await temporaryFolder()
  const server = await startServer({ dir, args, ...options })
  onTestFinished(async () => void (await server.stop()))
  return { ...server, server, dir, metrics: () => scrape(`${server.url}/metrics`) }
}

async function create(server: Pick<ServerProcess, 'url'>, length: number): Promise<string> {
  const headers = { ...tus, 'Upload-Length': String(length) }
  const created = await fetch(`${server.url}/files/`, { method: 'POST', headers })
  expect(created.status).toBe(201)
  return created.headers.get('location')!
}

async function append(url: string, offset: number, body: string): Promise<number> {
  const type = 'application/offset+octet-stream'
  const headers = { ...tus, 'Upload-Offset': String(offset), 'Content-Type': type }
  return (await fetch(url, { method: 'PATCH', headers, body })).status
}

/** An append that has sent its first three bytes of ten, and stops there. */
async function stalled(port: number, url: string) {
  const connection = await rawConnection(port)
  onTestFinished(() => void connection.socket.destroy())
  connection.send(
    `PATCH ${new URL(url).pathname} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n` +
      'Content-Length: 10\r\nContent-Type: application/offset+octet-stream\r\nExpect: 100-continue\r\n\r\n',
  )
  await connection.until('100 Continue')
  connection.send('abc')
  return connection
}

/** Once `is` holds; what is counted when a request has ended may come a moment after its answer. */
async function soon(read: () => Promise<Scrape>, check: (now: Scrape) => void): Promise<Scrape> {
  return vi.waitFor(
    async () => {
      const now = await read()
      check(now)
      return now
    },
    { timeout: 10_000, interval: 50 },
  )
}

/** Where a server that is starting says that its metrics are. */
async function placeOf(server: ServerProcess): Promise<string> {
  return vi.waitFor(() => {
    const line = server.logs().find(({ msg }) => String(msg).startsWith('Metrics are at'))
    expect(line).toBeDefined()
    return String(line!.url)
  })
}

describe('the names of tusd', () => {
  it('say what was done, to the byte', async () => {
    const { url, metrics } = await start()
    const before = await metrics()
    expect(before.value('tusd_uploads_created')).toBe(0)
    const first = await create({ url }, 10)
    const second = await create({ url }, 5)
    expect(await append(first, 0, '0123456')).toBe(204)
    expect(await append(first, 7, '789')).toBe(204)
    expect(await append(second, 3, 'xx')).toBe(409)
    expect((await fetch(second, { method: 'DELETE', headers: tus })).status).toBe(204)
    expect((await fetch(second, { method: 'HEAD', headers: tus })).status).toBe(404)
    expect((await fetch(first)).status).toBe(200)
    const { value } = await soon(metrics, (now) =>
      expect(now.value('tusd_requests_total{method="GET"}')).toBe(1),
    )
    expect(value('tusd_requests_total{method="POST"}')).toBe(2)
    expect(value('tusd_requests_total{method="PATCH"}')).toBe(3)
    expect(value('tusd_requests_total{method="DELETE"}')).toBe(1)
    expect(value('tusd_requests_total{method="HEAD"}')).toBe(1)
    expect(value('tusd_requests_total{method="OPTIONS"}')).toBe(0)
    expect(value('tusd_errors_total{status="409",code="offset-conflict"}')).toBe(1)
    expect(value('tusd_errors_total{status="404",code="not-found"}')).toBe(1)
    expect(value('tusd_bytes_received')).toBe(10)
    expect(value('tusd_uploads_created')).toBe(2)
    expect(value('tusd_uploads_finished')).toBe(1)
    expect(value('tusd_uploads_terminated')).toBe(1)
    expect(value('tusd_connections_open')).toBeGreaterThanOrEqual(1)
    expect(value('tusd_hook_invocations_total{hooktype="pre-create"}')).toBe(0)
    expect(value('tusd_hook_errors_total{hooktype="post-finish"}')).toBe(0)
    expect(value('tidemark_received_bytes_total')).toBe(10)
    expect(value('tidemark_offset_moves_total')).toBe(2)
    expect(value('tidemark_requests_total{kind="append",status="204"}')).toBe(2)
    expect(value('tidemark_requests_total{kind="append",status="409"}')).toBe(1)
    expect(value('tidemark_request_duration_seconds_count{kind="append"}')).toBe(3)
    expect(value('tidemark_refusals_total{code="offset-conflict"}')).toBe(1)
  })

  it('are there before anything has happened, each with the type that it has there', async () => {
    const { types } = await (await start()).metrics()
    const ofTusd = [...types].filter(([name]) => name.startsWith('tusd_'))
    expect(Object.fromEntries(ofTusd)).toEqual({
      tusd_requests_total: 'counter',
      tusd_errors_total: 'counter',
      tusd_bytes_received: 'counter',
      tusd_uploads_created: 'counter',
      tusd_uploads_finished: 'counter',
      tusd_uploads_terminated: 'counter',
      tusd_connections_open: 'gauge',
      tusd_hook_invocations_total: 'counter',
      tusd_hook_errors_total: 'counter',
    })
    expect([...types.keys()]).toEqual(
      expect.arrayContaining(['process_resident_memory_bytes', 'nodejs_gc_duration_seconds']),
    )
  })
})

describe('a body that runs', () => {
  it('is counted with what came of it so far, and as displaced by who takes its upload over', async () => {
    const { url, port, metrics } = await start()
    const upload = await create({ url }, 10)
    const running = await stalled(port, upload)
    const during = await soon(metrics, (now) => expect(now.value('tusd_bytes_received')).toBe(3))
    expect(during.value('tidemark_running_bodies')).toBe(1)
    expect(during.value('tidemark_open_uploads')).toBe(1)
    expect(during.value('tidemark_take_overs_total')).toBe(0)

    expect(await append(upload, 0, '0123456789')).toBe(409) // three bytes are kept by then
    await running.closed
    const after = await soon(metrics, (now) => expect(now.value('tidemark_displaced_requests_total')).toBe(1))
    expect(after.value('tidemark_running_bodies')).toBe(0)
    expect(after.value('tidemark_open_uploads')).toBe(0)
    expect(after.value('tidemark_take_overs_total')).toBe(1)
    expect(after.value('tidemark_lock_wait_seconds_count')).toBe(2)
    expect(after.value('tusd_bytes_received')).toBe(3)
    expect(after.value('tidemark_refusals_total{code="displaced"}')).toBe(1)
  })
})

describe('what happens to storage', () => {
  it('is counted when it held less than was acknowledged', async () => {
    const { url, server, dir, metrics } = await start()
    const upload = await create({ url }, 10)
    expect(await append(upload, 0, '012345')).toBe(204)
    await server.kill()
    await truncate(join(dir, upload.split('/').at(-1)!), 2)
    await server.restart()
    expect(await append(upload, 6, '6')).toBe(409)
    expect((await metrics()).value('tidemark_rewinds_total')).toBe(1)
  })

  it('is timed where it is synced', async () => {
    const { url, metrics } = await start(['--durability', 'finish'])
    expect(await append(await create({ url }, 3), 0, 'abc')).toBe(204)
    const { value } = await metrics()
    expect(value('tidemark_sync_seconds_count')).toBe(2) // the bytes with their mark, then the mark that says finished
    expect(value('tidemark_sync_seconds_bucket{le="+Inf"}')).toBe(2)
  })

  it('is counted when it expires', async () => {
    const { url, metrics } = await start(['--expire-after', '1s', '--sweep-interval', '1s'])
    await create({ url }, 10)
    const { value } = await soon(metrics, (now) =>
      expect(now.value('tidemark_expired_uploads_total')).toBe(1),
    )
    expect(value('tidemark_sweeps_total')).toBeGreaterThanOrEqual(1)
    expect(value('tidemark_walks_total')).toBeGreaterThanOrEqual(1)
    expect(value('tusd_uploads_terminated')).toBe(0)
  })
})

describe('Redis', () => {
  it('has its commands timed, and its outages counted', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const { url, metrics } = await start([], { redisUrl: redis.url })
    await create({ url }, 10)
    const before = await metrics()
    expect(before.value('tidemark_redis_available')).toBe(1)
    expect(before.value('tidemark_redis_command_seconds_count')).toBeGreaterThan(2)
    await redis.kill()
    await soon(metrics, (now) => expect(now.value('tidemark_redis_available')).toBe(0))
    expect((await metrics()).value('tidemark_redis_outages_total')).toBe(1)
    await redis.restart()
    await soon(metrics, (now) => expect(now.value('tidemark_redis_available')).toBe(1))
    await soon(metrics, (now) => expect(now.value('tidemark_redis_replaced_total')).toBe(1))
  })

  it('has no value where there is none', async () => {
    const { samples, types } = await (await start()).metrics()
    expect([samples.has('tidemark_redis_available'), types.has('tidemark_redis_available')]).toEqual([
      false,
      true,
    ])
  })
})

it('events that wait are counted, with the age of the oldest', async () => {
  const { byteStore } = new FileStore({ directory: await temporaryFolder(), durability: 'none' })
  await byteStore.start()
  onTestFinished(() => byteStore.close())
  const { outbox } = byteStore
  const metrics = new Metrics({ version: '1', hasRedis: false })
  metrics.watch(outbox)
  const read = async () => parseScrape(await textOf([await metrics.measure()]))
  expect((await read()).value('tidemark_outbox_notes')).toBe(0)
  for (const ageS of [1, 3600]) {
    const head = { id: `aged-${ageS}`, createdAt: 1, dialect: 'tus' } as const
    const mark = {
      state: 'open',
      offset: 0,
      syncedOffset: 0,
      generation: 0,
      sequence: 0,
      movedAt: 1,
    } as const
    const id = createHash('md5').update(head.id).digest('hex')
    const event = { id, kind: 'created', at: Date.now() - ageS * 1000, record: { head, mark } } as const
    const rest = { teller: outbox.teller, notBefore: 0, failures: 0, isTrue: true }
    await outbox.put({ event, waiting: ['somebody'], ...rest })
  }
  const { value } = await read()
  expect(value('tidemark_outbox_notes')).toBe(2)
  expect(Math.round(value('tidemark_outbox_oldest_seconds') / 10)).toBe(360)
  for (const id of await outbox.list()) await outbox.remove(id)
  expect((await read()).value('tidemark_outbox_oldest_seconds')).toBe(0)
})

describe('labels', () => {
  it('never grow with what clients say', async () => {
    const { port, metrics } = await start()
    await assault()
    await metrics() // A request too.
    const before = await soon(metrics, counted(1))
    await assault()
    const after = await soon(metrics, counted(2))
    const ours = [...after.samples.keys()].filter((series) => /^(tusd|tidemark)_/.test(series))
    expect(ours.filter((series) => !before.samples.has(series))).toEqual([])
    expect(after.value('tusd_requests_total{method="other"}')).toBe(2 * 3)
    expect(after.text).not.toMatch(/PROPFIND|secret|example/)

    function counted(times: number) {
      return (now: Scrape) =>
        expect(now.value('tidemark_requests_total{kind="page",status="404"}')).toBe(times)
    }

    async function assault(): Promise<void> {
      const secret = `secret-${randomUUID()}`
      for (const method of ['PROPFIND', 'M-SEARCH', 'LOCK']) await ask(method, `/files/${secret}`)
      for (const method of ['HEAD', 'GET', 'PATCH', 'DELETE', 'POST'])
        await ask(method, `/files/${secret}?${secret}=${secret}`)
      await ask('GET', `/${secret}`)
    }

    function ask(method: string, path: string): Promise<void> {
      return new Promise((resolve, reject) => {
        const headers = { ...tus, Origin: 'https://example.com' }
        const asking = request({ port, host: '127.0.0.1', agent: false, method, path, headers }, (answer) => {
          answer.resume().once('close', () => resolve())
        })
        asking.once('error', reject).end()
      })
    }
  })
})

describe('the place', () => {
  it('is a path of the server, and another one by setting', async () => {
    const { url } = await start(['--metrics-path', '/inner/numbers'])
    expect((await fetch(`${url}/metrics`)).status).toBe(404)
    expect((await scrape(`${url}/inner/numbers`)).value('tusd_uploads_created')).toBe(0)
  })

  it('is a path of the server also when uploads are at the root', async () => {
    const { url } = await start(['--base-path', '/', '--show-page=false'])
    expect((await scrape(`${url}/metrics`)).value('tusd_requests_total{method="GET"}')).toBe(0)
  })

  it('is nowhere when they are switched off', async () => {
    const { url } = await start(['--expose-metrics=false'])
    expect((await fetch(`${url}/metrics`)).status).toBe(404)
  })

  it('is a port of its own, on loopback, and then nowhere else', async () => {
    const { url, server } = await start(['--metrics-port', '0'])
    const place = await placeOf(server)
    expect(place).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/)
    await create({ url }, 1)
    expect((await scrape(place)).value('tusd_uploads_created')).toBe(1)
    expect((await fetch(`${url}/metrics`)).status).toBe(404)
    expect((await fetch(new URL('/files/', place))).status).toBe(404)
    expect((await fetch(place, { method: 'POST' })).status).toBe(404)
  })

  it('is for admins alone where people sign in', async () => {
    const app = fastify()
    onTestFinished(() => app.close())
    const identify = ({ headers }: AccessRequest): Identity => {
      if (headers.authorization === undefined) throw unauthorized()
      return { owner: 'anna', scopes: [headers.authorization as Scope] }
    }
    const mayRead = requireAdmin({ identify })
    await app.register(metricsPage, { path: '/metrics', read: async () => 'the numbers', mayRead })
    const as = (authorization?: string) =>
      app.inject({ url: '/metrics', headers: authorization ? { authorization } : {} })
    const [nobody, reader, admin] = [await as(), await as('read'), await as('admin')]
    expect([nobody.statusCode, nobody.headers['www-authenticate']]).toEqual([401, 'Bearer realm="Tidemark"'])
    expect([reader.statusCode, reader.body.split(':')[0]]).toEqual([403, 'forbidden'])
    expect([admin.statusCode, admin.body]).toEqual([200, 'the numbers'])
  })

  it('of its own ends with the server, and answers nobody who can not be answered', async () => {
    const own = await openMetricsPort(
      { host: '127.0.0.1', port: 0 },
      { path: '/metrics', read: () => Promise.reject(new Error('a secret')) },
    )
    await expect(fetch(`http://127.0.0.1:${own.port}/metrics`)).rejects.toThrow()
    await own.close()
    await expect(fetch(`http://127.0.0.1:${own.port}/metrics`)).rejects.toThrow()
  })
})

describe.each(['the port of the uploads', 'a port of its own'])('several workers, read at %s', (where) => {
  it('are counted as one, and stay counted when one of them dies', async () => {
    const own = where === 'a port of its own' ? ['--metrics-port', '0'] : []
    const { url, server, pid } = await start(['--workers', '2', ...own])
    const place = own.length > 0 ? await placeOf(server) : `${url}/metrics`
    const read = () => scrape(place)
    for (let i = 0; i < 12; i++) {
      const upload = await create({ url }, 3)
      expect(await append(upload, 0, 'abc')).toBe(204)
    }
    const before = await read()
    expect(before.value('tusd_uploads_finished')).toBe(12)
    expect(before.value('tusd_bytes_received')).toBe(36)
    const rss = before.value('process_resident_memory_bytes')
    expect(rss).toBeGreaterThan(80_000_000) // of two processes

    process.kill(childrenOf(pid).at(-1)!, 'SIGKILL')
    await vi.waitFor(() => expect(server.output()).toContain('the worker listens'), { timeout: 20_000 })
    const after = await read()
    expect(after.value('tusd_uploads_finished')).toBe(12)
    expect(after.value('tusd_bytes_received')).toBe(36)
    await create({ url }, 3)
    expect((await read()).value('tusd_uploads_created')).toBe(13)
    expect(after.value(`tidemark_build_info{version="0.1.0",node="${process.version}"}`)).toBe(1)
  })
})

it('of several servers each says its own', async () => {
  const prefix = ['--redis-key-prefix', `${randomUUID()}:`]
  const first = await start(prefix, { redisUrl: inject('redisUrl') })
  const second = await startServer({ dir: first.dir, redisUrl: inject('redisUrl'), args: prefix })
  onTestFinished(async () => void (await second.stop()))
  await create(first, 1)
  expect((await first.metrics()).value('tusd_uploads_created')).toBe(1)
  expect((await scrape(`${second.url}/metrics`)).value('tusd_uploads_created')).toBe(0)
})
