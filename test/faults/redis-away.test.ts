// Redis is away: it was killed, or the network swallows everything. New data is refused in words that clients wait for,
// questions are put off, and nothing hangs; when it is back everything goes on.

import { once } from 'node:events'
import { type ClientRequest, request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { RedisRecords } from '../../stores/redis/redis-records.ts'
import { bytesAt, startSite } from '../protocol/exchange.ts'
import { startNginx } from '../shipping/nginx.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import type { ServerProcess } from '../support/server-process.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { startUpload } from '../support/tus-client.ts'
import { startFleet } from './fleet.ts'

const MiB = 1024 * 1024
const away = { status: 503, headers: { 'retry-after': '1' } }
const busy = { status: 423, headers: { 'retry-after': '1' } }
/** Longer than any test lasts: whoever waited for it would never be answered. */
const commandTimeoutMs = 120_000

describe('while Redis is away', () => {
  it.each(['killed', 'silent'] as const)(
    '(%s) creations and appends are answered 503, questions 423, what is finished as ever; then all goes on',
    async (how) => {
      const { site, redis, wire, connection } = await siteOver()
      const url = await site.create(6)
      const finished = await site.createFinished('abc')
      if (how === 'killed') await redis.kill()
      else {
        // The first command that is not answered has the connection cut, after its time; here it is cut by hand.
        wire.isSilent = true
        wire.cut()
      }
      await expect.poll(() => connection.isAvailable).toBe(false)

      for (const _ of [1, 2]) {
        expect(await site.send('POST', '/files', { 'Upload-Length': 3 })).toMatchObject(away)
        expect(await site.append(url, 0, 'abc')).toMatchObject(away)
        expect(await site.head(url)).toMatchObject(busy)
        expect(await site.send('DELETE', url)).toMatchObject(busy)
      }
      expect((await site.send('GET', finished)).text).toBe('abc')
      expect(await site.shown(finished)).toBe('3/3')
      expect(await site.append(url, 5, 'x')).toMatchObject({ status: 409 })
      expect(await site.server.progress(url.split('/').at(-1)!)).toMatchObject({ offset: 0, state: 'open' })

      if (how === 'killed') await redis.restart()
      else {
        wire.isSilent = false
        wire.cut()
      }
      await expect.poll(() => connection.isAvailable, { timeout: 10_000 }).toBe(true)
      expect(await site.append(url, 0, 'abcdef')).toMatchObject({ status: 204 })
      expect((await site.send('GET', url)).text).toBe('abcdef')
    },
  )

  it('a request that was under way is answered when the connection ends, and not later', async () => {
    const { site, wire, connection, locker } = await siteOver()
    const url = await site.create(6)
    await letGo(locker, url)
    wire.isSilent = true
    const run = vi.spyOn(connection, 'run')
    const creation = site.open('POST', '/files', { 'Upload-Length': 3 })
    const append = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 3 }))
    append.write('abc')
    const question = site.open('HEAD', url)
    // A record with its lock, and its two index entries; a lock; and the question whether somebody holds one.
    await expect.poll(() => run.mock.calls.length).toBe(5)
    wire.cut()
    expect(await creation.answer).toMatchObject(away)
    expect(await append.answer).toMatchObject(away)
    expect(await question.answer).toMatchObject(busy)
  })

  it('an upload that is open here is sent to and asked for, until it is noticed; then as any other', async () => {
    const { site, wire, connection } = await siteOver()
    const url = await site.create(6)
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
    wire.isSilent = true
    expect(await site.append(url, 3, 'de')).toMatchObject({ status: 204 })
    expect(await site.shown(url)).toBe('5/6')
    wire.cut()
    await expect.poll(() => connection.isAvailable).toBe(false)
    expect(await site.append(url, 5, 'f')).toMatchObject(away)
    expect(await site.head(url)).toMatchObject(busy)
    wire.isSilent = false
    wire.cut()
    await expect.poll(() => site.append(url, 5, 'f'), { timeout: 10_000 }).toMatchObject({ status: 204 })
    expect((await site.send('GET', url)).text).toBe('abcdef')
  })

  it('a running append goes on, and finishes while its lease stands', async () => {
    const { site, redis, connection } = await siteOver()
    const url = await site.create(6)
    const append = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 6, Expect: '100-continue' }))
    await append.continued
    append.write('abc')
    await redis.kill()
    await expect.poll(() => connection.isAvailable).toBe(false)
    append.write('def')
    expect(await append.answer).toMatchObject({ status: 204, headers: { 'upload-offset': '6' } })
    expect((await site.send('GET', url)).text).toBe('abcdef')
  })
})

describe('a server whose Redis is away', () => {
  it.each(['killed', 'silent'] as const)(
    '(%s) is not ready and says why, has one log line for it, and lives',
    async (how) => {
      const { fleet, server, redis, wire } = await fleetOver(1)
      const { pid } = server
      const create = () =>
        fetch(`${server.url}/files/`, {
          method: 'POST',
          headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '1' },
        })
      const running = await runningPatch(server)
      expect(await ready(server)).toEqual([200, undefined])
      if (how === 'killed') await redis.kill()
      else wire.isSilent = true
      // All at once: they share what is left of the first one's wait.
      const first = await Promise.all(Array.from({ length: 20 }, create))
      expect(first.map(({ status }) => status)).toEqual(Array(20).fill(503))
      await expect.poll(() => ready(server)).toEqual([503, expect.stringMatching(/^Redis .* is away/)])
      const more = await Promise.all(Array.from({ length: 20 }, create))
      expect(more.map(({ status }) => status)).toEqual(Array(20).fill(503))
      // What is running goes on, and finishes; the record of it can not be put now.
      const [answer] = await Promise.all([once(running, 'response'), running.end('defghij')])
      expect(answer[0].statusCode).toBe(204)

      if (how === 'killed') await redis.restart()
      else wire.isSilent = false
      await expect.poll(() => ready(server), { timeout: 10_000 }).toEqual([200, undefined])
      await expect.poll(async () => (await create()).status).toBe(201)
      const key = `${fleet.redis!.prefix}record:{${running.path.split('/').at(-1)}}`
      const record = () => redis.command('HGET', key, 'body')
      await expect.poll(record, { timeout: 10_000 }).toContain('"state":"finished","offset":10')

      const notices = fleet.logs().filter((line) => line.method === undefined)
      const said = (what: RegExp) => notices.filter(({ msg }) => what.test(String(msg))).length
      expect([said(/can not be reached/), said(/^Redis answers/)]).toEqual([1, 2])
      expect([said(/record of an upload/), said(/sweep/)]).toEqual([0, 0])
      expect(server.pid).toBe(pid)
    },
  )
})

describe('tus-js-client never begins again at byte 0', () => {
  it.each([
    ['killed', 'directly'],
    ['silent', 'directly'],
    ['killed', 'through nginx'],
    ['silent', 'through nginx'],
  ] as const)('when Redis is %s, %s', { timeout: 60_000 }, async (how, way) => {
    const { fleet, redis, wire } = await fleetOver(2)
    let base = fleet.urls[0]!
    if (way === 'through nginx') {
      const nginx = await startNginx(fleet.servers.map(({ port }) => port))
      onTestFinished(() => nginx.stop())
      base = nginx.url
    }
    const content = randomBytes(`away ${how} ${way}`, 16 * MiB)
    let state: 'well' | 'away' | 'well again' = 'well'
    let isNoticed = false
    const { done, exchanges } = startUpload(content, {
      endpoint: `${base}/files/`,
      chunkSize: MiB,
      onChunkComplete: async (_, accepted) => {
        if (state !== 'well' || accepted < 5 * MiB) return
        state = 'away'
        if (how === 'killed') await redis.kill()
        else wire.isSilent = true
      },
      // Until it is noticed, after a quarter of a lease, the upload would go on.
      onBeforeRequest: async () => {
        if (state === 'away' && !isNoticed) await delay(how === 'killed' ? 100 : 2_000)
        isNoticed = state === 'away'
      },
      onAfterResponse: async (request, response) => {
        if (state !== 'away' || request.getMethod() !== 'HEAD' || response.getStatus() !== 423) return
        state = 'well again'
        if (how === 'killed') await redis.restart()
        else wire.isSilent = false
      },
    })
    const url = await done
    expect(state).toBe('well again')
    const answered = (method: string) => exchanges.filter((exchange) => exchange.method === method)
    expect(answered('POST').map(({ status }) => status)).toEqual([201])
    expect(answered('PATCH').filter(({ offset }) => offset === 0)).toHaveLength(1)
    const strange = answered('HEAD').filter(({ status }) => status !== 200 && status !== 423)
    expect(strange).toEqual([])
    const download = await fetch(url)
    expect(await sha256(new Uint8Array(await download.arrayBuffer()))).toBe(await sha256(content))
  })
})

/** Somebody else wants an upload that nobody uses, and gives it back. */
async function letGo(locker: RedisLocker, url: string): Promise<void> {
  await (await locker.acquire(url.split('/').at(-1)!, { timeoutMs: 5_000 })).release()
}

/** A server in this process, over a Redis of its own. */
async function siteOver() {
  const { redis, wire, url } = await redisBehindWire()
  const connection = new RedisConnection({ url, commandTimeoutMs })
  onTestFinished(() => connection.close())
  const locker = new RedisLocker({ connection, leaseMs: 4 * commandTimeoutMs })
  const site = await startSite({ locker, records: new RedisRecords({ connection }) })
  return { site, redis, wire, connection, locker }
}

async function fleetOver(servers: number) {
  const { redis, wire, url } = await redisBehindWire()
  const fleet = await startFleet({ redisUrl: url, servers, args: ['--lease', '4s'] })
  return { fleet, server: fleet.servers[0]!, redis, wire }
}

async function redisBehindWire(): Promise<{ redis: RedisServer; wire: TcpProxy; url: string }> {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const wire = await startTcpProxy(redis.port)
  onTestFinished(() => wire.close())
  return { redis, wire, url: `redis://127.0.0.1:${wire.port}` }
}

async function ready(server: ServerProcess): Promise<[number, string | undefined]> {
  const response = await fetch(`${server.url}/health/ready`)
  const { reason } = (await response.json()) as { reason?: string }
  return [response.status, reason]
}

/** A PATCH that has sent a part of its body, and holds its upload. */
async function runningPatch(server: ServerProcess): Promise<ClientRequest> {
  const created = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '10' },
  })
  const headers = {
    'Tus-Resumable': '1.0.0',
    ...bytesAt(0, { 'Content-Length': 10, Expect: '100-continue' }),
  }
  const patch = request(created.headers.get('location')!, { method: 'PATCH', headers, agent: false })
  patch.on('error', () => undefined)
  patch.flushHeaders()
  await once(patch, 'continue')
  patch.write('abc')
  return patch
}
