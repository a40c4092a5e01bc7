import { rm, truncate, writeFile } from 'node:fs/promises'
import { open } from 'lmdb'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { noLimits } from '../../stores/ledger.ts'
import { LmdbLedger } from '../../stores/local/lmdb-ledger.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLedger } from '../../stores/redis/redis-ledger.ts'
import { makeFolder, temporaryFolder } from '../support/folder.ts'
import { startOpeners } from '../support/openers.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { describeLedger } from './ledger-contract.ts'

describeLedger('LmdbLedger', async () => {
  const folder = await makeFolder()
  const ledger = new LmdbLedger({ directory: folder.path })
  await ledger.start()
  return {
    servers: [ledger, ledger],
    async lose() {
      const root = open({ path: ledger.path, noSubdir: true, encoding: 'json', maxDbs: 4 })
      for (const name of ['accounts', 'entries', 'due', 'running'])
        await root.openDB({ name, encoding: 'json' }).clearAsync()
    },
    cutOff: () => ledger.close(),
    async stop() {
      await ledger.close()
      await folder.remove()
    },
  }
})

describe('LmdbLedger', () => {
  it('admits as many as there is room for to several processes at a time, and forgets the requests of one that is killed', async () => {
    const directory = await temporaryFolder()
    const ledger = new LmdbLedger({ directory })
    await ledger.start()
    const program = new URL('child-ledger.ts', import.meta.url)
    const children = startOpeners(
      program,
      [0, 1, 2].map((n) => [directory, String(n)]),
    )
    const isDone = () => children.every((child) => /begun\n\d+\n/.test(child.stdout()))
    await expect.poll(isDone, { timeout: 20_000 }).toBe(true)
    const admitted = children.map((child) => Number(child.stdout().split('\n')[1]))
    expect(admitted.reduce((sum, count) => sum + count)).toBe(77)
    const used = { openUploads: 77, unfinishedBytes: 770, totalBytes: 770 }
    expect(await ledger.usage('owner:me', Date.now())).toMatchObject(used)

    const running = async () => (await ledger.usage('owner:running', Date.now())).runningRequests
    expect(await running()).toBe(3)
    children[0]!.kill('SIGKILL')
    await children[0]!.exited
    expect(await running()).toBe(2)
    const ask = { now: Date.now(), until: Date.now() + 1000 }
    const begin = (id: string) => ledger.begin({ account: 'owner:running', id, token: id }, ask, 3)
    expect(await begin('a')).toEqual({ is: 'admitted' })
    expect(await begin('b')).toMatchObject({ is: 'refused' })
    await ledger.close()
  }, 40_000)

  it('keeps what was said when it is closed and opened again', async () => {
    const ledger = new LmdbLedger({ directory: await temporaryFolder() })
    await ledger.start()
    await ledger.settle({ account: 'owner:me', id: 'a', createdAt: 1 }, { is: 'finished', bytes: 7 })
    await ledger.close()
    await ledger.start()
    expect(await ledger.usage('owner:me', 1)).toMatchObject({ totalBytes: 7 })
    await ledger.close()
  })

  it('says that a file is damaged which is no database, and is cut short, instead of dying of it', async () => {
    const ledger = new LmdbLedger({ directory: await temporaryFolder() })
    await writeFile(ledger.path, 'hello '.repeat(20_000))
    await expect(ledger.start()).rejects.toMatchObject({ code: 'damaged' })
    await rm(ledger.path)
    await ledger.start()
    const entries = Array.from({ length: 2000 }, (_, n) => ({
      account: 'owner:me',
      id: `u${n}`,
      createdAt: n,
    }))
    await Promise.all(entries.map((entry) => ledger.admit(entry, { bytes: 1, now: 1, lookAt: 1 }, noLimits)))
    await ledger.close()
    await truncate(ledger.path, 2 * 4096)
    await expect(ledger.start()).rejects.toMatchObject({ code: 'damaged', message: /remove it/ })
    await rm(ledger.path)
    await ledger.start()
    await ledger.close()
  })
})

let redis: RedisServer
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(async () => {
  await redis.stop()
})

describeLedger('RedisLedger', async () => {
  const keyPrefix = `t${Math.random().toString(36).slice(2)}[*]:`
  const connections = [0, 1].map(() => new RedisConnection({ url: redis.url, keyPrefix }))
  const servers = connections.map((connection) => new RedisLedger({ connection }))
  for (const server of servers) await server.start()
  return {
    servers: [servers[0]!, servers[1]!],
    lose: async () => void (await redis.command('FLUSHALL')),
    async cutOff() {
      await redis.kill()
    },
    async stop() {
      for (const connection of connections) await connection.close()
      // The last test kills it, as whoever comes after wants one that runs.
      if ((await redis.command('PING').catch(() => '')) === '') await redis.restart()
    },
  }
})

describe('RedisLedger', () => {
  it('leaves nothing behind of an account that is empty, but its creations of the last minute', async () => {
    await redis.command('FLUSHALL')
    const connection = new RedisConnection({ url: redis.url, keyPrefix: 'empty:' })
    onTestFinished(() => connection.close())
    const ledger = new RedisLedger({ connection })
    await ledger.start()
    const entry = { account: 'owner:me', id: 'a', createdAt: 1 }
    const run = { ...entry, token: 'a' }
    const now = Date.now()
    await ledger.admit(entry, { bytes: 5, now, lookAt: now }, noLimits)
    await ledger.begin(run, { now, until: now + 1000 }, 1)
    await ledger.grow(entry, { least: 7, wanted: 7, lookAt: now }, noLimits)
    await ledger.settle(entry, { is: 'finished', bytes: 7 })
    await ledger.end(run)
    await ledger.settle(entry, { is: 'gone' })
    for await (const _ of ledger.entries());
    const keys = () => connection.run(async (client) => (await client.keys('*')).toSorted())
    await expect.poll(keys).toEqual(['empty:creations:{owner:me}'])
    expect(await connection.run((client) => client.pttl('empty:creations:{owner:me}'))).toBeGreaterThan(0)
  })
})
