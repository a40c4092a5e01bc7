// What a request costs Redis, by Redis's own statistics: scripts, index commands, and how often the server's socket had
// to be read, which is how often something was sent.

import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { Redis } from 'ioredis'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { RedisConnection } from '../../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../../stores/redis/redis-locker.ts'
import { RedisRecords } from '../../../stores/redis/redis-records.ts'
import { record } from '../../contracts/records-contract.ts'
import { bytesAt, bytesType, type Site, startSite } from '../../protocol/exchange.ts'
import { type RedisServer, startRedis } from '../../support/redis.ts'

const MiB = 1024 * 1024
const nothing = { scripts: 0, index: 0, trips: 0 }
let redis: RedisServer
let statistics: Redis

beforeEach(async () => {
  redis = await startRedis()
  statistics = new Redis(redis.url)
})
afterEach(async () => {
  statistics.disconnect()
  await redis.stop()
})

describe('a request costs Redis', () => {
  it('nothing when it is OPTIONS, GET, or HEAD on a finished upload', async () => {
    const { site } = await warmSite()
    const url = await site.createFinished('abc')
    expect(await cost(() => site.send('OPTIONS', '/files'))).toEqual(nothing)
    expect(await cost(() => site.send('GET', url))).toEqual(nothing)
    expect(await cost(() => site.head(url))).toEqual(nothing)
  })

  it('nothing when it is refused before the lock', async () => {
    const { site } = await warmSite()
    const url = await site.create(10)
    expect(await cost(async () => expect((await site.append(url, 5, 'x')).status).toBe(409))).toEqual(nothing)
    const tooLong = () => site.append(url, 0, 'more than ten bytes')
    expect(await cost(async () => expect((await tooLong()).status).toBe(413))).toEqual(nothing)
    expect(await cost(async () => expect(await site.shown('/files/nobody')).toBe('404'))).toEqual(nothing)
  })

  it('one round trip and no script when it asks for the offset, and nothing where the upload is open here', async () => {
    const { site } = await warmSite()
    const url = await site.create(10)
    const ask = async () => expect(await site.shown(url)).toBe('0/10')
    expect(await cost(ask)).toEqual(nothing)
    await letGo(url)
    expect(await cost(ask)).toEqual({ scripts: 0, index: 0, trips: 1 })
  })

  it('one command for all that ask at a time', async () => {
    const { locker } = await warmSite()
    const askMany = async () => {
      const asked = Array.from({ length: 20 }, (_, n) => locker.untilFree(`u${n}`, { timeoutMs: 0 }))
      expect(await Promise.all(asked)).toEqual(asked.map(() => false))
    }
    expect(await cost(askMany)).toEqual({ scripts: 0, index: 0, trips: 1 })
    expect(await statistics.info('commandstats')).toMatch(/^cmdstat_exists:calls=1,/m)
  })

  it('one round trip when it creates an upload whose bytes come with its head', async () => {
    const { site } = await warmSite()
    const headers = { 'Tus-Resumable': '1.0.0', 'Upload-Length': 3, 'Content-Length': 3, ...bytesType }
    const where = { host: '127.0.0.1', port: site.port, path: '/files', agent: false }
    const create = async () => {
      const request = httpRequest({ ...where, method: 'POST', headers }).end('abc')
      const [answer] = (await once(request, 'response')) as [IncomingMessage]
      expect(answer).toMatchObject({ statusCode: 201, headers: { 'upload-offset': '3' } })
      answer.resume()
    }
    expect(await cost(create)).toEqual({ scripts: 1, index: 2, trips: 1 })
  })

  it('one round trip when it creates an empty upload and takes its lock in the same script, index entries included', async () => {
    const { site } = await warmSite()
    expect(await cost(() => site.create(10))).toEqual({ scripts: 1, index: 2, trips: 1 })
  })

  it('two round trips when it creates with bytes or appends, index entries included in the second', async () => {
    const { site } = await warmSite()
    const two = { scripts: 2, index: 2, trips: 2 }
    expect(await cost(() => site.create(10, bytesType, 'abc'))).toEqual(two)
    const url = await site.create(10)
    await letGo(url)
    expect(await cost(() => site.append(url, 0, 'abcdefghij'))).toEqual(two)
  })

  it('nothing to wait for when it appends to an upload that is open here, and one record for all that come at a time', async () => {
    const { site, records } = await warmSite()
    const url = await site.create(10)
    const id = url.split('/').at(-1)!
    const append = async () => {
      for (const offset of [0, 2, 4, 6]) await site.append(url, offset, 'ab')
      await expect.poll(async () => (await records.get(id))?.mark.offset).toBe(8)
    }
    const spent = await cost(append)
    expect(spent.scripts).toBeLessThanOrEqual(2)
    const finish = () => site.append(url, 8, 'ab')
    expect(await cost(finish)).toEqual({ scripts: 1, index: 2, trips: 1 })
  })

  it('a record more when somebody wants an upload before its record was sent', async () => {
    const { site, records } = await warmSite()
    const url = await site.create(10)
    await site.append(url, 0, 'abc')
    await letGo(url)
    expect((await records.get(url.split('/').at(-1)!))?.mark.offset).toBe(3)
  })

  it('one more for every checkpoint, or for several that come together; index entries with the first only', async () => {
    const { site } = await warmSite()
    const beganAt = performance.now()
    const url = await site.create(64 * MiB)
    await letGo(url)
    const spent = await cost(async (scripts) => {
      const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 40 * MiB }))
      const piece = Buffer.alloc(8 * MiB, 'tide')
      for (let sent = 1; sent <= 4; sent++) {
        request.write(piece)
        // The acquisition, and a checkpoint for each piece.
        await expect.poll(scripts, { timeout: 10_000 }).toBeGreaterThanOrEqual(1 + sent)
      }
      request.write(piece)
      expect(await request.answer).toMatchObject({ status: 204 })
      // The last one stands for the record of an upload that stays open.
      await expect.poll(scripts).toBeGreaterThanOrEqual(2 + 4)
    })
    // One for every 8 MiB, and one for every second.
    expect(spent.scripts).toBeLessThanOrEqual(2 + 5 + Math.ceil((performance.now() - beganAt) / 1000))
    expect([spent.trips, spent.index]).toEqual([spent.scripts, 2])
  })

  it('one write, and one command for each index, when many put records at a time', async () => {
    const { records } = await warmSite()
    await records.put(record('first'))
    const putMany = () => Promise.all(Array.from({ length: 20 }, (_, n) => records.put(record(`u${n}`), n)))
    expect(await cost(putMany)).toEqual({ scripts: 20, index: 2, trips: 1 })
    expect(await records.expiring(20, 30)).toHaveLength(20)
  })

  it('one index entry more when its upload has an owner', async () => {
    const { records } = await warmSite()
    const owned = record('u')
    await records.put(owned)
    const put = () => records.put({ ...owned, head: { ...owned.head, owner: 'ann' } })
    expect(await cost(put)).toEqual({ scripts: 1, index: 3, trips: 1 })
  })

  it('no message while nobody watches; while somebody does, one for all that happens at a time', async () => {
    const { site, records } = await warmSite()
    const messages = async () =>
      /^cmdstat_publish:calls=(\d+)/m.exec(await statistics.info('commandstats'))?.[1]
    await statistics.config('RESETSTAT')
    await site.createFinished('abc')
    expect(await messages()).toBeUndefined()

    const connection = new RedisConnection({ url: redis.url })
    onTestFinished(() => connection.close())
    const watcher = new RedisRecords({ connection })
    await watcher.start()
    const news: string[] = []
    const stop = watcher.watch((one) => news.push(one.is))
    await expect.poll(() => news).toEqual(['missed'])
    const before = Number(await messages())
    await Promise.all(Array.from({ length: 50 }, (_, n) => records.put(record(`u${n}`))))
    await expect.poll(() => news.length).toBe(51)
    expect(Number(await messages()) - before).toBeLessThanOrEqual(2)
    stop()
  })

  it('three round trips when it terminates', async () => {
    const { site } = await warmSite()
    const url = await site.create(10)
    await letGo(url)
    expect(await cost(() => site.send('DELETE', url))).toEqual({ scripts: 2, index: 2, trips: 3 })
  })

  it('the text of a script once, when Redis does not know it', async () => {
    const { site } = await warmSite()
    const urls = [await site.create(3), await site.create(3)] as const
    for (const url of urls) await letGo(url)
    await statistics.script('FLUSH')
    expect(await cost(() => site.append(urls[0], 0, 'abc'))).toEqual({ scripts: 4, index: 2, trips: 4 })
    expect(await cost(() => site.append(urls[1], 0, 'def'))).toEqual({ scripts: 2, index: 2, trips: 2 })
  })
})

describe('what is held costs', () => {
  it('one write for all renewals of a process, however many; and nothing once nothing is held', async () => {
    const tickMs = 50
    const { site, locker } = await warmSite({ tickMs })
    const requests = await Promise.all(Array.from({ length: 5 }, () => stalled(site)))
    const { scripts, trips } = await cost(async (scripts) => {
      await expect.poll(scripts, { timeout: 10_000 }).toBeGreaterThanOrEqual(50)
    })
    // Every fifth round also looks after the connection for messages.
    expect(scripts % 5).toBe(0)
    expect(trips).toBeGreaterThanOrEqual(scripts / 5)
    // A busy machine may read one write in two pieces.
    expect(trips).toBeLessThanOrEqual((scripts / 5) * 2 + 1)

    for (const request of requests) request.cut()
    await expect.poll(() => locker.size).toBe(0)
    const tenRounds = () => new Promise((resolve) => setTimeout(resolve, 10 * tickMs))
    expect(await cost(tenRounds)).toEqual(nothing)
  })
})

/** A server over Redis that has sent each of its scripts once. By itself it does nothing for minutes. */
async function warmSite({ tickMs = 600_000 } = {}) {
  const connection = new RedisConnection({ url: redis.url })
  onTestFinished(() => connection.close())
  const locker = new RedisLocker({ connection, tickMs })
  const records = new RedisRecords({ connection })
  const site = await startSite({ locker, records })
  const lock = await locker.acquire('warm', { timeoutMs: 0 })
  await lock.release()
  const url = await site.create(3)
  const warm = (await site.server.engine.bytes.look(url.split('/').at(-1)!))!
  const held = await locker.acquire(warm.head.id, { timeoutMs: 1_000 })
  held.checkpoint!(warm)
  // Of five scripts each but the second acquisition was sent by its digest, and then as a whole.
  await expect.poll(async () => (await counts()).scripts).toBeGreaterThanOrEqual(9)
  await held.commitAndRelease!(warm)
  await records.put(warm)
  await site.send('DELETE', url)
  return { site, locker, records }
}

/** Another server wants an upload that nobody uses, and gives it back. */
async function letGo(url: string): Promise<void> {
  const connection = new RedisConnection({ url: redis.url })
  const locker = new RedisLocker({ connection })
  const lock = await locker.acquire(url.split('/').at(-1)!, { timeoutMs: 5_000 })
  await lock.release()
  await locker.close()
  await connection.close()
}

/** A PATCH that has sent a byte, and holds its upload. */
async function stalled(site: Site) {
  const url = await site.create(10)
  const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10, Expect: '100-continue' }))
  await request.continued
  request.write('a')
  return request
}

/** What `work` made Redis do; it may ask how many scripts were run so far. */
async function cost(work: (scripts: () => Promise<number>) => Promise<unknown>) {
  await statistics.config('RESETSTAT')
  await work(async () => (await counts()).scripts)
  return await counts()
}

async function counts(): Promise<{ scripts: number; index: number; trips: number }> {
  const info = await statistics.info('everything')
  const number = (pattern: RegExp) => Number(pattern.exec(info)?.[1] ?? 0)
  const calls = (name: string) => number(new RegExp(`^cmdstat_${name}:calls=(\\d+)`, 'm'))
  // Commands within scripts count too, so only those count here that no script has. Asking is read from a socket as well;
  // the question that is being answered is not among the calls yet.
  return {
    scripts: calls('evalsha') + calls('eval'),
    index: calls('zadd') + calls('zrem'),
    trips: number(/^total_reads_processed:(\d+)/m) - calls('info') - 1,
  }
}
