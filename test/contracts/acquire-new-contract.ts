/**
 * The contract of `Locker.acquireNew`, for every implementation that has it.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Locker, RecordNews, RecordStore } from '../../stores/contracts.ts'
import { deferred } from '../support/deferred.ts'
import { failure } from './locker-contract.ts'
import { record } from './records-contract.ts'

export interface NewLocksUnderTest {
  /** Two servers that share locks and records. */
  readonly servers: readonly [Server, Server]
  stop(): Promise<void>
}
interface Server {
  readonly locker: Locker
  readonly records: RecordStore
}

export function describeAcquireNew(name: string, start: () => Promise<NewLocksUnderTest>): void {
  describe(`${name}: the lock of a new upload`, () => {
    const wait = { timeoutMs: 20_000 }
    let under: NewLocksUnderTest
    let one: Server
    let two: Server

    beforeEach(async () => {
      under = await start()
      ;[one, two] = under.servers
    })
    afterEach(async () => {
      await under.stop()
    })
    const acquireNew = (id: string, expiresAt?: number, onWanted = () => {}) =>
      one.locker.acquireNew!(record(id), expiresAt, { timeoutMs: 0, onWanted })

    it('is taken in the step that puts its record, for all servers', async () => {
      const lock = (await acquireNew('u', 50))!
      expect([lock.id, lock.isHeld(), lock.isTakeOver, lock.mayStay]).toEqual(['u', true, false, true])
      expect(await two.records.get('u')).toEqual(record('u'))
      expect(await two.records.expiring(50, 10)).toEqual(['u'])
      expect((await two.records.recent(10)).map(({ head }) => head.id)).toEqual(['u'])
      expect(await failure(two.locker.acquire('u', { timeoutMs: 0 }))).toBe('timeout')
      await lock.release()
    })

    it('is a lock like any other: it is asked for, handed over, and followed by a higher fence', async () => {
      const wanted = deferred()
      const lock = (await acquireNew('u', undefined, wanted.resolve))!
      const waiting = two.locker.acquire('u', wait)
      await wanted.promise
      await lock.release()
      const next = await waiting
      expect(next.fence).toBeGreaterThan(lock.fence)
      await next.release()
    })

    it('is not taken, and nothing is put, where anything is known of the upload already', async () => {
      await two.records.put(record('put', { sequence: 7 }))
      const held = await two.locker.acquire('held', wait)
      await (await two.locker.acquire('past', wait)).release()
      for (const id of ['put', 'held', 'past']) expect(await acquireNew(id)).toBeUndefined()
      expect(await two.records.get('put')).toEqual(record('put', { sequence: 7 }))
      for (const id of ['held', 'past']) expect(await two.records.get(id)).toBeUndefined()
      expect(held.isHeld()).toBe(true)
      await held.release()
      for (const id of ['put', 'held', 'past']) await (await two.locker.acquire(id, wait)).release()
    })

    it('is news', async () => {
      const news: RecordNews[] = []
      const stop = two.records.watch((one) => news.push(one))
      await expect.poll(() => news.map(({ is }) => is)).toEqual(['missed'])
      const lock = (await acquireNew('u'))!
      await expect.poll(() => news.at(-1)).toMatchObject({ is: 'put', record: { head: { id: 'u' } } })
      stop()
      await lock.release()
    })
  })
}
