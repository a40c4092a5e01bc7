import { MessageChannel } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import type { LockRequest } from '../../stores/local/lock-messages.ts'
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
async function connectWorker(server: LockServer, heard: string[] = []) {
  const { port1, port2 } = new MessageChannel()
  const peer: LockPeer = server.connect((replies) => port1.postMessage(replies))
  const locker = new WorkerLocker((requests) => port2.postMessage(requests))
  port1.on('message', (requests: readonly LockRequest[]) => {
    for (const request of requests) heard.push(request[2] === 'unused' ? 'end unused' : request[0])
    peer.receive(requests)
  })
  port2.on('message', (replies) => locker.receive(replies))
  await locker.start()
  return { peer, locker, cut: () => port1.close() }
}

for (const mayStay of [false, true])
  describeLocker(mayStay ? 'WorkerLocker, of locks that may stay' : 'WorkerLocker', async () => {
    const server = new LockServer()
    const workers = [await connectWorker(server), await connectWorker(server)] as const
    for (const { locker } of workers) {
      const acquire = locker.acquire.bind(locker)
      locker.acquire = (id, options) => acquire(id, Object.assign(options, { mayStay }))
    }
    const [one, two] = workers
    return {
      servers: [one.locker, two.locker],
      async remains() {
        for (const { locker } of workers) locker.letGo()
        return server.size + one.locker.size + two.locker.size
      },
      async stop() {
        for (const { locker, cut } of workers) {
          await locker.close()
          cut()
        }
      },
    }
  })

describe('a worker', () => {
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

describe('a lock that may stay with a worker', () => {
  const stay = { timeoutMs: 20_000, mayStay: true }

  /** Two workers, and what they say to the primary. */
  async function start() {
    const server = new LockServer()
    const heard: string[] = []
    const workers = [await connectWorker(server, heard), await connectWorker(server, heard)] as const
    onTestFinished(() => {
      for (const { cut } of workers) cut()
    })
    return { server, heard, one: workers[0].locker, two: workers[1].locker }
  }

  it('is lent again without a word, with fences that grow, and is free for questions', async () => {
    const { heard, one, two } = await start()
    const fences: number[] = []
    for (let n = 0; n < 3; n++) {
      const lock = await one.acquire('u', stay)
      fences.push(lock.fence)
      expect(lock.isTakeOver).toBe(false)
      await lock.release()
      await lock.release()
      expect(await one.untilFree('u', stay)).toBe(false)
    }
    expect(heard).toEqual(['acquire'])
    fences.push((await two.acquire('u', stay)).fence)
    expect(fences).toEqual([...new Set(fences)].toSorted((a, b) => a - b))
  })

  it('goes to another worker at once, which takes nothing over; nobody had to be waited for', async () => {
    const { heard, one, two } = await start()
    await (await one.acquire('u', stay)).release()
    expect(await two.untilFree('u', { timeoutMs: 0 })).toBe(false)
    await (await one.acquire('u', stay)).release()
    const lock = await two.acquire('u', { timeoutMs: 0, mayStay: true })
    expect(lock.isTakeOver).toBe(false)
    await lock.release()
    expect((await one.acquire('u', stay)).isTakeOver).toBe(false)
    expect(heard).toEqual([
      'acquire',
      'wait',
      'end unused',
      'acquire',
      'acquire',
      'end unused',
      'acquire',
      'end unused',
    ])
  })

  it('does not hide that somebody was asked within the last second', async () => {
    const { one, two } = await start()
    const wanted = vi.fn()
    const first = await one.acquire('u', { ...stay, onWanted: wanted })
    const second = two.acquire('u', stay)
    await expect.poll(() => wanted.mock.calls.length).toBe(1)
    await first.release()
    expect((await second).isTakeOver).toBe(true)
    await (await second).release()
    const third = await one.acquire('u', stay)
    expect(third.isTakeOver).toBe(true)
  })

  it('is given back at its release when somebody else wants it', async () => {
    const { server, one, two } = await start()
    const wanted = vi.fn()
    const lock = await one.acquire('u', { ...stay, onWanted: wanted })
    const next = two.acquire('u', stay)
    await expect.poll(() => wanted.mock.calls.length).toBe(1)
    await lock.release()
    expect((await next).isHeld()).toBe(true)
    expect([server.size, one.size]).toEqual([1, 0])
  })

  it('is wanted also by a second request of the same worker', async () => {
    const { one } = await start()
    await (await one.acquire('u', stay)).release()
    const wanted = vi.fn()
    const lock = await one.acquire('u', { ...stay, onWanted: wanted })
    const next = one.acquire('u', stay)
    await expect.poll(() => wanted.mock.calls.length).toBe(1)
    await lock.release()
    expect((await next).isTakeOver).toBe(true)
  })

  it('does not stay for long, nor with many others, nor in a worker that is closed', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    onTestFinished(() => void vi.useRealTimers())
    const { server, one } = await start()
    await (await one.acquire('u', stay)).release()
    vi.advanceTimersByTime(2_000)
    await (await one.acquire('u', stay)).release()
    vi.advanceTimersByTime(2_000)
    expect(one.size).toBe(1)
    vi.advanceTimersByTime(2_000)
    expect([one.size, vi.getTimerCount()]).toEqual([0, 0])
    await expect.poll(() => server.size).toBe(0)
    for (let n = 0; n < 3_000; n++) await (await one.acquire(`u${n}`, stay)).release()
    expect(one.size).toBeLessThanOrEqual(2_000)
    await one.close()
    expect([one.size, vi.getTimerCount()]).toEqual([0, 0])
    await expect.poll(() => server.size).toBe(0)
  })

  it('is free when its worker has exited', async () => {
    const server = new LockServer()
    const [dead, alive] = [await connectWorker(server), await connectWorker(server)]
    await (await dead.locker.acquire('u', stay)).release()
    const waiting = alive.locker.acquire('u', stay)
    dead.cut()
    dead.peer.gone()
    expect((await waiting).isHeld()).toBe(true)
    alive.cut()
  })
})

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

describeLocker('RedisLocker', async () => {
  const keyPrefix = `t${Math.random().toString(36).slice(2)}:`
  const connections = [0, 1].map(() => new RedisConnection({ url: redis.url, keyPrefix }))
  const lockers = connections.map((connection) => new RedisLocker({ connection }))
  for (const locker of lockers) await locker.start()
  const one = lockers[0]!
  const two = lockers[1]!
  let askedBefore = 0
  return {
    servers: [one, two],
    async remains() {
      const left = await connections[0]!.run((client) => client.keys(`${keyPrefix}*`))
      // A fence is remembered for an hour, so that it grows.
      return one.size + two.size + left.filter((key) => !key.startsWith(`${keyPrefix}fence:`)).length
    },
    async requests() {
      const asked = countAsked(await connections[0]!.run((client) => client.info('commandstats')))
      const since = asked - askedBefore
      askedBefore = asked
      return since
    },
    async stop() {
      for (const locker of lockers) await locker.close()
      for (const connection of connections) await connection.close()
    },
  }
})
