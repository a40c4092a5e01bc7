import { createConnection, createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import type { Lock } from '../../stores/contracts.ts'
import { type Moment, systemClock } from '../../stores/redis/lease.ts'
import { RedisConnection, type RedisEvent } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { RedisRecords } from '../../stores/redis/redis-records.ts'
import { type Child, startChild, stopChild } from '../support/child.ts'
import { deferred } from '../support/deferred.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { describeAcquireNew } from './acquire-new-contract.ts'
import { failure } from './locker-contract.ts'
import { record } from './records-contract.ts'

const program = new URL('child-locker.ts', import.meta.url).pathname
const wait = { timeoutMs: 20_000 }
let redis: RedisServer

beforeEach(async () => {
  redis = await startRedis()
})
afterEach(async () => {
  await redis.stop()
})

describe('a lock in Redis', () => {
  it('costs two round trips for an append: acquire, then commit and release', async () => {
    const { connection, locker } = await server()
    await (await locker.acquire('warm', wait)).release()
    await (await locker.acquire('warm', wait)).commitAndRelease!(record('warm'), 5)
    await redis.command('CONFIG', 'RESETSTAT')

    const lock = await locker.acquire('u', wait)
    await lock.commitAndRelease!(record('u', { offset: 7 }), 5)
    const stats = await redis.command('INFO', 'commandstats')
    const calls = [...stats.matchAll(/^cmdstat_(\w+):calls=(\d+)/gm)].map(([, name, n]) => [name, Number(n)])
    expect(Object.fromEntries(calls)).toMatchObject({ evalsha: 2, zadd: 2 })
    expect(calls.map(([name]) => name)).not.toContain('eval')

    const records = new RedisRecords({ connection })
    expect((await records.get('u'))?.mark.offset).toBe(7)
    expect(await records.expiring(5, 10)).toContain('u')
    expect(lock.isHeld()).toBe(false)
    await lock.release()
    await (await locker.acquire('u', { timeoutMs: 0 })).release()
  })

  it('that is free is left to who waits for it, when somebody else only asks', async () => {
    const { locker } = await server()
    const other = await server()
    const wanted = deferred()
    const lock = await locker.acquire('u', { ...wait, onWanted: wanted.resolve })
    const waiting = other.locker.acquire('u', wait)
    await wanted.promise
    // The waiter is not told that it is free, and so has not taken it yet.
    await redis.command('HSET', 't:wait:{u}', 'channel', 't:to:nobody')
    await lock.release()
    await locker.untilFree('u', { timeoutMs: 0 })
    expect(await redis.command('EXISTS', 't:wait:{u}')).toBe(':1')
    await (await waiting).release()
  })

  it('hands over to the waiter by commit and release too, and never replaces a newer copy', async () => {
    const { connection, locker } = await server()
    const other = await server()
    const records = new RedisRecords({ connection })
    const wanted = deferred()
    const lock = await locker.acquire('u', { ...wait, onWanted: wanted.resolve })
    const waiting = other.locker.acquire('u', wait)
    await wanted.promise
    await records.put(record('u', { sequence: 9, offset: 9 }), 90)
    await lock.commitAndRelease!(record('u', { sequence: 8, offset: 8 }), 80)
    await (await waiting).release()
    expect((await records.get('u'))?.mark.offset).toBe(9)
    expect(await records.expiring(89, 10)).toEqual([])
    expect(await records.expiring(90, 10)).toEqual(['u'])
  })

  it('of a process that is provably dead is free at once', async () => {
    const { locker } = await server()
    const leaseMs = 600_000
    const child = await holder('u', leaseMs)
    child.kill('SIGKILL')
    await child.exited
    const lock = await locker.acquire('u', { timeoutMs: 5_000 })
    expect(lock.fence).toBeGreaterThan(fenceOf(child))
    await lock.release()
  })

  it('of a process that is provably dead is free for who only asks, and nothing of it stays', async () => {
    const { locker } = await server()
    const child = await holder('u', 600_000)
    child.kill('SIGKILL')
    await child.exited
    await locker.untilFree('u', wait)
    expect(await redis.command('KEYS', 't:[lw]*')).toBe('*0')
  })

  it('of a process that dies while somebody waits goes to who waits', async () => {
    const { locker } = await server()
    const child = await holder('u', 600_000)
    const waiting = locker.acquire('u', { timeoutMs: 15_000 })
    await said(child, 'wanted')
    child.kill('SIGKILL')
    await (await waiting).release()
  })

  it('of one that merely vanished is free after one lease, and it finds out that it lost it', async () => {
    const { locker } = await server({ leaseMs: 3000 })
    const child = await holder('u', 3000)
    child.kill('SIGSTOP')
    const lock = await locker.acquire('u', { timeoutMs: 20_000 })
    expect(lock.fence).toBeGreaterThan(fenceOf(child))
    child.kill('SIGCONT')
    await said(child, 'lost false')
    expect(lock.isHeld()).toBe(true)
    await lock.release()
  })

  it('stays with a holder that lives, for many leases', async () => {
    const { locker } = await server({ leaseMs: 1500 })
    const lock = await locker.acquire('u', wait)
    const other = await server({ leaseMs: 1500 })
    expect(await failure(other.locker.acquire('u', { timeoutMs: 6000 }))).toBe('timeout')
    expect([lock.isHeld(), lock.lost.aborted]).toEqual([true, false])
    await lock.release()
  })

  it('is lost when somebody else took it away, and giving it back leaves the other one alone', async () => {
    const { locker } = await server({ leaseMs: 3000 })
    const other = await server()
    const lock = await locker.acquire('u', wait)
    await redis.command('DEL', 't:lock:{u}')
    const theirs = await other.locker.acquire('u', wait)
    await aborted(lock)
    expect(lock.isHeld()).toBe(false)
    await lock.release()
    expect(await failure(locker.acquire('u', { timeoutMs: 50 }))).toBe('timeout')
    expect(theirs.isHeld()).toBe(true)
    await theirs.release()
  })

  it('is lost when Redis comes back empty, and the next fence is higher all the same', async () => {
    const { locker } = await server({ leaseMs: 60_000 })
    const lock = await locker.acquire('u', wait)
    await redis.kill()
    expect(lock.isHeld()).toBe(true)
    await redis.restart()
    await aborted(lock)
    expect(lock.isHeld()).toBe(false)
    await lock.release()
    const next = await locker.acquire('u', wait)
    expect(next.fence).toBeGreaterThan(lock.fence)
    await next.release()
  })

  it('has a fence that grows though the clock of Redis was set back', async () => {
    const { locker } = await server()
    const ahead = (Date.now() + 600_000) * 1000
    await redis.command('HSET', 't:fence:{u}', 'last', String(ahead))
    const lock = await locker.acquire('u', wait)
    expect(lock.fence).toBe(ahead + 1)
    await lock.release()
  })

  it('is in danger, then over, before its lease in Redis is, while Redis is away', async () => {
    const { locker } = await server({ leaseMs: 1500 })
    const lock = await locker.acquire('u', wait)
    let wasHeld: boolean | undefined
    lock.lost.addEventListener('abort', () => {
      wasHeld = lock.isHeld()
    })
    process.kill(redis.pid, 'SIGSTOP')
    await aborted(lock)
    // What is left of it is for ending in order.
    expect(wasHeld).toBe(true)
    await expect.poll(() => lock.isHeld()).toBe(false)
    process.kill(redis.pid, 'SIGCONT')
    await lock.release()
    await expect.poll(() => locker.size, { timeout: 5_000 }).toBe(0)
    expect(lock.isHeld()).toBe(false)
  })

  it('never comes back once its lease was over, whatever the clocks and Redis say later', async () => {
    let asleepMs = 0
    const clock = (): Moment => {
      const { monotonicMs, bootMs } = systemClock()
      return { monotonicMs, bootMs: bootMs + asleepMs }
    }
    const { locker } = await server({ leaseMs: 10_000, clock })
    const lock = await locker.acquire('u', wait)
    asleepMs = 9_500
    expect(lock.isHeld()).toBe(false)
    asleepMs = 0
    expect(lock.isHeld()).toBe(false)
    await aborted(lock)
    await lock.release()
  })

  it('that was released while Redis was silent is given back when it answers again', async () => {
    const { locker } = await server({ leaseMs: 600_000, commandTimeoutMs: 100, tickMs: 100 })
    const other = await server()
    const lock = await locker.acquire('u', wait)
    process.kill(redis.pid, 'SIGSTOP')
    await lock.release()
    expect(locker.size).toBe(1)
    process.kill(redis.pid, 'SIGCONT')
    await (await other.locker.acquire('u', wait)).release()
    await expect.poll(() => locker.size, { timeout: 5_000 }).toBe(0)
  })

  it('that nobody learned of is not left behind: the acquisition timed out, and was executed', async () => {
    const { locker } = await server({ leaseMs: 600_000, commandTimeoutMs: 100, tickMs: 100 })
    const other = await server()
    await (await locker.acquire('warm', wait)).release()
    process.kill(redis.pid, 'SIGSTOP')
    // Redis reads the request when it goes on, though its sender has gone.
    expect(await failure(locker.acquire('u', wait))).toBe('unavailable')
    process.kill(redis.pid, 'SIGCONT')
    await (await other.locker.acquire('u', wait)).release()
  })

  it('that is taken by a request which arrives late, long after its sender gave up, is not left behind', async () => {
    const proxy = await startProxy(redis.port)
    const { locker } = await server({ url: proxy.url, leaseMs: 600_000, commandTimeoutMs: 100, tickMs: 50 })
    const other = await server()
    await (await locker.acquire('warm', wait)).release()
    await redis.command('CONFIG', 'RESETSTAT')
    proxy.holdRequests()
    expect(await failure(locker.acquire('u', wait))).toBe('unavailable')
    // What gives it back overtakes what takes it.
    await expect.poll(() => redis.command('INFO', 'commandstats')).toMatch(/^cmdstat_evalsha:calls=/m)
    proxy.deliverLate()
    await (await other.locker.acquire('u', wait)).release()
  })

  it('that nobody knows of any more is given back as soon as somebody wants it', async () => {
    const { locker } = await server({ leaseMs: 600_000 })
    await (await locker.acquire('warm', wait)).release()
    const [channel] = (await redis.command('PUBSUB', 'CHANNELS')).match(/t:to:\S+/) ?? []
    // As a Redis leaves it that was stopped for longer than the lease, and then ran what it had been sent.
    await redis.command(
      'HSET',
      't:lock:{u v}',
      'token',
      'late',
      'fence',
      '1',
      'holder',
      'x',
      'channel',
      channel!,
    )
    const other = await server()
    await (await other.locker.acquire('u v', wait)).release()
  })

  it('passes on a wish whose message was lost, with the next renewal', async () => {
    const { locker } = await server({ leaseMs: 1000 })
    const other = await server()
    const wanted = deferred()
    const lock = await locker.acquire('u', { ...wait, onWanted: wanted.resolve })
    // As if the waiter had come while the holder's process was not subscribed.
    await redis.command('HSET', 't:lock:{u}', 'channel', 't:to:nobody')
    const waiting = other.locker.acquire('u', wait)
    await wanted.promise
    // And the answer is lost as well: the waiter asks again by itself.
    await redis.command('HSET', 't:wait:{u}', 'channel', 't:to:nobody')
    await lock.release()
    await (await waiting).release()
  })
})

describeAcquireNew('RedisLocker', async () => {
  const serverOf = async () => {
    const { connection, locker } = await server()
    const records = new RedisRecords({ connection })
    await records.start()
    return { locker, records }
  }
  // What it started ends with its test.
  return { servers: [await serverOf(), await serverOf()], stop: async () => {} }
})

describe('the lock of a new upload in Redis', () => {
  it('costs one script', async () => {
    const { connection, locker } = await server()
    await (await locker.acquireNew!(record('warm'), undefined, { timeoutMs: 0 }))!.release()
    const before = await counts(connection)
    await locker.acquireNew!(record('u'), 5, { timeoutMs: 0 })
    const after = await counts(connection)
    expect([after.evalsha! - before.evalsha!, after.eval! - before.eval!]).toEqual([1, 0])
  })

  it('is not left behind when nobody learned of it', async () => {
    const { locker } = await server({ leaseMs: 600_000, commandTimeoutMs: 100, tickMs: 100 })
    const other = await server()
    await (await locker.acquireNew!(record('warm'), undefined, { timeoutMs: 0 }))!.release()
    process.kill(redis.pid, 'SIGSTOP')
    expect(await failure(locker.acquireNew!(record('u'), 5, { timeoutMs: 0 }))).toBe('unavailable')
    process.kill(redis.pid, 'SIGCONT')
    await (await other.locker.acquire('u', wait)).release()
  })
})

describe('checkpoints', () => {
  it('of many uploads go out together, each one the newest; index entries only with the first', async () => {
    const { connection, locker } = await server()
    const records = new RedisRecords({ connection })
    const ids = Array.from({ length: 200 }, (_, n) => `u${n}`)
    const locks = await Promise.all(ids.map((id) => locker.acquire(id, wait)))
    const checkpoint = (sequence: number) => {
      for (const lock of locks)
        for (const step of [0, 1])
          lock.checkpoint!(record(lock.id, { sequence: sequence + step, offset: sequence + step }), 50)
    }
    const reach = (offset: number) =>
      expect.poll(async () => (await records.get('u199'))?.mark.offset).toBe(offset)
    checkpoint(2)
    await reach(3)
    expect(await records.expiring(50, 1000)).toHaveLength(200)
    expect(await records.recent(1000)).toHaveLength(200)

    const before = await counts(connection)
    checkpoint(4)
    await expect.poll(async () => (await counts(connection)).evalsha! - before.evalsha!).toBe(200)
    const after = await counts(connection)
    expect(after.zadd).toBe(before.zadd)
    // One or two reads of the socket for all of them (they are 64 KiB and more), where each alone would be one.
    expect(after.reads! - before.reads! - (after.info! - before.info!)).toBeLessThan(20)
    expect((await records.get('u7'))?.mark.offset).toBe(5)
    await Promise.all(locks.map((lock) => lock.release()))
  })

  it('are never sent after the commit that ends the hold, and never replace it', async () => {
    const { connection, locker } = await server()
    const records = new RedisRecords({ connection })
    await (await locker.acquire('warm', wait)).commitAndRelease!(record('warm'), 5)
    await redis.command('CONFIG', 'RESETSTAT')
    const lock = await locker.acquire('u', wait)
    lock.checkpoint!(record('u', { sequence: 2, offset: 2 }), 50)
    await lock.commitAndRelease!(record('u', { sequence: 3, offset: 3 }), 50)
    lock.checkpoint!(record('u', { sequence: 4, offset: 4 }), 50)
    // One that is sent later than all of these would be: nothing else comes on the way.
    const other = await locker.acquire('v', wait)
    other.checkpoint!(record('v'), 50)
    await expect.poll(() => records.get('v')).toBeDefined()
    expect((await records.get('u'))?.mark.offset).toBe(3)
    expect((await counts(connection)).evalsha).toBe(4)
    await other.release()
  })

  it('carry a wish whose message was lost', async () => {
    const { locker } = await server({ tickMs: 600_000 })
    const other = await server()
    const wanted = deferred()
    const lock = await locker.acquire('u', { ...wait, onWanted: wanted.resolve })
    await redis.command('HSET', 't:lock:{u}', 'channel', 't:to:nobody')
    const waiting = other.locker.acquire('u', wait)
    await expect.poll(() => redis.command('HGET', 't:lock:{u}', 'wanted')).toContain('1')
    lock.checkpoint!(record('u'))
    await wanted.promise
    await lock.release()
    await (await waiting).release()
  })

  it('learn that the lock is lost', async () => {
    const { locker } = await server({ tickMs: 600_000 })
    const lock = await locker.acquire('u', wait)
    await redis.command('DEL', 't:lock:{u}')
    lock.checkpoint!(record('u'))
    await aborted(lock)
    expect(lock.isHeld()).toBe(false)
  })

  it('fail silently while Redis is away: the connection says so, and the commit puts the record', async () => {
    const { connection, locker } = await server({ leaseMs: 60_000 })
    const lock = await locker.acquire('u', wait)
    await redis.kill()
    await expect.poll(() => connection.isAvailable).toBe(false)
    lock.checkpoint!(record('u'))
    await redis.restart()
    await expect.poll(() => connection.isAvailable).toBe(true)
    await lock.commitAndRelease!(record('u', { sequence: 2 }))
    expect(await new RedisRecords({ connection }).get('u')).toEqual(record('u', { sequence: 2 }))
  })
})

describe('when Redis is away', () => {
  it('`acquire` fails with `unavailable` and nothing hangs, also for who waits already; then it heals', async () => {
    const { locker, events, connection } = await server({ leaseMs: 3000 })
    const other = await server()
    const wanted = deferred()
    const lock = await locker.acquire('u', { ...wait, onWanted: wanted.resolve })
    const waiting = failure(other.locker.acquire('u', wait))
    await wanted.promise
    await redis.kill()
    expect(await waiting).toBe('unavailable')
    expect(await failure(locker.acquire('v', wait))).toBe('unavailable')
    await expect(lock.commitAndRelease!(record('u'))).rejects.toMatchObject({ code: 'unavailable' })
    expect(connection.isAvailable).toBe(false)

    await redis.restart()
    await expect.poll(() => failure(locker.acquire('v', wait)), { timeout: 10_000 }).toBeUndefined()
    await expect
      .poll(() => events.map(({ is }) => is))
      .toEqual(['available', 'away', 'available', 'replaced'])
    await expect.poll(() => locker.size, { timeout: 5_000 }).toBe(0)
    // Messages come through again too.
    const asked = deferred()
    const again = await locker.acquire('u', { ...wait, onWanted: asked.resolve })
    const next = other.locker.acquire('u', wait)
    await asked.promise
    await again.release()
    await (await next).release()
  })

  it('a silent Redis is cut off after one command timeout, and from then on everything fails at once', async () => {
    const { connection, locker } = await server({ commandTimeoutMs: 200 })
    process.kill(redis.pid, 'SIGSTOP')
    expect(await failure(locker.acquire('u', wait))).toBe('unavailable')
    await expect.poll(() => connection.isAvailable).toBe(false)
    await expect(connection.run((client) => client.ping())).rejects.toMatchObject({ message: /is away/ })
    process.kill(redis.pid, 'SIGCONT')
    await expect.poll(() => failure(locker.acquire('u', wait)), { timeout: 10_000 }).toBeUndefined()
  })

  it('the start fails, and says why, without the password', async () => {
    await redis.command('CONFIG', 'SET', 'requirepass', 'right')
    const secret = 'wrong-secret'
    const urls = [`redis://:${secret}@127.0.0.1:${redis.port}`, redis.url, `redis://:${secret}@127.0.0.1:1`]
    const reasons = [/WRONGPASS/, /NOAUTH/, /ECONNREFUSED/]
    for (const [n, url] of urls.entries()) {
      const error = await new RedisConnection({ url }).connect().catch((reason) => reason)
      expect(error).toMatchObject({ code: 'unavailable', message: reasons[n] })
      expect(error.message).not.toContain(secret)
    }
    const right = new RedisConnection({ url: `redis://default:right@127.0.0.1:${redis.port}` })
    await right.connect()
    await right.close()
  })

  it('a user who may touch only keys and channels with the prefix is enough', async () => {
    const rights = [
      '~t:*',
      '&t:*',
      '+@read',
      '+@write',
      '+@scripting',
      '+@pubsub',
      '+@connection',
      '+info',
      '+time',
    ]
    await redis.command(
      'ACL',
      'SETUSER',
      'tidemark',
      'on',
      '>pass',
      'resetkeys',
      'resetchannels',
      '-@all',
      ...rights,
    )
    const url = `redis://tidemark:pass@127.0.0.1:${redis.port}`
    const { connection, locker } = await server({ url })
    const wanted = deferred()
    const lock = await locker.acquire('u', { ...wait, onWanted: wanted.resolve })
    const waiting = locker.acquire('u', wait)
    await wanted.promise
    await lock.commitAndRelease!(record('u'), 5)
    await (await waiting).release()
    const records = new RedisRecords({ connection })
    await records.put(record('u', { sequence: 2 }))
    expect(await records.recent(1)).toEqual([record('u', { sequence: 2 })])
    await records.check()
  })

  it('the start fails when somebody accepts the connection and says nothing', async () => {
    const silent = createServer()
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void silent.close())
    const { port } = silent.address() as { port: number }
    const connection = new RedisConnection({ url: `redis://127.0.0.1:${port}` })
    await expect(connection.connect()).rejects.toMatchObject({ code: 'unavailable', message: /no answer/ })
  })

  it('a request on a connection that was cut is not sent a second time', async () => {
    const proxy = await startProxy(redis.port)
    const { connection } = await server({ url: proxy.url })
    await connection.run((client) => client.set('n', 0))
    proxy.swallowReplies()
    const increment = connection.run((client) => client.incr('n'))
    await expect.poll(() => redis.command('GET', 'n')).toContain('1')
    proxy.cut()
    await expect(increment).rejects.toMatchObject({ code: 'unavailable' })
    await expect.poll(() => connection.isAvailable).toBe(true)
    expect(await connection.run((client) => client.get('n'))).toBe('1')
  })
})

describe('a Redis that may evict', () => {
  it('is warned about at the start', async () => {
    await redis.command('CONFIG', 'SET', 'maxmemory', '100mb')
    await redis.command('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
    const { events } = await server()
    await expect.poll(() => events).toContainEqual({ is: 'may-evict', policy: 'allkeys-lru' })
  })

  it('is not seen where it keeps everything', async () => {
    const { events, connection } = await server()
    await expect.poll(() => connection.runId).toMatch(/^[0-9a-f]{40}$/)
    expect(events).toEqual([{ is: 'available' }])
  })
})

it('refuses a command timeout that is no third of the lease', () => {
  const connection = new RedisConnection({ url: 'redis://127.0.0.1', commandTimeoutMs: 2000 })
  expect(() => new RedisLocker({ connection, leaseMs: 5000 })).toThrow(RangeError)
})

interface ServerOptions {
  url?: string
  leaseMs?: number
  commandTimeoutMs?: number
  tickMs?: number
  clock?: () => Moment
}

async function server(options: ServerOptions = {}) {
  const {
    leaseMs = 10_000,
    commandTimeoutMs = Math.min(2000, leaseMs / 5),
    url = redis.url,
    ...rest
  } = options
  const events: RedisEvent[] = []
  const report = (event: RedisEvent) => void events.push(event)
  const connection = new RedisConnection({ url, keyPrefix: 't:', commandTimeoutMs, report })
  const locker = new RedisLocker({ connection, leaseMs, ...rest })
  onTestFinished(async () => {
    await locker.close()
    await connection.close()
  })
  await locker.start()
  return { connection, locker, events }
}

/** What the server has done so far: calls by command, and how often it has read from a socket. */
async function counts(connection: RedisConnection): Promise<Record<string, number>> {
  const info = await connection.run((client) => client.info('everything'))
  const calls = [...info.matchAll(/^cmdstat_(\w+):calls=(\d+)/gm)].map(([, name, n]) => [name, Number(n)])
  return { ...Object.fromEntries(calls), reads: Number(/^total_reads_processed:(\d+)/m.exec(info)?.[1]) }
}

async function holder(id: string, leaseMs: number): Promise<Child> {
  const child = startChild(process.execPath, [
    '--import',
    'tsx',
    program,
    redis.url,
    't:',
    String(leaseMs),
    id,
  ])
  onTestFinished(async () => {
    await stopChild(child, 0)
  })
  await said(child, 'took ')
  return child
}

async function said(child: Child, words: string): Promise<void> {
  await expect.poll(() => child.output(), { timeout: 20_000 }).toContain(words)
}

function fenceOf(child: Child): number {
  return Number(/took (\d+)/.exec(child.stdout())?.[1])
}

async function aborted(lock: Lock): Promise<void> {
  await expect.poll(() => lock.lost.aborted, { timeout: 20_000 }).toBe(true)
}

/** Passes bytes on to a port, until it swallows replies, holds requests back, or cuts connections. */
async function startProxy(port: number) {
  const sockets = new Set<Socket>()
  let isSwallowing = false
  let isHolding = false
  const held: { upstream: Socket; data: Buffer }[] = []
  const proxy = createServer((client) => {
    const upstream = createConnection(port, '127.0.0.1')
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        client.destroy()
        if (!held.some((late) => late.upstream === upstream)) upstream.destroy()
      })
    }
    client.on('data', (data) => {
      if (isHolding) held.push({ upstream, data })
      else upstream.write(data)
    })
    client.on('close', () => {
      isHolding = false
    })
    upstream.on('data', (data) => {
      if (!isSwallowing) client.write(data)
    })
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const cut = () => {
    isSwallowing = false
    for (const socket of sockets) socket.destroy()
  }
  onTestFinished(() => {
    proxy.close()
    cut()
  })
  return {
    url: `redis://127.0.0.1:${(proxy.address() as { port: number }).port}`,
    cut,
    swallowReplies() {
      isSwallowing = true
    },
    /** Until the client closes its connection; that of what is held stays open to the other side. */
    holdRequests() {
      isHolding = true
    },
    deliverLate() {
      for (const { upstream, data } of held) upstream.end(data)
    },
  }
}
