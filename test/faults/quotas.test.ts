// Quotas on real servers: many clients at a time on several servers or workers, kills in between, a Redis that lost all.
// Where nobody is asked who they are everybody's uploads count together, so these are all of one account.

import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLedger } from '../../stores/redis/redis-ledger.ts'
import { startRedis } from '../support/redis.ts'
import { chance } from '../support/seed.ts'
import { type Fleet, startFleet } from './fleet.ts'

const version = { 'Tus-Resumable': '1.0.0' }
const asBytes = { ...version, 'Content-Type': 'application/offset+octet-stream' }
const KiB = 1024

async function create(url: string, headers: Record<string, string>, body?: Buffer): Promise<Response> {
  const answer = await fetch(`${url}/files/`, {
    method: 'POST',
    headers: { ...version, ...headers },
    body: body ?? null,
  })
  await answer.text()
  return answer
}

/** The statuses of so many creations at once, over all servers. */
async function createMany(
  urls: readonly string[],
  count: number,
  headers: Record<string, string>,
): Promise<{ answers: Response[]; created: string[]; statuses: Record<number, number> }> {
  const answers = await Promise.all(
    Array.from({ length: count }, (_, n) => create(urls[n % urls.length]!, headers)),
  )
  const statuses: Record<number, number> = {}
  for (const { status } of answers) statuses[status] = (statuses[status] ?? 0) + 1
  const created = answers.filter(({ status }) => status === 201)
  return { answers, statuses, created: created.map((answer) => answer.headers.get('location')!) }
}

function finish(url: string, bytes: number): Promise<Response> {
  const headers = { ...asBytes, 'Upload-Offset': '0' }
  return fetch(url, { method: 'PATCH', headers, body: Buffer.alloc(bytes) })
}

/** How many there were at one moment, at least: marks that were there, and are open still. */
async function openUploadsIn(fleet: Fleet): Promise<number> {
  const ids = new Set(
    readdirSync(fleet.folder).flatMap((file) => /^\.([0-9a-f]{32})\..*mark$/.exec(file)?.[1] ?? []),
  )
  const bytes = new FileBytes({ directory: fleet.folder, durability: 'none' })
  const records = await Promise.all([...ids].map((id) => bytes.look(id)))
  return records.filter((record) => record?.mark.state === 'open').length
}

const houses: [string, (args: string[]) => Promise<Fleet>][] = [
  ['three servers with a Redis', (args) => startFleet({ servers: 3, args })],
  [
    'four workers without one',
    (args) => startFleet({ redisUrl: 'embedded', args: ['--workers', '4', ...args] }),
  ],
]

describe.each(houses)('%s', (_, start) => {
  it('take exactly as many uploads at a time as are allowed, and another for each that ends', async () => {
    const { urls } = await start(['--quota-open-uploads', '10'])
    const first = await createMany(urls, 40, { 'Upload-Length': '5' })
    expect(first.statuses).toEqual({ 201: 10, 429: 30 })
    const refused = first.answers.find(({ status }) => status === 429)!
    expect(refused.headers.get('retry-after')).toBe('10')

    for (const url of first.created.slice(0, 3)) expect((await finish(url, 5)).status).toBe(204)
    for (const url of first.created.slice(3, 5))
      expect((await fetch(url, { method: 'DELETE', headers: version })).status).toBe(204)
    expect((await createMany(urls, 20, { 'Upload-Length': '5' })).statuses).toEqual({ 201: 5, 429: 15 })
  }, 60_000)

  it('take exactly as many bytes and creations as are allowed', async () => {
    const bytes = await start(['--quota-unfinished-bytes', '64KiB'])
    const size = { 'Upload-Length': String(7 * KiB) }
    expect((await createMany(bytes.urls, 30, size)).statuses).toEqual({ 201: 9, 429: 21 })
    expect((await createMany(bytes.urls, 10, { 'Upload-Length': String(KiB) })).statuses).toEqual({
      201: 1,
      429: 9,
    })

    const rate = await start(['--quota-creations-per-minute', '7'])
    const { statuses, answers } = await createMany(rate.urls, 30, { 'Upload-Length': '1' })
    expect(statuses).toEqual({ 201: 7, 429: 23 })
    const seconds = Number(answers.find(({ status }) => status === 429)!.headers.get('retry-after'))
    expect(seconds).toBeGreaterThan(30)
    expect(seconds).toBeLessThanOrEqual(61)
  }, 60_000)

  it('never have more bytes of growing uploads than are allowed, and lose none that were acknowledged', async () => {
    const most = 300 * KiB
    const { urls } = await start(['--quota-unfinished-bytes', String(most)])
    const { created } = await createMany(urls, 6, { 'Upload-Defer-Length': '1' })
    const grow = async (url: string) => {
      for (let offset = 0; ; offset += 20 * KiB) {
        const headers = { ...asBytes, 'Upload-Offset': String(offset) }
        const answer = await fetch(url, { method: 'PATCH', headers, body: Buffer.alloc(20 * KiB) })
        await answer.text()
        if (answer.status === 423) return offset
        expect(answer.status).toBe(204)
      }
    }
    const kept = await Promise.all(created.map(grow))
    expect(kept.reduce((sum, bytes) => sum + bytes)).toBe(most)
    const offsets = await Promise.all(
      created.map(async (url) => (await fetch(url, { method: 'HEAD', headers: version })).headers),
    )
    expect(offsets.map((headers) => Number(headers.get('upload-offset')))).toEqual(kept)
  }, 60_000)

  it('that are killed while clients create never have more than are allowed', async () => {
    const most = 8
    const fleet = await start(['--quota-open-uploads', String(most)])
    const random = chance('kills of servers with quotas')
    let isOver = false
    const seen: number[] = []
    const clients = Array.from({ length: 8 }, async () => {
      while (!isOver) {
        const url = random.pick(fleet.urls)
        const answer = await create(url, { 'Upload-Length': '5' }).catch(() => sleep(20))
        if (answer?.status === 201 && random.next() < 0.7)
          await fetch(answer.headers.get('location')!, { method: 'DELETE', headers: version }).catch(
            () => undefined,
          )
        seen.push(await openUploadsIn(fleet))
      }
    })
    for (let kills = 0; kills < 3; kills++) {
      await sleep(random.between(300, 600))
      if (fleet.redis) await fleet.killAndRestart(kills % fleet.servers.length)
      else {
        const [worker] = fleet.workersOf(0)
        if (worker !== undefined) fleet.signalWorker(worker, 'SIGKILL')
      }
    }
    isOver = true
    await Promise.all(clients)
    expect(seen.length).toBeGreaterThan(50)
    expect(Math.max(...seen)).toBeGreaterThan(0)
    expect(Math.max(...seen)).toBeLessThanOrEqual(most)
    // Nor afterwards, however many ask.
    await createMany(fleet.urls, 30, { 'Upload-Length': '5' }).catch(() => undefined)
    expect(await openUploadsIn(fleet)).toBeLessThanOrEqual(most)
  }, 90_000)
})

describe('a server that was killed', () => {
  it('holds no running requests for longer than a lease', async () => {
    const { servers, urls } = await startFleet({
      args: ['--quota-running-requests', '1', '--lease', '2s'],
    })
    const { created } = await createMany(urls.slice(0, 1), 2, { 'Upload-Length': String(2 ** 20) })
    const other = created[1]!.replace(urls[0]!, urls[1]!)
    const stop = new AbortController()
    const slow = new ReadableStream({
      async pull(controller) {
        controller.enqueue(Buffer.alloc(1024))
        await sleep(50, undefined, { signal: stop.signal })
      },
    })
    const running = fetch(created[0]!, {
      ...{ method: 'PATCH', headers: { ...asBytes, 'Upload-Offset': '0' } },
      ...({ body: slow, duplex: 'half' } as RequestInit),
    }).catch(() => undefined)
    const send = async () => (await finish(other, 2 ** 20)).status
    await expect.poll(send, { timeout: 10_000 }).toBe(423)
    // Longer than a lease: it is renewed.
    await sleep(2500)
    expect(await send()).toBe(423)
    await servers[0]!.kill('SIGKILL')
    stop.abort()
    await running
    await expect.poll(send, { timeout: 10_000 }).toBe(204)
  }, 60_000)
})

describe('a Redis', () => {
  it('that lost everything is told again what is there, by the walk of a server', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const fleet = await startFleet({
      redisUrl: redis.url,
      args: ['--quota-open-uploads', '6', '--quota-total-bytes', '100', '--sweep-interval', '1s'],
    })
    const connection = new RedisConnection({ url: redis.url, keyPrefix: fleet.redis!.prefix })
    onTestFinished(() => connection.close())
    const ledger = new RedisLedger({ connection })
    await ledger.start()
    const used = async () => {
      const { openUploads, unfinishedBytes, totalBytes } = await ledger.usage('owner:', Date.now())
      return [openUploads, unfinishedBytes, totalBytes]
    }
    const { created } = await createMany(fleet.urls, 6, { 'Upload-Length': '10' })
    for (const url of created.slice(0, 2)) await finish(url, 10)
    expect(await used()).toEqual([4, 40, 60])

    await redis.command('FLUSHALL')
    expect(await used()).toEqual([0, 0, 0])
    // Nothing is noted of the last walk any more, so whoever sweeps next walks.
    await expect.poll(used, { timeout: 20_000 }).toEqual([4, 40, 60])
    const more = await createMany(fleet.urls, 12, { 'Upload-Length': '5' })
    expect(more.statuses).toEqual({ 201: 2, 429: 10 })
  }, 60_000)

  it('that is away refuses creations with 503 and answers HEAD with 423, and all heals when it is back', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const { urls } = await startFleet({
      servers: 1,
      redisUrl: redis.url,
      args: ['--quota-open-uploads', '6'],
    })
    const { created } = await createMany(urls, 1, { 'Upload-Length': '10' })
    await redis.kill()
    const answer = await create(urls[0]!, { 'Upload-Length': '10' })
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1'])
    expect((await fetch(created[0]!, { method: 'HEAD', headers: version })).status).toBe(423)
    await redis.restart()
    const status = async () => (await create(urls[0]!, { 'Upload-Length': '10' })).status
    await expect.poll(status, { timeout: 20_000 }).toBe(201)
  }, 60_000)
})
