/**
 * The contract of `Ledger`, sentence by sentence, for every implementation.
 */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Ledger, type LedgerEntry, noLimits, type Settled } from '../../stores/ledger.ts'

export interface LedgerUnderTest {
  /** Two servers that share the ledger; the same one twice where they live in one process. */
  readonly servers: readonly [Ledger, Ledger]
  /** Loses everything. */
  lose(): Promise<void>
  /** Makes the ledger unreachable, until `stop`. */
  cutOff(): Promise<void>
  stop(): Promise<void>
}

const now = 1_900_000_000_000
const lookAt = now + 120_000
const entry = (id: string, account = 'owner:me', createdAt = now): LedgerEntry => ({ account, id, createdAt })
const ask = (bytes: number, at = now) => ({ bytes, now: at, lookAt: at + 120_000 })
const admitted = { is: 'admitted' }
const nothingUsed = {
  openUploads: 0,
  creationsPerMinute: 0,
  unfinishedBytes: 0,
  totalBytes: 0,
  runningRequests: 0,
}

export function describeLedger(name: string, start: () => Promise<LedgerUnderTest>): void {
  describe(`${name}: the contract of Ledger`, () => {
    let under: LedgerUnderTest
    let one: Ledger
    let two: Ledger

    beforeEach(async () => {
      under = await start()
      ;[one, two] = under.servers
    })
    afterEach(async () => {
      await under.stop()
    })

    it('`admit` counts an upload and its creation, or refuses and counts nothing', async () => {
      const limits = { ...noLimits, openUploads: 2, unfinishedBytes: 100, totalBytes: 150 }
      expect(await one.admit(entry('a'), ask(60), limits)).toEqual(admitted)
      const used = {
        ...nothingUsed,
        openUploads: 1,
        creationsPerMinute: 1,
        unfinishedBytes: 60,
        totalBytes: 60,
      }
      expect(await two.usage('owner:me', now)).toEqual(used)
      expect(await two.admit(entry('b'), ask(41), limits)).toEqual({
        is: 'refused',
        limit: 'unfinishedBytes',
      })
      expect(await one.usage('owner:me', now)).toEqual(used)
      await one.settle(entry('a'), { is: 'finished', bytes: 60 })
      expect(await two.admit(entry('b'), ask(91), limits)).toEqual({ is: 'refused', limit: 'totalBytes' })
      expect(await two.admit(entry('b'), ask(90), limits)).toEqual(admitted)
      expect(await one.admit(entry('c'), ask(0), limits)).toEqual(admitted)
      expect(await one.admit(entry('d'), ask(0), limits)).toEqual({ is: 'refused', limit: 'openUploads' })
      expect(await one.usage('owner:me', now)).toEqual({
        ...nothingUsed,
        openUploads: 2,
        creationsPerMinute: 3,
        unfinishedBytes: 90,
        totalBytes: 150,
      })
    })

    it('of many at a time exactly as many as there is room for are admitted, on whichever server', async () => {
      const verdicts = await Promise.all(
        Array.from({ length: 40 }, (_, n) =>
          under.servers[n % 2]!.admit(entry(`u${n}`), ask(10), { ...noLimits, unfinishedBytes: 79 }),
        ),
      )
      expect(verdicts.filter(({ is }) => is === 'admitted')).toHaveLength(7)
    })

    it('`admit` of an entry that is there already admits it again, and counts nothing twice', async () => {
      const limits = { ...noLimits, openUploads: 1, creationsPerMinute: 1, unfinishedBytes: 5 }
      for (const ledger of [one, two, one])
        expect(await ledger.admit(entry('a'), ask(5), limits)).toEqual(admitted)
      expect(await two.usage('owner:me', now)).toMatchObject({ openUploads: 1, creationsPerMinute: 1 })
    })

    it('of creations never more than the limit are admitted within any minute; a refusal says when there is room', async () => {
      let run = 0
      const steps = fc.array(fc.integer({ min: 0, max: 25_000 }), { minLength: 1, maxLength: 40 })
      await fc.assert(
        fc.asyncProperty(steps, fc.integer({ min: 1, max: 5 }), async (waits, limit) => {
          const account = `owner:rate${run++}`
          const limits = { ...noLimits, creationsPerMinute: limit }
          const admittedAt: number[] = []
          let at = now
          for (const [n, waitMs] of waits.entries()) {
            at += waitMs
            const verdict = await under.servers[n % 2]!.admit(entry(`u${n}`, account, at), ask(1, at), limits)
            if (verdict.is === 'refused') {
              expect(verdict.limit).toBe('creationsPerMinute')
              expect(verdict.retryAfterMs).toBeGreaterThan(0)
              expect(verdict.retryAfterMs).toBeLessThanOrEqual(61_000)
              // One that comes a moment too early is refused, one at the time that was said is not.
              const early = at + verdict.retryAfterMs! - 1
              const again = entry(`again${n}`, account, at)
              expect(await one.admit(again, ask(1, early), limits)).toMatchObject({ is: 'refused' })
              at = early + 1
              expect(await two.admit(again, ask(1, at), limits)).toEqual(admitted)
            }
            admittedAt.push(at)
          }
          for (const [n, first] of admittedAt.entries()) {
            const within = admittedAt.slice(n).filter((other) => other - first < 60_000)
            expect(within.length).toBeLessThanOrEqual(limit)
          }
        }),
        { numRuns: 25 },
      )
    })

    it('creations that a clock noted in the far future do not count', async () => {
      const limits = { ...noLimits, creationsPerMinute: 1 }
      expect(await one.admit(entry('a'), ask(1, now + 3_600_000), limits)).toEqual(admitted)
      expect(await two.admit(entry('b'), ask(1), limits)).toEqual(admitted)
    })

    it('`grow` grants as much as there is room for, and refuses when that is less than `least`', async () => {
      const limits = { ...noLimits, unfinishedBytes: 100, totalBytes: 1000 }
      await one.admit(entry('a'), ask(0), limits)
      await one.admit(entry('b'), ask(30), limits)
      const grow = (ledger: Ledger, least: number, wanted: number, other = limits) =>
        ledger.grow(entry('a'), { least, wanted, lookAt }, other)
      expect(await grow(one, 10, 50)).toEqual({ is: 'granted', bytes: 50 })
      expect(await grow(two, 60, 200)).toEqual({ is: 'granted', bytes: 70 })
      expect(await grow(one, 71, 200)).toEqual({ is: 'refused', limit: 'unfinishedBytes' })
      expect(await grow(one, 71, 200, { ...limits, totalBytes: 99 })).toEqual({
        is: 'refused',
        limit: 'totalBytes',
      })
      expect(await grow(one, 5, 10)).toEqual({ is: 'granted', bytes: 70 })
      expect(await two.usage('owner:me', now)).toMatchObject({ unfinishedBytes: 100, totalBytes: 100 })
    })

    it('`grow` never takes back what was granted, also when limits were lowered', async () => {
      await one.admit(entry('a'), ask(50), noLimits)
      const limits = { ...noLimits, unfinishedBytes: 10 }
      expect(await two.grow(entry('a'), { least: 20, wanted: 60, lookAt }, limits)).toEqual({
        is: 'granted',
        bytes: 50,
      })
    })

    it('`grow` makes an entry that was lost', async () => {
      await one.grow(entry('a'), { least: 20, wanted: 20, lookAt }, noLimits)
      expect(await two.usage('owner:me', now)).toMatchObject({ openUploads: 1, unfinishedBytes: 20 })
      await expect.poll(() => two.due(lookAt, 10), { timeout: 10_000 }).toEqual([entry('a')])
    })

    it('`settle` makes an entry say what is true of its upload, and can be repeated', async () => {
      await one.admit(entry('a'), ask(50), noLimits)
      const used = async () => {
        const { openUploads, unfinishedBytes, totalBytes } = await two.usage('owner:me', now)
        return [openUploads, unfinishedBytes, totalBytes]
      }
      const settle = async (settled: Settled) => {
        await one.settle(entry('a'), settled)
        await two.settle(entry('a'), settled)
        return await used()
      }
      expect(await settle({ is: 'open', bytes: 20, atLeast: true, lookAt })).toEqual([1, 50, 50])
      expect(await settle({ is: 'open', bytes: 70, atLeast: true, lookAt })).toEqual([1, 70, 70])
      expect(await settle({ is: 'open', bytes: 20, lookAt })).toEqual([1, 20, 20])
      expect(await settle({ is: 'finished', bytes: 30 })).toEqual([0, 0, 30])
      expect(await settle({ is: 'gone' })).toEqual([0, 0, 0])
      expect(await settle({ is: 'open', bytes: 20, lookAt })).toEqual([1, 20, 20])
      expect(await settle({ is: 'gone' })).toEqual([0, 0, 0])
      expect(await settle({ is: 'finished', bytes: 2 ** 45 })).toEqual([0, 0, 2 ** 45])
    })

    it('what is settled as finished is never open again', async () => {
      await one.settle(entry('a'), { is: 'finished', bytes: 30 })
      await two.settle(entry('a'), { is: 'open', bytes: 20, lookAt })
      expect(await two.grow(entry('a'), { least: 90, wanted: 90, lookAt }, noLimits)).toMatchObject({
        is: 'granted',
      })
      expect(await one.usage('owner:me', now)).toMatchObject({ openUploads: 0, totalBytes: 30 })
    })

    it('an id that comes back is of another upload', async () => {
      const again = entry('a', 'owner:me', now + 1)
      await one.admit(entry('a'), ask(1), noLimits)
      await one.admit(again, ask(10), noLimits)
      await two.settle(entry('a'), { is: 'gone' })
      expect(await one.usage('owner:me', now)).toMatchObject({ openUploads: 1, unfinishedBytes: 10 })
    })

    it('sums are those of the entries, whatever is said in whichever order', async () => {
      const id = fc.constantFrom('a', 'b', 'c')
      const bytes = fc.integer({ min: 0, max: 2 ** 40 })
      const act = fc.oneof(
        fc.record({ do: fc.constant('admit' as const), id, bytes }),
        fc.record({ do: fc.constant('grow' as const), id, bytes }),
        fc.record({ do: fc.constantFrom('open', 'atLeast', 'finished', 'gone'), id, bytes }),
      )
      const limits = { ...noLimits, openUploads: 2, unfinishedBytes: 2 ** 40, totalBytes: 2 ** 41 }
      let run = 0
      await fc.assert(
        fc.asyncProperty(fc.array(act, { maxLength: 12 }), async (acts) => {
          const account = `owner:sums${run++}`
          const model = new Map<string, { isOpen: boolean; bytes: number }>()
          const sums = () => {
            const open = [...model.values()].filter(({ isOpen }) => isOpen)
            const sum = (some: { bytes: number }[]) => some.reduce((total, { bytes }) => total + bytes, 0)
            return {
              openUploads: open.length,
              unfinishedBytes: sum(open),
              totalBytes: sum([...model.values()]),
            }
          }
          for (const [n, { do: what, id, bytes }] of acts.entries()) {
            const ledger = under.servers[n % 2]!
            const old = model.get(id)
            if (what === 'admit') {
              const verdict = await ledger.admit(entry(id, account), ask(bytes), limits)
              if (verdict.is === 'admitted' && !old) model.set(id, { isOpen: true, bytes })
            } else if (what === 'grow') {
              const growth = await ledger.grow(
                entry(id, account),
                { least: 0, wanted: bytes, lookAt },
                limits,
              )
              if (growth.is === 'granted' && (old?.isOpen ?? true))
                model.set(id, { isOpen: true, bytes: growth.bytes })
            } else {
              const settled: Settled =
                what === 'gone'
                  ? { is: 'gone' }
                  : what === 'finished'
                    ? { is: 'finished', bytes }
                    : { is: 'open', bytes, lookAt, ...(what === 'atLeast' && { atLeast: true }) }
              await ledger.settle(entry(id, account), settled)
              if (settled.is === 'gone') model.delete(id)
              else if (settled.is === 'finished') model.set(id, { isOpen: false, bytes })
              else if (old?.isOpen ?? true)
                model.set(id, {
                  isOpen: true,
                  bytes: Math.max(bytes, what === 'atLeast' ? (old?.bytes ?? 0) : 0),
                })
            }
            expect(await one.usage(account, now)).toMatchObject(sums())
          }
        }),
        { numRuns: 40 },
      )
    })

    it('`begin` counts a running request until it ends', async () => {
      const run = (id: string, token = id) => ({ account: 'owner:me', id, token })
      const lease = { now, until: now + 1000 }
      expect(await one.begin(run('a'), lease, 2)).toEqual(admitted)
      expect(await two.begin(run('b'), lease, 2)).toEqual(admitted)
      expect(await one.begin(run('c'), lease, 2)).toEqual({ is: 'refused', limit: 'runningRequests' })
      expect((await one.usage('owner:me', now)).runningRequests).toBe(2)
      await two.end(run('a'))
      expect(await one.begin(run('c'), lease, 2)).toEqual(admitted)
      expect((await one.usage('owner:me', now)).runningRequests).toBe(2)
    })

    it('a running request is counted until its lease ends, which it does unless somebody renews it', async () => {
      const run = (id: string) => ({ account: 'owner:me', id, token: `of ${id}` })
      const lease = { now, until: now + 1000 }
      await one.begin(run('a'), lease, 2)
      await one.begin(run('b'), lease, 2)
      await two.renew([run('b')], now + 2000)
      const later = { now: now + 1000, until: now + 2000 }
      expect(await two.begin(run('c'), later, 2)).toEqual(admitted)
      expect(await two.begin(run('d'), later, 2)).toMatchObject({ is: 'refused' })
      expect((await one.usage('owner:me', now + 1999)).runningRequests).toBe(2)
      expect((await one.usage('owner:me', now + 2000)).runningRequests).toBe(0)
    })

    it('one upload has one running request: a newer takes the place of an older one', async () => {
      const older = { account: 'owner:me', id: 'a', token: 'older' }
      const newer = { ...older, token: 'newer' }
      const lease = { now, until: now + 1000 }
      await one.begin(older, lease, 1)
      expect(await two.begin(newer, lease, 1)).toEqual(admitted)
      await one.renew([older], now + 9000)
      await one.end(older)
      expect((await two.usage('owner:me', now)).runningRequests).toBe(1)
      expect((await two.usage('owner:me', now + 1000)).runningRequests).toBe(0)
      await two.end(newer)
      expect((await two.usage('owner:me', now)).runningRequests).toBe(0)
    })

    it('`renew` puts back what was lost', async () => {
      const run = { account: 'owner:me', id: 'a', token: 'a' }
      await one.begin(run, { now, until: now + 1000 }, 1)
      await under.lose()
      await one.renew([run], now + 1000)
      expect((await two.usage('owner:me', now)).runningRequests).toBe(1)
    })

    it('`due` names entries of open uploads at which it is time to look, soonest first', async () => {
      await one.admit(entry('b'), ask(1, now + 2), noLimits)
      await one.admit(entry('a', 'address:::1'), ask(1, now + 1), noLimits)
      await one.admit(entry('c'), ask(1, now + 3), noLimits)
      await one.admit(entry('d'), ask(1, now), noLimits)
      await one.settle(entry('d'), { is: 'finished', bytes: 1 })
      const at = (ms: number) => now + 120_000 + ms
      await expect.poll(() => two.due(at(9), 10), { timeout: 10_000 }).toHaveLength(3)
      expect(await two.due(at(0), 10)).toEqual([])
      expect(await two.due(at(2), 10)).toEqual([entry('a', 'address:::1'), entry('b')])
      expect(await two.due(at(9), 1)).toEqual([entry('a', 'address:::1')])
      await two.settle(entry('a', 'address:::1'), { is: 'open', bytes: 1, lookAt: at(9) })
      const moved = [entry('b'), entry('c'), entry('a', 'address:::1')]
      await expect.poll(() => one.due(at(9), 10), { timeout: 10_000 }).toEqual(moved)
      await two.settle(entry('b'), { is: 'gone' })
      await expect
        .poll(() => one.due(at(9), 10), { timeout: 10_000 })
        .toEqual([entry('c'), entry('a', 'address:::1')])
    })

    it('`entries` gives every entry, of finished uploads too', async () => {
      const entries = Array.from({ length: 250 }, (_, n) => entry(`u${n}`, `owner:${n % 3}`, now + n))
      await Promise.all(entries.map((one) => two.admit(one, ask(1), noLimits)))
      await one.settle(entries[7]!, { is: 'gone' })
      await one.settle(entries[8]!, { is: 'finished', bytes: 1 })
      const seen = new Map<string, LedgerEntry & { isOpen: boolean }>()
      for await (const one of two.entries()) seen.set(JSON.stringify(one), one)
      const byId = (a: LedgerEntry, b: LedgerEntry) => a.createdAt - b.createdAt
      const expected = entries.map((entry, n) => ({ ...entry, isOpen: n !== 8 })).filter((_, n) => n !== 7)
      expect([...seen.values()].toSorted(byId)).toEqual(expected)
    })

    it('keeps apart what has awkward names', async () => {
      const names = [
        '{a}',
        '{a}b',
        '}',
        '%7d',
        'a b',
        '__proto__',
        'constructor',
        ':',
        '1:2',
        '\ud83c\udf0a',
        '',
      ]
      for (const name of names)
        await one.admit(entry(name || 'x', `owner:${name}`), ask(names.indexOf(name)), noLimits)
      for (const [n, name] of names.entries())
        expect((await two.usage(`owner:${name}`, now)).unfinishedBytes).toBe(n)
      const seen: string[] = []
      for await (const { id } of two.entries()) seen.push(id)
      expect(seen.toSorted()).toEqual(names.map((name) => name || 'x').toSorted())
    })

    it('may lose everything, and is what is said of uploads again', async () => {
      await one.admit(entry('a'), ask(5), noLimits)
      await under.lose()
      expect(await two.usage('owner:me', now)).toEqual(nothingUsed)
      await two.settle(entry('a'), { is: 'open', bytes: 5, lookAt })
      await two.settle(entry('b'), { is: 'finished', bytes: 7 })
      expect(await one.usage('owner:me', now)).toMatchObject({
        openUploads: 1,
        unfinishedBytes: 5,
        totalBytes: 12,
      })
    })

    it('when it cannot be reached every method fails with `unavailable` and nothing hangs', async () => {
      await one.admit(entry('a'), ask(5), noLimits)
      await under.cutOff()
      const run = { account: 'owner:me', id: 'a', token: 'a' }
      const calls = [
        () => one.admit(entry('a'), ask(5), noLimits),
        () => one.grow(entry('a'), { least: 1, wanted: 2, lookAt }, noLimits),
        () => one.settle(entry('a'), { is: 'gone' }),
        () => one.begin(run, { now, until: now + 1 }, 1),
        () => one.renew([run], now),
        () => one.end(run),
        () => one.due(now, 1),
        () => one.entries()[Symbol.asyncIterator]().next(),
        () => one.usage('owner:me', now),
      ]
      for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'unavailable' })
    })
  })
}
