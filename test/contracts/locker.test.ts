import { MessageChannel } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { Lock, LockError, Locker } from '../../stores/contracts.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import type { LockPeer } from '../../stores/local/lock-server.ts'
import { LockServer } from '../../stores/local/lock-server.ts'
import { WorkerLocker } from '../../stores/local/worker-locker.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { countAsked, describeLocker } from './locker-contract.ts'

describeLocker('LocalLocker', async () => {
  const locker = new LocalLocker()
  await locker.start()
  return { servers: [locker, locker], remains: async () => locker.size, stop: () => locker.close() }
})

/** A worker and its primary, with a channel between them that copies what is said, as between processes. */
async function connectWorker(server: LockServer) {
  const { port1, port2 } = new MessageChannel()
  const peer: LockPeer = server.connect((replies) => port1.postMessage(replies))
  const locker = new WorkerLocker((requests) => port2.postMessage(requests))
  port1.on('message', (requests) => peer.receive(requests))
  port2.on('message', (replies) => locker.receive(replies))
  await locker.start()
  return { peer, locker, cut: () => port1.close() }
}

describeLocker('WorkerLocker', async () => {
  const server = new LockServer()
  const workers = [await connectWorker(server), await connectWorker(server)] as const
  const [one, two] = workers
  return {
    servers: [one.locker, two.locker],
    remains: async () => server.size + one.locker.size + two.locker.size,
    async stop() {
      for (const { locker, cut } of workers) {
        await locker.close()
        cut()
      }
    },
  }
})

describe('a worker', () => {
  it('that does not want to wait has no lock of another one, and is not kept waiting', async () => {
    const server = new LockServer()
    const [one, two] = [await connectWorker(server), await connectWorker(server)]
    const lock = await one.locker.acquire('round', { timeoutMs: 0 })
    const asked = two.locker.acquire('round', { timeoutMs: 0 }).catch((error: LockError) => error.code)
    setTimeout(() => void lock.release(), 50)
    expect(await asked).toBe('timeout')
    expect(lock.isHeld()).toBe(true)
    for (const { cut } of [one, two]) cut()
  })

  it('hears that what it was just given is wanted already', () => {
    const said: unknown[] = []
    const locker = new WorkerLocker((requests) => said.push(...requests))
    const onWanted = vi.fn()
    const holding = locker.acquire('u', { timeoutMs: 1000, onWanted })
    locker.receive([
      ['held', 1, 1, false],
      ['wanted', 1],
    ])
    return holding.then(async (lock) => {
      await Promise.resolve()
      expect(onWanted).toHaveBeenCalledOnce()
      await lock.release()
    })
  })
})

describe.each(['LocalLocker', 'WorkerLocker', 'RedisLocker'])(
  '%s: a lock that nobody used when it was wanted',
  (name) => {
    const wait = { timeoutMs: 20_000 }

    /** Two lockers that share the locks. */
    async function start(): Promise<[Locker, Locker]> {
      if (name === 'LocalLocker') {
        const locker = new LocalLocker()
        return [locker, locker]
      }
      if (name === 'RedisLocker') {
        const { lockers, stop } = await startRedisLockers()
        onTestFinished(stop)
        return lockers
      }
      const server = new LockServer()
      const workers = [await connectWorker(server), await connectWorker(server)] as const
      onTestFinished(() => {
        for (const { cut } of workers) cut()
      })
      return [workers[0].locker, workers[1].locker]
    }

    /** Is given up, unused, as soon as somebody wants it. */
    async function keep(locker: Locker) {
      const lock: Lock = await locker.acquire('u', { ...wait, onWanted: () => void lock.release('unused') })
      return lock
    }

    it('is not taken over by whoever gets it, however short his patience, nor by the next', async () => {
      const [one, two] = await start()
      const kept = await keep(one)
      const lock = await two.acquire('u', { timeoutMs: name === 'WorkerLocker' ? 1 : 100 })
      expect([kept.isHeld(), lock.isTakeOver, lock.fence > kept.fence]).toEqual([false, false, true])
      await lock.release()
      const next = await two.acquire('u', wait)
      expect(next.isTakeOver).toBe(false)
      await next.release()
    })

    it('is free at once for who only asks, and who looks once more', async () => {
      const [one, two] = await start()
      await keep(one)
      expect(await two.untilFree('u', wait)).toBe(true)
      expect((await two.acquire('u', wait)).isTakeOver).toBe(false)
    })

    it('does not hide that somebody was asked within the last second', async () => {
      const [one, two] = await start()
      const wanted = vi.fn()
      const first = await one.acquire('u', { ...wait, onWanted: wanted })
      const second = two.acquire('u', {
        ...wait,
        onWanted: () => void second.then((l) => l.release('unused')),
      })
      await expect.poll(() => wanted.mock.calls.length).toBe(1)
      await first.release()
      expect((await second).isTakeOver).toBe(true)
      expect((await one.acquire('u', wait)).isTakeOver).toBe(true)
    })
  },
)

describe('a worker that has exited', () => {
  const wait = { timeoutMs: 20_000 }

  it('leaves its locks to those who wait, at once, and not before', async () => {
    const server = new LockServer()
    const [dead, alive] = [await connectWorker(server), await connectWorker(server)]
    const ids = ['a', 'b', 'c']
    await Promise.all(ids.map((id) => dead.locker.acquire(id, wait)))
    const waiting = ids.map((id) => alive.locker.acquire(id, wait))
    await expect(alive.locker.acquire('d', wait)).resolves.toMatchObject({ id: 'd' })
    expect(server.size).toBe(4)
    dead.peer.gone()
    const locks = await Promise.all(waiting)
    expect(locks.map(({ isTakeOver }) => isTakeOver)).toEqual([true, true, true])
    for (const lock of locks) await lock.release()
    await expect.poll(() => server.size).toBe(1)
    for (const worker of [dead, alive]) worker.cut()
  })

  it('waits for nothing any more, and what it said before and is heard late takes nothing', async () => {
    const server = new LockServer()
    const [dead, alive] = [await connectWorker(server), await connectWorker(server)]
    const lock = await alive.locker.acquire('u', wait)
    dead.locker.acquire('u', wait).catch(() => undefined)
    dead.peer.gone()
    dead.peer.receive([['acquire', 7, 'other', 1000]])
    await lock.release()
    await expect.poll(() => server.size).toBe(0)
    await (await alive.locker.acquire('other', { timeoutMs: 0 })).release()
    for (const worker of [dead, alive]) worker.cut()
  })
})

let redis: RedisServer
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(async () => {
  await redis.stop()
})

/** Two servers that share a Redis, under a prefix of their own. */
async function startRedisLockers() {
  const keyPrefix = `t${Math.random().toString(36).slice(2)}:`
  const connect = () => new RedisConnection({ url: redis.url, keyPrefix })
  const connections = [connect(), connect()] as const
  const lockers: [RedisLocker, RedisLocker] = [
    new RedisLocker({ connection: connections[0] }),
    new RedisLocker({ connection: connections[1] }),
  ]
  for (const locker of lockers) await locker.start()
  const stop = async () => {
    for (const locker of lockers) await locker.close()
    for (const connection of connections) await connection.close()
  }
  return { keyPrefix, connection: connections[0], lockers, stop }
}

describeLocker('RedisLocker', async () => {
  const { keyPrefix, connection, lockers, stop } = await startRedisLockers()
  const [one, two] = lockers
  let askedBefore = 0
  return {
    servers: lockers,
    async remains() {
      const left = await connection.run((client) => client.keys(`${keyPrefix}*`))
      // A fence is remembered for an hour, so that it grows.
      return one.size + two.size + left.filter((key) => !key.startsWith(`${keyPrefix}fence:`)).length
    },
    async requests() {
      const asked = countAsked(await connection.run((client) => client.info('commandstats')))
      const since = asked - askedBefore
      askedBefore = asked
      return since
    },
    stop,
  }
})
