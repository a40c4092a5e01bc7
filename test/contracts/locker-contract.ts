/**
 * The contract of `Locker`, sentence by sentence, for every implementation.
 */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Lock, LockErrorCode, Locker } from '../../stores/contracts.ts'
import { deferred } from '../support/deferred.ts'

export interface LockerUnderTest {
  /** Two servers that share the locker; the same one twice where it lives in one process. */
  readonly servers: readonly [Locker, Locker]
  /** What is left behind anywhere: holders, waiters, timers, keys. */
  remains(): Promise<number>
  /** Requests to the coordinator since the last call; undefined where there is none. */
  requests?(): Promise<number>
  stop(): Promise<void>
}

/** How often Redis was asked for a lock, or about one, by what its INFO says of commands. */
export function countAsked(commandStatistics: string): number {
  const calls = commandStatistics.matchAll(/^cmdstat_(?:evalsha|exists):calls=(\d+)/gm)
  return [...calls].reduce((sum, [, count]) => sum + Number(count), 0)
}

export function describeLocker(name: string, start: () => Promise<LockerUnderTest>): void {
  describe(`${name}: the contract of Locker`, () => {
    let under: LockerUnderTest
    let one: Locker
    let two: Locker
    const wait = { timeoutMs: 20_000 }

    beforeEach(async () => {
      under = await start()
      ;[one, two] = under.servers
    })
    afterEach(async () => {
      await under.stop()
    })
    const nothingRemains = () => expect.poll(() => under.remains()).toBe(0)

    it('at most one holder at any moment, over all servers that share the locker', async () => {
      let writers = 0
      let held = 0
      const write = async (locker: Locker, id: string, steps: number) => {
        let asked = false
        const onWanted = () => {
          asked = true
        }
        const lock = await locker.acquire(id, { ...wait, onWanted }).catch(() => undefined)
        if (lock === undefined) return
        writers += 1
        expect(writers).toBe(1)
        for (let step = 0; step < steps && !asked; step++)
          await new Promise((resolve) => setImmediate(resolve))
        expect(lock.isHeld()).toBe(true)
        held += 1
        writers -= 1
        await lock.release()
      }
      const requests = fc.array(fc.tuple(fc.nat(1), fc.nat(20), fc.nat(3)), { minLength: 2, maxLength: 8 })
      const order = fc.asyncProperty(requests, async (all) => {
        const running: Promise<void>[] = []
        for (const [server, steps, pause] of all) {
          running.push(write(under.servers[server]!, 'order', steps))
          for (let step = 0; step < pause; step++) await new Promise((resolve) => setImmediate(resolve))
        }
        await Promise.all(running)
      })
      await fc.assert(order, { numRuns: 40 })
      expect(held).toBeGreaterThan(40)
      await nothingRemains()
    })

    it('locks of different uploads do not touch each other', async () => {
      const locks = await Promise.all(['a', 'b', '{c}', 'd%7d'].map((id) => one.acquire(id, wait)))
      expect(locks.map((lock) => lock.isHeld())).toEqual([true, true, true, true])
      for (const lock of locks) await lock.release()
      await nothingRemains()
    })

    it('whoever asks for a held lock makes the locker ask the holder to release it', async () => {
      const wanted = deferred()
      const first = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      const second = two.acquire('u', wait)
      await wanted.promise
      expect(first.isHeld()).toBe(true)
      await first.release()
      await (await second).release()
      await nothingRemains()
    })

    it('the holder is asked at most once, however many ask', async () => {
      let asked = 0
      const onWanted = () => {
        asked += 1
      }
      const first = await one.acquire('u', { ...wait, onWanted })
      let newest = failure(two.acquire('u', wait))
      for (const locker of [one, two, one]) {
        const before = newest
        newest = failure(locker.acquire('u', wait))
        await Promise.race([before, newest])
      }
      await first.release()
      await newest
      expect(asked).toBe(1)
    })

    it('a holder whose lock nobody wants is never asked', async () => {
      let asked = 0
      const onWanted = () => {
        asked += 1
      }
      const lock = await one.acquire('u', { ...wait, onWanted })
      await (await two.acquire('other', wait)).release()
      await lock.release()
      await (await two.acquire('u', wait)).release()
      expect(asked).toBe(0)
    })

    it('the newest waiter wins; older ones fail with `superseded`', async () => {
      const wanted = deferred()
      const holder = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      const oldest = failure(two.acquire('u', wait))
      await wanted.promise
      const older = failure(one.acquire('u', wait))
      expect(await oldest).toBe('superseded')
      const newest = two.acquire('u', wait)
      expect(await older).toBe('superseded')
      await holder.release()
      const lock = await newest
      expect(lock.isHeld()).toBe(true)
      await lock.release()
      await nothingRemains()
    })

    it('`fence` grows with every acquisition of one id', async () => {
      const fences: number[] = []
      for (const locker of [one, two, two, one, one]) {
        const lock = await locker.acquire('u', wait)
        fences.push(lock.fence)
        await lock.release()
      }
      const holder = await one.acquire('u', wait)
      fences.push(holder.fence)
      const next = two.acquire('u', wait)
      await holder.release()
      fences.push((await next).fence)
      await (await next).release()
      expect(fences).toEqual([...new Set(fences)].sort((a, b) => a - b))
      expect(fences.every(Number.isSafeInteger)).toBe(true)
    })

    it('a released lock goes to the waiter; nobody polls', async () => {
      await (await one.acquire('u', wait)).release()
      await under.requests?.()
      const wanted = deferred()
      const holder = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      const waiting = two.acquire('u', wait)
      await wanted.promise
      await holder.release()
      const lock = await waiting
      // Acquire, acquire and wait, release, acquire again. More would be polling.
      if (under.requests) expect(await under.requests()).toBe(4)
      await lock.release()
    })

    it('says whether another holder was asked to release first, by this request', async () => {
      const wanted = deferred()
      const first = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      const waiting = two.acquire('u', wait)
      await wanted.promise
      await first.release()
      const second = await waiting
      expect([first.isTakeOver, second.isTakeOver]).toEqual([false, true])
      await second.release()
      await nothingRemains()
    })

    it('says whether another holder was asked to release first, by anybody within the last second', async () => {
      const wanted = deferred()
      const first = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      const question = two.untilFree('u', wait)
      await wanted.promise
      await first.release()
      await question
      const isTakeOver = async (id: string) => {
        const lock = await one.acquire(id, wait)
        await lock.release()
        return lock.isTakeOver
      }
      expect([await isTakeOver('u'), await isTakeOver('other')]).toEqual([true, false])
      await expect.poll(() => isTakeOver('u'), { timeout: 10_000 }).toBe(false)
      await nothingRemains()
    })

    it('`untilFree` returns once nobody holds the lock, and takes nothing', async () => {
      await (await one.acquire('u', wait)).release()
      await under.requests?.()
      expect(await two.untilFree('u', { timeoutMs: 0 })).toBe(false)
      if (under.requests) expect(await under.requests()).toBe(1)
      expect(await under.remains()).toBe(0)
      const lock = await one.acquire('u', { timeoutMs: 0 })
      await lock.release()
    })

    it('`untilFree` asks the holder to release, and waits; nobody polls', async () => {
      await (await one.acquire('u', wait)).release()
      await under.requests?.()
      const wanted = deferred()
      const holder = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      let isFree = false
      const question = two.untilFree('u', wait).then((hadToWait) => {
        isFree = true
        return hadToWait
      })
      await wanted.promise
      expect([isFree, holder.isHeld()]).toEqual([false, true])
      await holder.release()
      expect(await question).toBe(true)
      // Acquire, ask, ask and wait, release, ask again.
      if (under.requests) expect(await under.requests()).toBe(5)
      expect(await under.remains()).toBe(0)
    })

    it('`untilFree` waits as `acquire` does: the newest waiter wins', async () => {
      const wanted = deferred()
      const holder = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      const oldest = outcome(two.untilFree('u', wait))
      await wanted.promise
      const older = failure(one.acquire('u', wait))
      expect(await oldest).toBe('superseded')
      const newest = outcome(two.untilFree('u', wait))
      expect(await older).toBe('superseded')
      await holder.release()
      expect(await newest).toBeUndefined()
      await nothingRemains()
    })

    it('`untilFree` ends with `timeout` or `aborted`, and leaves nothing behind', async () => {
      const controller = new AbortController()
      const wanted = deferred()
      const holder = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      expect(await outcome(two.untilFree('u', { timeoutMs: 1 }))).toBe('timeout')
      const question = outcome(two.untilFree('u', { ...wait, signal: controller.signal }))
      await wanted.promise
      controller.abort()
      expect(await question).toBe('aborted')
      await holder.release()
      await nothingRemains()
      await (await two.acquire('u', { timeoutMs: 0 })).release()
    })

    it('a wait ends with `timeout` after `timeoutMs`, and leaves nothing behind', async () => {
      const holder = await one.acquire('u', wait)
      for (const timeoutMs of [0, 1, 30]) {
        expect(await failure(two.acquire('u', { timeoutMs }))).toBe('timeout')
      }
      await holder.release()
      await nothingRemains()
      await (await two.acquire('u', { timeoutMs: 0 })).release()
    })

    it('a wait ends with `aborted` when `signal` aborts, and leaves nothing behind', async () => {
      const timersBefore = countTimers()
      const controller = new AbortController()
      const wanted = deferred()
      const holder = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      const waiting = failure(two.acquire('u', { ...wait, signal: controller.signal }))
      await wanted.promise
      controller.abort()
      expect(await waiting).toBe('aborted')
      await holder.release()
      // Those of a client library may be a moment behind. Waiting for it must not take a timer.
      const deadline = performance.now() + 5000
      while (countTimers() > timersBefore && performance.now() < deadline) {
        await new Promise((resolve) => setImmediate(resolve))
      }
      expect(countTimers()).toBeLessThanOrEqual(timersBefore)
      await nothingRemains()
    })

    it('whoever has gone away already disturbs nobody', async () => {
      let asked = false
      const onWanted = () => {
        asked = true
      }
      const holder = await one.acquire('u', { ...wait, onWanted })
      expect(await failure(two.acquire('u', { ...wait, signal: AbortSignal.abort() }))).toBe('aborted')
      await holder.release()
      expect(asked).toBe(false)
      await nothingRemains()
    })

    it('a signal that aborts after the lock was taken changes nothing', async () => {
      const controller = new AbortController()
      const lock = await one.acquire('u', { ...wait, signal: controller.signal })
      controller.abort()
      expect([lock.isHeld(), lock.lost.aborted]).toEqual([true, false])
      await lock.release()
      await nothingRemains()
    })

    it('a lock is held until it is released, which is safe to do twice', async () => {
      const first = await one.acquire('u', wait)
      expect([first.id, first.isHeld(), first.lost.aborted]).toEqual(['u', true, false])
      await first.release()
      expect(first.isHeld()).toBe(false)
      const second = await two.acquire('u', wait)
      await Promise.all([first.release(), first.release()])
      expect(second.isHeld()).toBe(true)
      expect(await failure(one.acquire('u', { timeoutMs: 0 }))).toBe('timeout')
      await second.release()
      await nothingRemains()
    })

    it('fails with `unavailable` once it is closed, also those who wait', async () => {
      const holder = await one.acquire('u', wait)
      const waiting = failure(two.acquire('u', wait))
      await two.close()
      expect(await waiting).toBe('unavailable')
      await holder.release()
    })

    it('`untilFree` fails with `unavailable` when who waits is closed', async () => {
      const wanted = deferred()
      const holder = await one.acquire('u', { ...wait, onWanted: wanted.resolve })
      const waiting = outcome(two.untilFree('u', wait))
      await wanted.promise
      await two.close()
      expect(await waiting).toBe('unavailable')
      await holder.release()
    })

    it('a thousand locks come and go, and nothing remains', async () => {
      const locks = await Promise.all(Array.from({ length: 1000 }, (_, n) => one.acquire(`u${n}`, wait)))
      expect(new Set(locks.map((lock: Lock) => lock.id)).size).toBe(1000)
      await Promise.all(locks.map((lock) => lock.release()))
      await nothingRemains()
    })
  })
}

/** The code with which it failed; undefined when the lock was had, which then is given back. */
export async function failure(acquisition: Promise<Lock | undefined>): Promise<LockErrorCode | undefined> {
  try {
    await (await acquisition)?.release()
    return undefined
  } catch (error) {
    return (error as { code: LockErrorCode }).code
  }
}

/** The code with which it failed; undefined when it did not. */
async function outcome(work: Promise<unknown>): Promise<LockErrorCode | undefined> {
  return await work.then(
    () => undefined,
    (error: { code: LockErrorCode }) => error.code,
  )
}

function countTimers(): number {
  return process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length
}
