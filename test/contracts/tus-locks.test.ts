// Any @tus locker, used by Tidemark's engine: with @tus/server's own, and with lockers that tests need to misbehave.

import { MemoryLocker } from '@tus/server'
import { ERRORS, type Locker as TusLocker } from '@tus/utils'
import { describe, expect, it } from 'vitest'
import type { LockError } from '../../stores/contracts.ts'
import { TusLocks } from '../../stores/tus/tus-locker.ts'
import { deferred } from '../support/deferred.ts'

const wait = { timeoutMs: 5_000 }

describe("@tus/server's MemoryLocker", () => {
  it('has one holder at any moment, who is asked once to release', async () => {
    const locks = new TusLocks(new MemoryLocker())
    let asked = 0
    const wanted = deferred()
    const onWanted = () => {
      asked += 1
      wanted.resolve()
    }
    const first = await locks.acquire('a', { ...wait, onWanted })
    let hasSecond = false
    const second = locks.acquire('a', wait).then((lock) => {
      hasSecond = true
      return lock
    })
    await wanted.promise
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect([asked, hasSecond, first.isHeld(), first.isTakeOver]).toEqual([1, false, true, false])
    await first.release()
    await first.release()
    const lock = await second
    expect([first.isHeld(), lock.isHeld(), lock.isTakeOver]).toEqual([false, true, true])
    expect(lock.fence).toBeGreaterThan(first.fence)
    await lock.release()
    expect(locks.size).toBe(0)
  })

  it('is taken and given back for who only wants it to be free', async () => {
    const locks = new TusLocks(new MemoryLocker())
    await locks.untilFree('a', wait)
    expect(locks.size).toBe(0)
    const wanted = deferred()
    const holder = await locks.acquire('a', { ...wait, onWanted: wanted.resolve })
    const free = locks.untilFree('a', wait)
    await wanted.promise
    expect(await codeOf(locks.untilFree('a', { timeoutMs: 20 }))).toBe('timeout')
    await holder.release()
    await free
    expect(locks.size).toBe(0)
  })

  it('uploads do not touch each other', async () => {
    const locks = new TusLocks(new MemoryLocker())
    const held = await Promise.all(['a', 'b'].map((id) => locks.acquire(id, wait)))
    expect(locks.size).toBe(2)
    for (const lock of held) await lock.release()
  })

  it('a wait ends with `timeout`, `aborted` or `unavailable`, and the next one gets the lock', async () => {
    const locks = new TusLocks(new MemoryLocker())
    const holder = await locks.acquire('a', wait)
    expect(await codeOf(locks.acquire('a', { timeoutMs: 20 }))).toBe('timeout')
    const gone = new AbortController()
    const aborted = codeOf(locks.acquire('a', { ...wait, signal: gone.signal }))
    gone.abort()
    expect(await aborted).toBe('aborted')
    expect(await codeOf(locks.acquire('b', { ...wait, signal: gone.signal }))).toBe('aborted')
    const closed = codeOf(locks.acquire('a', wait))
    await locks.close()
    expect(await closed).toBe('unavailable')
    expect(await codeOf(locks.acquire('b', wait))).toBe('unavailable')
    await locks.start()
    await holder.release()
    await (await locks.acquire('a', wait)).release()
    expect(locks.size).toBe(0)
  })
})

describe('a locker that', () => {
  it('never looks at its signal -> the wait ends all the same, and a lock that comes late goes straight back', async () => {
    const comes = deferred()
    const unlocked = deferred()
    const locks = new TusLocks(lockerOf(() => comes.promise, unlocked.resolve))
    expect(await codeOf(locks.acquire('a', { timeoutMs: 10 }))).toBe('timeout')
    comes.resolve()
    await unlocked.promise
    expect(locks.size).toBe(0)
  })

  it.each([
    ['gives up by itself', ERRORS.ERR_LOCK_TIMEOUT, 'timeout'],
    ['says 423', { status_code: 423, body: '' }, 'timeout'],
    ['fails', new Error('the network is away'), 'unavailable'],
  ])('%s -> the request is told to try again', async (_, error, code) => {
    const locks = new TusLocks(lockerOf(() => Promise.reject(error)))
    expect(await codeOf(locks.acquire('a', wait))).toBe(code)
  })

  it('cannot give a lock back -> release does not throw, and it is reported', async () => {
    const reported: unknown[] = []
    const fails = () => {
      throw new Error('away')
    }
    const locks = new TusLocks(
      lockerOf(async () => undefined, fails),
      {
        onUnlockFailed: (id, error) => reported.push([id, (error as Error).message]),
      },
    )
    await (await locks.acquire('a', wait)).release()
    expect(reported).toEqual([['a', 'away']])
  })
})

function lockerOf(lock: () => Promise<void>, unlock: () => void = () => undefined): TusLocker {
  return { newLock: () => ({ lock, unlock: async () => unlock() }) }
}

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: LockError) => error.code,
  )
}
