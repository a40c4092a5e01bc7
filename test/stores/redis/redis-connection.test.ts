// What RedisConnection promises where a primary is lost: to the next one within a moment, and nothing hangs meanwhile.
import { createServer } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import {
  RedisConnection,
  type RedisConnectionOptions,
  type RedisEvent,
} from '../../../stores/redis/redis-connection.ts'
import { scripts } from '../../../stores/redis/scripts.ts'
import { makeCertificate, tlsSettings } from '../../support/certificate.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { freePort } from '../../support/free-port.ts'
import { type RedisServer, startRedis } from '../../support/redis.ts'
import {
  type Cluster,
  primaryName,
  type Sentinels,
  startCluster,
  startSentinels,
} from '../../support/redis-topologies.ts'

const commandTimeoutMs = 500
const soon = { timeout: 15_000 }

describe('a primary that Sentinel names', () => {
  let sentinels: Sentinels
  beforeAll(async () => {
    sentinels = await startSentinels()
  })
  afterAll(async () => {
    await sentinels.stop()
  })

  it('may be told to hand over: commands and messages go on at the next one', async () => {
    const { connection, events } = await connected(sentinels.url)
    const messages = await newsOf(connection)
    const old = await sentinels.primary()
    const [sentinel] = sentinels.sentinels
    const admin = new RedisConnection({ url: `redis://127.0.0.1:${sentinel!.port}` })
    onTestFinished(() => admin.close())
    await admin.connect()
    await admin.run((redis) => redis.call('SENTINEL', 'FAILOVER', primaryName))
    const next = await sentinels.untilFailover(old)

    await expect.poll(() => events.map(({ is }) => is), soon).toContain('replaced')
    await expect.poll(() => isAnswered(connection, 'key'), soon).toBe(true)
    expect(await next.command('GET', 'key')).toContain('value')
    await expectHeard(messages, next, 'moved')
  })

  it('that is killed is away, and the next one is another one', async () => {
    const { connection, events } = await connected(sentinels.url)
    const messages = await newsOf(connection)
    const old = await sentinels.primary()
    const runId = connection.runId
    await old.kill()
    await expect.poll(() => connection.isAvailable).toBe(false)
    await expect(connection.run((redis) => redis.ping())).rejects.toMatchObject({
      code: 'unavailable',
      mayHaveRun: false,
    })

    const next = await sentinels.untilFailover(old)
    await expect.poll(() => connection.isAvailable, soon).toBe(true)
    await expect
      .poll(() => events.map(({ is }) => is), soon)
      .toEqual(['available', 'away', 'available', 'replaced'])
    expect(connection.runId).not.toBe(runId)
    await expectHeard(messages, next, 'back')
    await old.restart()
  })

  it('is left when the sentinels have another one, though it still answers here', async () => {
    const { connection, events } = await connected(sentinels.url)
    const messages = await newsOf(connection)
    const old = await sentinels.primary()
    // As if only the sentinels were cut off from it: what they ask is refused, what we ask is not.
    const forSentinels = ['ping', 'info', 'slaveof', 'replicaof', 'config']
    await old.command('ACL', 'SETUSER', 'default', ...forSentinels.map((word) => `-${word}`))
    try {
      const next = await sentinels.untilFailover(old)
      await expect.poll(() => events.map(({ is }) => is), soon).toContain('replaced')
      await expect.poll(() => isAnswered(connection, 'left'), soon).toBe(true)
      expect(await next.command('GET', 'left')).toContain('value')
      await expectHeard(messages, next, 'moved')
    } finally {
      await old.command('ACL', 'SETUSER', 'default', '+@all')
    }
  })

  it('cannot be had by another name, and the sentence says so', async () => {
    const url = sentinels.url.replace(primaryName, 'another')
    const reason = /the sentinels know no primary of that name/
    await expect(new RedisConnection({ url }).connect()).rejects.toThrow(reason)
  })

  it('is told by sentinels with a password of their own', async () => {
    const allSentinels = async (...words: string[]) => {
      for (const { port } of sentinels.sentinels) {
        const admin = new RedisConnection({ url: `redis://127.0.0.1:${port}` })
        await admin.connect()
        await admin.run((redis) => redis.call('ACL', 'SETUSER', ...words))
        await admin.close()
      }
    }
    await allSentinels('keeper', 'on', '>ses@me', '+@all', '&*')
    await allSentinels('default', 'resetpass', '>other')
    try {
      await expect(new RedisConnection({ url: sentinels.url }).connect()).rejects.toThrow(/NOAUTH/)
      const url = `${sentinels.url}?sentinelUsername=keeper&sentinelPassword=ses%40me`
      const { connection } = await connected(url)
      expect(await isAnswered(connection, 'key')).toBe(true)
    } finally {
      for (const { port } of sentinels.sentinels) {
        const admin = new RedisConnection({ url: `redis://:other@127.0.0.1:${port}` })
        await admin.connect()
        await admin.run((redis) => redis.call('ACL', 'SETUSER', 'default', 'nopass'))
        await admin.close()
      }
    }
  })

  it('is found though the first sentinel says nothing', async () => {
    const silent = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => silent.once('listening', resolve))
    onTestFinished(() => void silent.close())
    const { port } = silent.address() as { port: number }
    const { connection } = await connected(sentinels.url.replace('://', `://127.0.0.1:${port},`))
    expect(await isAnswered(connection, 'key')).toBe(true)
  })
})

describe('a replica', () => {
  it('refuses to write, in scripts too, for a passing reason; and the connection is made anew', async () => {
    const primary = await startRedis()
    const replica = await startRedis({ args: ['--replicaof', '127.0.0.1', String(primary.port)] })
    onTestFinished(async () => {
      await replica.stop()
      await primary.stop()
    })
    const { connection, events } = await connected(replica.url)
    await expect(acquire(connection)).rejects.toMatchObject({ code: 'unavailable', message: /READONLY/ })
    await expect.poll(() => events.map(({ is }) => is)).toEqual(['available', 'away', 'available'])
  })
})

it('a primary that wants a replica and has none refuses for a passing reason', async () => {
  const primary = await startRedis({ args: ['--min-replicas-to-write', '1'] })
  onTestFinished(() => primary.stop())
  const { connection } = await connected(primary.url)
  await expect(acquire(connection)).rejects.toMatchObject({ code: 'unavailable', message: /NOREPLICAS/ })
  expect(connection.isAvailable).toBe(true)
})

it('is asked at a time whether keys exist, and says it of each', async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const { connection } = await connected(redis.url)
  await connection.run((client) => client.mset('a', 1, 'b', 1))
  const ask = (...keys: string[]) => Promise.all(keys.map((key) => connection.exists(key)))
  expect(await ask('a', 'b', 'a')).toEqual([true, true, true])
  expect(await ask('x', 'y')).toEqual([false, false])
  expect(await ask('a', 'x', 'b', 'y', 'x')).toEqual([true, false, true, false, false])
  expect(await ask()).toEqual([])
  await redis.kill()
  const answers = await Promise.allSettled(['a', 'x'].map((key) => connection.exists(key)))
  for (const { status, ...failed } of answers)
    expect([status, failed]).toMatchObject(['rejected', { reason: { code: 'unavailable' } }])
})

describe('a Cluster', () => {
  let cluster: Cluster
  beforeEach(() => cluster.untilWell())
  beforeAll(async () => {
    cluster = await startCluster()
  })
  afterAll(async () => {
    await cluster.stop()
  })

  it('answers for other slots while one primary is gone, and is all there again with the next one', async () => {
    const { connection, events } = await connected(cluster.url)
    const messages = await newsOf(connection)
    const lost = await cluster.ownerOf('a')
    const keys = Array.from({ length: 60 }, (_, n) => `k${n}`)
    const owners = await Promise.all(keys.map((key) => cluster.ownerOf(key)))
    await lost.kill()
    await expect.poll(() => connection.isAvailable).toBe(false)
    await expect(connection.run((redis) => redis.set('a', 1))).rejects.toMatchObject({
      code: 'unavailable',
      mayHaveRun: false,
    })
    expect(events.at(-1)).toMatchObject({ is: 'away', cause: expect.stringContaining(String(lost.port)) })
    const live = keys.filter((_, n) => owners[n] !== lost)
    const answers = await Promise.all(live.map((key) => isAnswered(connection, key)))
    expect([live.length > 10, answers.every(Boolean)]).toEqual([true, true])

    const next = await cluster.untilFailover(lost, 'a')
    await expect.poll(() => connection.isAvailable, soon).toBe(true)
    await expect.poll(() => isAnswered(connection, 'a'), soon).toBe(true)
    await expect.poll(() => events.map(({ is }) => is), soon).toContain('replaced')
    expect(events.filter(({ is }) => is === 'replaced')).toHaveLength(1)
    await expectHeard(messages, next, 'back')
    await lost.restart()
  })

  it('hears messages again when the node that told them is gone', async () => {
    const { connection } = await connected(cluster.url)
    const messages = await newsOf(connection)
    const subscribed = await subscriberOf(cluster)
    await subscribed.kill()
    const other = cluster.nodes.find((node) => node !== subscribed)!
    await expectHeard(messages, other, 'still there')
    await subscribed.restart()
    await expect.poll(() => connection.isAvailable, soon).toBe(true)
  })

  it('a primary that answers nothing fails within the command timeout, and is cut off', async () => {
    const { connection } = await connected(cluster.url)
    const silent = await cluster.ownerOf('a')
    process.kill(silent.pid, 'SIGSTOP')
    try {
      await expect(connection.run((redis) => redis.set('a', 1))).rejects.toMatchObject({
        code: 'unavailable',
        mayHaveRun: true,
      })
      await expect.poll(() => connection.isAvailable).toBe(false)
      await cluster.untilFailover(silent, 'a')
    } finally {
      process.kill(silent.pid, 'SIGCONT')
    }
    await expect.poll(() => isAnswered(connection, 'a'), soon).toBe(true)
  })

  it('may move a slot: what is on its way is asked for, what has moved is followed', async () => {
    const { connection, events } = await connected(cluster.url)
    await connection.run((redis) => redis.set('here{m}', 'old'))
    const from = await cluster.ownerOf('{m}')
    const others = await Promise.all(['a', 'b', 'c', 'd'].map((key) => cluster.ownerOf(key)))
    const to = others.find((node) => node !== from)!
    const idOf = async (node: typeof from) => (await node.command('CLUSTER', 'MYID')).split('\r\n')[1]!
    const slot = (await from.command('CLUSTER', 'KEYSLOT', '{m}')).slice(1)
    await to.command('CLUSTER', 'SETSLOT', slot, 'IMPORTING', await idOf(from))
    await from.command('CLUSTER', 'SETSLOT', slot, 'MIGRATING', await idOf(to))

    expect(await connection.run((redis) => redis.get('here{m}'))).toBe('old')
    expect(await connection.run((redis) => redis.incr('new{m}'))).toBe(1)
    // One half here and one half there: refused until all is there, which takes no time.
    const both = connection.run((redis) => redis.mget('here{m}', 'new{m}'))
    await from.command('MIGRATE', '127.0.0.1', String(to.port), 'here{m}', '0', '1000')
    expect(await both).toEqual(['old', '1'])
    for (const node of [to, from]) await node.command('CLUSTER', 'SETSLOT', slot, 'NODE', await idOf(to))
    expect(await connection.run((redis) => redis.incr('new{m}'))).toBe(2)
    expect(await connection.run((redis) => redis.get('here{m}'))).toBe('old')
    expect(events).toEqual([{ is: 'available' }])
  })

  it('keeps what stands in one batch together, whichever nodes it is for', async () => {
    const { connection } = await connected(cluster.url)
    const numbers = Array.from({ length: 90 }, (_, n) => n)
    await connection.batch(() =>
      Promise.all(numbers.map((n) => connection.run((redis) => redis.set(`batch${n}`, n)))),
    )
    const read = connection.batch(() =>
      Promise.all(numbers.map((n) => connection.run((redis) => redis.get(`batch${n}`)))),
    )
    expect(await read).toEqual(numbers.map(String))
    const asked = numbers.flatMap((n) => [connection.exists(`batch${n}`), connection.exists(`none${n}`)])
    expect(await Promise.all(asked)).toEqual(numbers.flatMap(() => [true, false]))
  })
})

it('speaks TLS with every node of a Cluster', async () => {
  const certificate = await makeCertificate(await temporaryFolder())
  const ports = [await freePort(), await freePort(), await freePort()]
  const secure = await startCluster({
    replicas: 0,
    argsOf: (n) => [...tlsSettings(ports[n]!, certificate), '--tls-cluster', 'yes'],
  })
  onTestFinished(() => secure.stop())
  const url = `rediss+cluster://127.0.0.1:${ports[0]}`
  await expect(new RedisConnection({ url }).connect()).rejects.toThrow(/certificate/)
  const { connection } = await connected(url, { tls: { ca: certificate.ca } })
  for (const key of ['a', 'b', 'c', 'd', 'e']) expect(await isAnswered(connection, key)).toBe(true)
})

async function connected(url: string, options: Partial<RedisConnectionOptions> = {}) {
  const events: RedisEvent[] = []
  const report = (event: RedisEvent) => void events.push(event)
  const connection = new RedisConnection({ url, commandTimeoutMs, report, ...options })
  onTestFinished(() => connection.close())
  await connection.connect()
  await expect.poll(() => connection.runId).toBeDefined()
  return { connection, events }
}

/** What is told on a channel from now on. */
async function newsOf(connection: RedisConnection): Promise<string[]> {
  const messages: string[] = []
  await connection.subscribe('news', (message) => messages.push(message))
  return messages
}

/** What is told at a node is heard, sooner or later. */
async function expectHeard(
  messages: string[],
  at: Pick<RedisServer, 'command'>,
  word: string,
): Promise<void> {
  const told = async () => {
    await at.command('PUBLISH', 'news', word)
    return messages
  }
  await expect.poll(told, soon).toContain(word)
}

/** Some script that writes: which one does not matter, nor do its arguments. */
function acquire(connection: RedisConnection): Promise<unknown> {
  const { keys } = connection
  const args = ['token', 'holder', 'channel', 1000, 1000, '', 1000, 1000, 1000]
  return connection.runScript(scripts.acquire, [keys.lock('u'), keys.wait('u'), keys.fence('u')], args)
}

function isAnswered(connection: RedisConnection, key: string): Promise<boolean> {
  return connection
    .run((redis) => redis.set(key, 'value'))
    .then(
      () => true,
      () => false,
    )
}

async function subscriberOf(cluster: Cluster) {
  for (const node of cluster.nodes) {
    if (/news\r\n:1/.test(await node.command('PUBSUB', 'NUMSUB', 'news'))) return node
  }
  throw new Error('nobody is subscribed')
}
