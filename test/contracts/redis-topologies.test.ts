// The contracts once more, over everything that a URL of Redis may lead to besides one plain server; as a user who may do
// only what docs/production.md allows.
import { readFile } from 'node:fs/promises'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { RedisConfigStore } from '../../stores/redis/redis-config-store.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLedger } from '../../stores/redis/redis-ledger.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { RedisRecords } from '../../stores/redis/redis-records.ts'
import { makeCertificate, tlsSettings } from '../support/certificate.ts'
import { makeFolder } from '../support/folder.ts'
import { freePort } from '../support/free-port.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { startCluster, startSentinels } from '../support/redis-topologies.ts'
import { describeAcquireNew } from './acquire-new-contract.ts'
import { describeLedger } from './ledger-contract.ts'
import { countAsked, describeLocker } from './locker-contract.ts'
import { describeRecords } from './records-contract.ts'

interface Topology {
  url: string
  tls?: { ca: Buffer }
  /** Those that hold data, and may do everything. */
  primaries: RedisServer[]
  all: RedisServer[]
  stop(): Promise<void>
}

/** Of the user that docs/production.md shows. */
const keyPrefix = 'tidemark:'

describe.each<[string, () => Promise<Topology>]>([
  ['Sentinel', sentinel],
  ['a Cluster', cluster],
  ['TLS', secure],
])('through %s', (name, start) => {
  let topology: Topology
  beforeAll(async () => {
    topology = await start()
  })
  afterAll(async () => {
    await topology.stop()
  })
  const connect = () => {
    const { url, tls } = topology
    return new RedisConnection({ url, keyPrefix, ...(tls && { tls }) })
  }
  const onPrimaries = async <T>(work: (redis: Redis) => Promise<T>): Promise<T[]> =>
    Promise.all(topology.primaries.map(({ port }) => asAdmin(port, work)))
  const keysLeft = async () => (await onPrimaries((redis) => redis.keys('*'))).flat()
  const empty = () => onPrimaries((redis) => redis.flushall())

  describeLocker(`RedisLocker, ${name}`, async () => {
    const connections = [connect(), connect()]
    const lockers = connections.map((connection) => new RedisLocker({ connection }))
    for (const locker of lockers) await locker.start()
    let before = 0
    return {
      servers: [lockers[0]!, lockers[1]!],
      // A fence is remembered for an hour, so that it grows.
      remains: async () =>
        lockers[0]!.size +
        lockers[1]!.size +
        (await keysLeft()).filter((key) => !key.startsWith(`${keyPrefix}fence:`)).length,
      async requests() {
        const stats = await onPrimaries((redis) => redis.info('commandstats'))
        const sum = stats.reduce((total, info) => total + countAsked(info), 0)
        const since = sum - before
        before = sum
        return since
      },
      async stop() {
        for (const locker of lockers) await locker.close()
        for (const connection of connections) await connection.close()
        await empty()
      },
    }
  })

  describeAcquireNew(`RedisLocker, ${name}`, async () => {
    const connections = [connect(), connect()] as const
    const serverOf = (connection: RedisConnection) => ({
      locker: new RedisLocker({ connection }),
      records: new RedisRecords({ connection }),
    })
    const servers = [serverOf(connections[0]), serverOf(connections[1])] as const
    for (const { locker, records } of servers) {
      await locker.start()
      await records.start()
    }
    return {
      servers,
      async stop() {
        for (const { locker } of servers) await locker.close()
        for (const connection of connections) await connection.close()
        await empty()
      },
    }
  })

  it('the config store lists the keys of all servers', async () => {
    const connection = connect()
    onTestFinished(() => connection.close())
    const store = new RedisConfigStore<{ n: number }>({ connection })
    const keys = Array.from({ length: 600 }, (_, n) => `key ${n}`)
    await Promise.all(keys.map((key, n) => store.set(key, { n })))
    expect((await store.list()).toSorted()).toEqual(keys.toSorted())
    expect(await store.get(keys[7]!)).toEqual({ n: 7 })
    await store.delete(keys[7]!)
    expect(await store.list()).toHaveLength(599)
    const spread = await onPrimaries((redis) => redis.dbsize())
    expect(spread.every((count) => count > 100)).toBe(true)
    await empty()
  })

  it('says nothing but that it is available while nothing happens', async () => {
    const connection = connect()
    const events: unknown[] = []
    connection.onChange((event) => events.push(event))
    onTestFinished(() => connection.close())
    await connection.connect()
    await expect.poll(() => connection.runId?.split(',').every((id) => /^[0-9a-f]{40}$/.test(id))).toBe(true)
    expect(events).toEqual([{ is: 'available' }])
  })

  describeLedger(`RedisLedger, ${name}`, async () => {
    const connections = [connect(), connect()]
    const servers = connections.map((connection) => new RedisLedger({ connection }))
    for (const server of servers) await server.start()
    return {
      servers: [servers[0]!, servers[1]!],
      lose: async () => void (await empty()),
      // The servers are wanted once more.
      cutOff: async () => void (await Promise.all(connections.map((connection) => connection.close()))),
      async stop() {
        for (const connection of connections) await connection.close()
        await empty()
      },
    }
  })

  // Last, because it ends with all servers killed.
  describeRecords(`RedisRecords, ${name}`, async () => {
    const connections = [connect(), connect()]
    const servers = connections.map((connection) => new RedisRecords({ connection }))
    for (const server of servers) await server.start()
    let isCutOff = false
    return {
      servers: [servers[0]!, servers[1]!],
      remains: async () => (await keysLeft()).length,
      async cutOff() {
        isCutOff = true
        await Promise.all(topology.all.map((server) => server.kill()))
      },
      async stop() {
        for (const connection of connections) await connection.close()
        if (!isCutOff) await empty()
      },
    }
  })
})

async function sentinel(): Promise<Topology> {
  const { url, servers, stop } = await startSentinels()
  return restricted({ url, primaries: [servers[0]!], all: servers, stop })
}

async function cluster(): Promise<Topology> {
  const { url, nodes, stop } = await startCluster({ replicas: 0 })
  return restricted({ url, primaries: nodes, all: nodes, stop })
}

async function secure(): Promise<Topology> {
  const folder = await makeFolder()
  const certificate = await makeCertificate(folder.path)
  const port = await freePort()
  const redis = await startRedis({ args: tlsSettings(port, certificate) })
  return restricted({
    url: `rediss://127.0.0.1:${port}`,
    tls: { ca: certificate.ca },
    primaries: [redis],
    all: [redis],
    async stop() {
      await redis.stop()
      await folder.remove()
    },
  })
}

async function restricted(topology: Topology): Promise<Topology> {
  const user = await documentedUser()
  for (const server of topology.all) expect(await server.command('ACL', 'SETUSER', ...user)).toBe('+OK')
  return { ...topology, url: topology.url.replace('://', '://tidemark:secret@') }
}

/** The words after `user` in docs/production.md. */
async function documentedUser(): Promise<string[]> {
  const text = await readFile(new URL('../../docs/production.md', import.meta.url), 'utf8')
  const [, words] = /^user (tidemark .*)$/m.exec(text)!
  return words!.split(' ')
}

async function asAdmin<T>(port: number, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis({ port })
  try {
    return await work(redis)
  } finally {
    redis.disconnect()
  }
}
