import { rm, truncate, writeFile } from 'node:fs/promises'
import { open } from 'lmdb'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { LmdbRecords } from '../../stores/local/lmdb-records.ts'
import { aloneWithIt } from '../../stores/local/opening-turns.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisRecords } from '../../stores/redis/redis-records.ts'
import type { Child } from '../support/child.ts'
import { makeFolder, temporaryFolder } from '../support/folder.ts'
import { startOpeners } from '../support/openers.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { describeRecords, record } from './records-contract.ts'

describeRecords('LmdbRecords', async () => {
  const folder = await makeFolder()
  const records = new LmdbRecords({ directory: folder.path })
  await records.start()
  return {
    servers: [records, records],
    async remains() {
      const root = open({ path: records.path, noSubdir: true, encoding: 'json' })
      const databases = ['records', 'expiry', 'recent', 'owners', 'digests'].map((name) =>
        root.openDB({ name, encoding: 'json' }),
      )
      return databases.reduce((sum, database) => sum + database.getCount(), 0)
    },
    cutOff: () => records.close(),
    async stop() {
      await records.close()
      await folder.remove()
    },
  }
})

describe('LmdbRecords', () => {
  it('keeps what was put when it is closed and opened again', async () => {
    const records = new LmdbRecords({ directory: await temporaryFolder() })
    await records.start()
    await records.put(record('u'), 5)
    await records.close()
    await records.start()
    expect(await records.get('u')).toEqual(record('u'))
    expect(await records.expiring(5, 1)).toEqual(['u'])
    await records.close()
  })

  it('keeps the newest of what several processes put at the same time, of which one is killed', async () => {
    const directory = await temporaryFolder()
    const records = new LmdbRecords({ directory })
    await records.start()
    const program = new URL('child-records.ts', import.meta.url)
    const children = startOpeners(
      program,
      [0, 1, 2].map((n) => [directory, String(n)]),
    )
    const hasPut = (child: Child) => child.stdout().includes('put')
    await expect.poll(() => children.every(hasPut), { timeout: 20_000 }).toBe(true)
    children[0]!.kill('SIGKILL')
    for (const child of children) await child.exited
    expect(children.slice(1).map((child) => child.output())).toEqual(['put\ndone\n', 'put\ndone\n'])
    // Each put the sequences that are its own, in any order: 499 is the last of number 2's.
    for (let n = 0; n < 5; n++) {
      const { mark } = (await records.get(`u${n}`))!
      expect(mark.sequence).toBe(499)
    }
    expect((await records.expiring(Number.MAX_SAFE_INTEGER, 100)).toSorted()).toEqual([
      'u0',
      'u1',
      'u2',
      'u3',
      'u4',
    ])
    await records.close()
  }, 40_000)

  it('says that a file is damaged which is no database, and is cut short, instead of dying of it', async () => {
    const directory = await temporaryFolder()
    const records = new LmdbRecords({ directory })
    for (const foreign of ['hi', 'hello '.repeat(20_000), Buffer.alloc(65_536)]) {
      await writeFile(records.path, foreign)
      await expect(records.start()).rejects.toMatchObject({ code: 'damaged' })
      await rm(records.path)
    }

    await records.start()
    await Promise.all(Array.from({ length: 2000 }, (_, n) => records.put(record(`u${n}`), n)))
    await records.close()
    for (const pages of [20, 2, 1]) {
      await truncate(records.path, pages * 4096)
      await expect(records.start()).rejects.toMatchObject({ code: 'damaged', message: /remove it/ })
    }
    await rm(records.path)
    await records.start()
    expect(await records.recent(1)).toEqual([])
    await records.close()
  })

  describe('`putSoon`', () => {
    async function start(turns?: typeof aloneWithIt) {
      const directory = await temporaryFolder()
      const records = new LmdbRecords({ directory, turns })
      await records.start()
      onTestFinished(() => records.close())
      return { records, directory }
    }

    it('is answered at once by `get`, told to who watches, and kept when the file is closed', async () => {
      const { records } = await start()
      const told: unknown[] = []
      await records.put(record('u'), 5)
      const stop = records.watch((news) => told.push(news))
      void records.putSoon(record('u', { sequence: 2 }), 7)
      expect(await records.get('u')).toEqual(record('u', { sequence: 2 }))
      expect(told).toEqual([{ is: 'put', record: record('u', { sequence: 2 }) }])
      stop()
      await records.close()
      await records.start()
      expect(await records.get('u')).toEqual(record('u', { sequence: 2 }))
      expect([await records.expiring(6, 1), await records.expiring(7, 1)]).toEqual([[], ['u']])
    })

    it('never replaces a newer copy, whichever comes first', async () => {
      const { records } = await start()
      const older = records.putSoon(record('u', { sequence: 2 }), 5)
      await records.put(record('u', { sequence: 3 }), 9)
      expect((await records.get('u'))?.mark.sequence).toBe(3)
      await older
      expect((await records.get('u'))?.mark.sequence).toBe(3)
      expect(await records.expiring(8, 1)).toEqual([])
    })

    it('brings nothing back that was removed meanwhile, here or by another process', async () => {
      const { records, directory } = await start(aloneWithIt)
      const other = new LmdbRecords({ directory, isExamined: true, turns: aloneWithIt })
      await other.start()
      for (const remover of [records, other]) {
        await records.put(record('u'), 5)
        const soon = records.putSoon(record('u', { sequence: 2 }), 5)
        await remover.remove('u')
        await soon
        expect(await records.get('u')).toBeUndefined()
        expect(await records.expiring(5, 1)).toEqual([])
      }
      await other.close()
    })

    it('is not taken for a copy of an upload that has the same id, and was made later', async () => {
      const { records, directory } = await start(aloneWithIt)
      const other = new LmdbRecords({ directory, isExamined: true, turns: aloneWithIt })
      await other.start()
      await records.put(record('u', { sequence: 49 }, 1000))
      const soon = records.putSoon(record('u', { sequence: 50 }, 1000))
      await other.remove('u')
      await other.put(record('u', { sequence: 1 }, 2000))
      await soon
      expect(await other.get('u')).toEqual(record('u', { sequence: 1 }, 2000))
      await other.close()
    })

    it('puts back what was lost, where nobody else could have removed it', async () => {
      const { records } = await start()
      await records.putSoon(record('u', { sequence: 2 }), 5)
      expect((await records.recent(1)).map(({ head }) => head.id)).toEqual(['u'])
    })

    it('says that it could not be written', async () => {
      const { records } = await start()
      await records.close()
      await expect(records.putSoon(record('u'))).rejects.toMatchObject({ code: 'unavailable' })
    })
  })

  it('takes an empty file for a new database', async () => {
    const records = new LmdbRecords({ directory: await temporaryFolder() })
    await writeFile(records.path, '')
    await records.start()
    await records.put(record('u'))
    await records.close()
  })
})

let redis: RedisServer
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(async () => {
  await redis.stop()
})

describeRecords('RedisRecords', async () => {
  const keyPrefix = `t${Math.random().toString(36).slice(2)}[*]:`
  const connections = [0, 1].map(() => new RedisConnection({ url: redis.url, keyPrefix }))
  const servers = connections.map((connection) => new RedisRecords({ connection }))
  for (const server of servers) await server.start()
  return {
    servers: [servers[0]!, servers[1]!],
    remains: () =>
      connections[0]!.run(
        async (client) => (await client.keys('*')).filter((key) => key.startsWith(keyPrefix)).length,
      ),
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

describe('RedisRecords', () => {
  it('gives the recent uploads that are there, though the index names some that are gone', async () => {
    const connection = new RedisConnection({ url: redis.url, keyPrefix: 'gone:' })
    const records = new RedisRecords({ connection })
    await records.start()
    for (let n = 0; n < 9; n++) await records.put(record(`u${n}`, {}, n))
    await connection.run((client) => client.del('gone:record:{u8}', 'gone:record:{u7}', 'gone:record:{u5}'))
    expect((await records.recent(3)).map(({ head }) => head.id)).toEqual(['u6', 'u4', 'u3'])
    await connection.close()
  })

  it('calls a key that holds something else damaged', async () => {
    const connection = new RedisConnection({ url: redis.url, keyPrefix: 'foreign:' })
    const records = new RedisRecords({ connection })
    await records.start()
    await connection.run((client) => client.set('foreign:record:{u}', 'text'))
    await expect(records.get('u')).rejects.toMatchObject({ code: 'damaged' })
    await expect(records.put(record('u'))).rejects.toMatchObject({ code: 'damaged' })
    await connection.close()
  })
})
