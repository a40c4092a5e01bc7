/**
 * The contract of `RecordStore`, sentence by sentence, for every implementation.
 */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { ListQuery, RecordNews, RecordStore, UploadHead, UploadRecord } from '../../stores/contracts.ts'

export interface RecordsUnderTest {
  /** Two servers that share the records; the same one twice where they live in one process. */
  readonly servers: readonly [RecordStore, RecordStore]
  /** What is kept anywhere, index entries included. */
  remains(): Promise<number>
  /** Makes the store unreachable, until `stop`. */
  cutOff(): Promise<void>
  stop(): Promise<void>
}

export function record(id: string, mark: Partial<UploadRecord['mark']> = {}, createdAt = 1000): UploadRecord {
  const defaults = {
    state: 'open',
    offset: 0,
    syncedOffset: 0,
    generation: 1,
    sequence: 1,
    movedAt: 1000,
  } as const
  return { head: { id, createdAt, dialect: 'tus' }, mark: { ...defaults, ...mark } }
}

function owned(
  id: string,
  owner: string | undefined,
  createdAt: number,
  more: Partial<UploadHead> = {},
  sequence = 1,
): UploadRecord {
  const { head, mark } = record(id, { sequence }, createdAt)
  return { head: { ...head, ...more, ...(owner !== undefined && { owner }) }, mark }
}

/** The ids of all pages. */
async function listed(store: RecordStore, query: ListQuery): Promise<string[]> {
  const ids: string[] = []
  let after: ListQuery['after']
  do {
    const page = await store.list({ ...query, after })
    expect(page.records.length).toBeLessThanOrEqual(query.limit)
    ids.push(...page.records.map(({ head }) => head.id))
    after = page.next
  } while (after)
  return ids
}

/** What a store tells: `u 3` for the sequence of a copy, `u removed`, `missed`. */
function watched(store: RecordStore): string[] {
  const told: string[] = []
  const stop = store.watch((news) => {
    if (news.is === 'missed') told.push('missed')
    else
      told.push(
        news.is === 'put' ? `${news.record.head.id} ${news.record.mark.sequence}` : `${news.id} removed`,
      )
  })
  onTestFinished(stop)
  return told
}

export function describeRecords(name: string, start: () => Promise<RecordsUnderTest>): void {
  describe(`${name}: the contract of RecordStore`, () => {
    let under: RecordsUnderTest
    let one: RecordStore
    let two: RecordStore

    beforeEach(async () => {
      under = await start()
      ;[one, two] = under.servers
    })
    afterEach(async () => {
      await under.stop()
    })

    it('`get` answers what the last `put` said, on every server', async () => {
      const full: UploadRecord = {
        head: {
          id: 'u',
          createdAt: 1,
          dialect: 'tus',
          metadata: 'filename d29ybGQ=,\u00e4 \ud83c\udf0a',
          concat: 'partial',
          owner: 'me',
        },
        mark: {
          state: 'finished',
          offset: 2 ** 45,
          syncedOffset: 7,
          length: 2 ** 45,
          generation: 3,
          sequence: 9,
          movedAt: 2,
        },
        storage: { type: 'file', path: '/a/b', bucket: 'c' },
      }
      await one.put(full, 5)
      expect(await two.get('u')).toEqual(full)
      await two.put(record('u', { generation: 4 }))
      expect(await one.get('u')).toEqual(record('u', { generation: 4 }))
    })

    it('`get` answers undefined for an upload that was never put', async () => {
      expect(await one.get('never')).toBeUndefined()
    })

    it('`put` never replaces a newer copy: the higher (generation, sequence) stays', async () => {
      const copy = fc.record({
        generation: fc.integer({ min: 1, max: 11 }),
        sequence: fc.integer({ min: 1, max: 11 }),
      })
      let run = 0
      await fc.assert(
        fc.asyncProperty(fc.array(copy, { minLength: 1, maxLength: 6 }), async (copies) => {
          const id = `u${run++}`
          await Promise.all(copies.map((mark, n) => under.servers[n % 2]!.put(record(id, mark), 5)))
          const newest = copies.toSorted((a, b) => b.generation - a.generation || b.sequence - a.sequence)[0]!
          expect((await one.get(id))?.mark).toMatchObject(newest)
        }),
        { numRuns: 50 },
      )
    })

    it('`put` of an older copy leaves the index entries of the newer one', async () => {
      await one.put(record('u', { sequence: 2 }), 50)
      await two.put(record('u', { sequence: 1 }))
      expect(await one.expiring(50, 10)).toEqual(['u'])
      await two.put(record('u', { sequence: 1 }), 10)
      expect(await one.expiring(49, 10)).toEqual([])
      await one.put(record('u', { sequence: 3 }))
      await two.put(record('u', { sequence: 2 }), 10)
      expect(await one.expiring(100, 10)).toEqual([])
    })

    it('`put` of the same mark again may move the expiry', async () => {
      await one.put(record('u'), 50)
      await one.put(record('u'), 70)
      expect([await one.expiring(60, 10), await one.expiring(70, 10)]).toEqual([[], ['u']])
      await one.put(record('u'))
      expect(await one.expiring(100, 10)).toEqual([])
    })

    it('`remove` takes the record and all its index entries', async () => {
      await one.put(record('u'), 5)
      await one.put(record('u', { sequence: 2 }), 6)
      await two.remove('u')
      expect([await one.get('u'), await one.expiring(100, 10), await one.recent(10)]).toEqual([
        undefined,
        [],
        [],
      ])
      expect(await under.remains()).toBe(0)
    })

    it('removing what is not there is no error', async () => {
      await one.remove('never')
      expect(await under.remains()).toBe(0)
    })

    it('`expiring` gives the ids that expire at or before `now`, soonest first', async () => {
      const times = { c: 30, a: 10, b: 20, d: 40, e: 1_900_000_000_000 }
      for (const [id, at] of Object.entries(times)) await one.put(record(id), at)
      await one.put(record('never'))
      expect(await two.expiring(9, 10)).toEqual([])
      expect(await two.expiring(30, 10)).toEqual(['a', 'b', 'c'])
      expect(await two.expiring(1_900_000_000_000, 2)).toEqual(['a', 'b'])
      expect(await two.expiring(1_900_000_000_000, 10)).toEqual(['a', 'b', 'c', 'd', 'e'])
    })

    it('`ids` gives every id that has a record', async () => {
      const ids = Array.from({ length: 250 }, (_, n) => `u${n}`)
      await Promise.all(ids.map((id, n) => one.put(record(id), n % 2 ? 5 : undefined)))
      await one.remove('u7')
      const seen = new Set<string>()
      for await (const id of two.ids()) seen.add(id)
      expect([...seen].sort()).toEqual(ids.filter((id) => id !== 'u7').sort())
    })

    it('`withDigest` gives finished uploads with this digest, no parts, the newest first', async () => {
      const digest = { algorithm: 'sha-256', base64: Buffer.alloc(32, 1).toString('base64') } as const
      const other = { ...digest, base64: Buffer.alloc(32, 2).toString('base64') }
      const put = (id: string, createdAt: number, head: Partial<UploadRecord['head']> = {}, mark = {}) => {
        const made = record(id, { state: 'finished', digest, ...mark }, createdAt)
        return one.put({ ...made, head: { ...made.head, ...head } })
      }
      await put('b', 20, { owner: 'ann' })
      await put('c', 1_800_000_000_000, { owner: 'bob' })
      await put('a', 10)
      await put('final', 5, { concat: 'final;a b', parts: ['a', 'b'], owner: 'o'.repeat(3000) })
      await put('part', 30, { concat: 'partial' })
      await put('open', 40, {}, { state: 'open' })
      await put('other', 50, {}, { digest: other })
      expect(await two.withDigest(digest, 10)).toEqual(['c', 'b', 'a', 'final'])
      expect(await two.withDigest(digest, 2)).toEqual(['c', 'b'])
      expect(await two.withDigest(digest, 10, 'ann')).toEqual(['b'])
      expect(await two.withDigest(digest, 10, 'o'.repeat(3000))).toEqual(['final'])
      expect(await two.withDigest(digest, 10, 'nobody')).toEqual([])
      expect(await two.withDigest({ ...digest, algorithm: 'sha-512' }, 10)).toEqual([])
    })

    it('`put` and `remove` keep the index of digests as the newest copy says', async () => {
      const digest = { algorithm: 'sha-256', base64: Buffer.alloc(32, 1).toString('base64') } as const
      const withOwner = ({ head, mark }: UploadRecord) => ({ head: { ...head, owner: 'ann' }, mark })
      await one.put(record('u'), 5)
      await one.put(withOwner(record('u', { state: 'finished', sequence: 3, digest })))
      await one.put(withOwner(record('u', { state: 'finished', sequence: 3, digest })))
      await one.put(withOwner(record('u', { sequence: 2 })), 5)
      expect(await two.withDigest(digest, 10, 'ann')).toEqual(['u'])
      await two.remove('u')
      expect(await one.withDigest(digest, 10)).toEqual([])
      expect(await under.remains()).toBe(0)
    })

    it('`recent` gives the newest creations first', async () => {
      for (const [id, createdAt] of [
        ['b', 20],
        ['c', 1_800_000_000_000],
        ['a', 10],
      ] as const) {
        await one.put(record(id, {}, createdAt))
      }
      await one.put(record('a', { sequence: 2 }, 10))
      expect((await two.recent(10)).map(({ head }) => head.id)).toEqual(['c', 'b', 'a'])
      expect((await two.recent(2)).map(({ head }) => head.id)).toEqual(['c', 'b'])
      expect((await two.recent(10)).at(-1)?.mark.sequence).toBe(2)
    })

    it('`list` gives the newest creations first, page by page, of one owner or of all', async () => {
      const own = (id: string, owner: string | undefined, createdAt: number, head = {}) =>
        one.put(owned(id, owner, createdAt, head), createdAt % 2 ? 5 : undefined)
      // Several of one moment, on both sides of a page's end.
      for (let n = 0; n < 7; n++) await own(`m${n}`, 'me', 50 + Math.floor(n / 3))
      for (let n = 0; n < 3; n++) await own(`y${n}`, n === 1 ? 'you:{x}*' : 'me', 10 + n)
      await own('nobody', undefined, 70)
      await two.put(owned('m0', 'me', 50, {}, 2))
      const mine = ['m6', 'm5', 'm4', 'm3', 'm2', 'm1', 'm0', 'y2', 'y0']
      for (const limit of [1, 2, 3, 4, 9, 50]) expect(await listed(two, { owner: 'me', limit })).toEqual(mine)
      expect(await listed(one, { owner: 'you:{x}*', limit: 2 })).toEqual(['y1'])
      expect(await listed(one, { owner: 'm', limit: 2 })).toEqual([])
      expect(await listed(one, { limit: 3 })).toEqual(['nobody', ...mine.slice(0, 8), 'y1', 'y0'])
      expect((await one.list({ owner: 'me', limit: 9 })).records.at(6)?.mark.sequence).toBe(2)
    })

    it('`list` shows no parts: they are shown with their final', async () => {
      for (const n of [1, 2, 3]) await one.put(owned(`part${n}`, 'me', n, { concat: 'partial' }))
      await one.put(owned('final', 'me', 4, { concat: 'final;', parts: ['part1', 'part2'] }))
      expect(await listed(two, { owner: 'me', limit: 2 })).toEqual(['final'])
      expect(await listed(two, { limit: 2 })).toEqual(['final'])
    })

    it('`remove` takes what is owned out of the list, however long its owner is called', async () => {
      for (const owner of ['me', '\u00e4'.repeat(5000), '']) {
        await one.put(owned('u', owner, 1), 5)
        expect(await listed(two, { owner, limit: 2 })).toEqual(['u'])
        await two.remove('u')
        expect(await listed(one, { owner, limit: 2 })).toEqual([])
        expect(await under.remains()).toBe(0)
      }
    })

    it('`watch` tells of what is put or removed afterwards, on every server, and of each upload in order', async () => {
      await one.put(record('before'))
      const [here, there] = [watched(one), watched(two)]
      // Who watches may be known elsewhere a moment later; then it is told to look again.
      if (one !== two) await vi.waitFor(() => expect(there).toContain('missed'), { timeout: 10_000 })
      here.length = there.length = 0
      for (let sequence = 1; sequence <= 3; sequence++) await one.put(record('u', { sequence }))
      await vi.waitFor(() => expect(there.at(-1)).toBe('u 3'))
      await one.remove('u')
      await vi.waitFor(() => expect(there.at(-1)).toBe('u removed'))
      expect(here).toEqual(['u 1', 'u 2', 'u 3', 'u removed'])
      expect(there.filter((news) => news !== 'missed' && !here.includes(news))).toEqual([])
    })

    it('tells nobody who has stopped watching', async () => {
      const news: RecordNews[] = []
      const stop = one.watch((one) => news.push(one))
      await one.put(record('u'))
      stop()
      stop()
      await one.put(record('u', { sequence: 2 }))
      expect(news.filter(({ is }) => is === 'put')).toHaveLength(1)
    })

    it('`lastWalk` answers what the last `noteWalk` said, on every server', async () => {
      expect(await one.lastWalk()).toBe(undefined)
      // A Cluster is known once all of its primaries were met.
      await expect.poll(() => two.epoch === one.epoch && two.epoch).toBeTypeOf('string')
      await one.noteWalk({ at: 1_800_000_000_000, epoch: one.epoch })
      expect(await two.lastWalk()).toEqual({ at: 1_800_000_000_000, epoch: one.epoch })
      await two.noteWalk({ at: 7, epoch: 'another' })
      expect(await one.lastWalk()).toEqual({ at: 7, epoch: 'another' })
    })

    it('keeps apart what has awkward names', async () => {
      const ids = ['{a}', '{a}b', '}', '%7d', 'a b', '__proto__', 'constructor', '..']
      for (const [n, id] of ids.entries()) await one.put(record(id, { offset: n }), 5)
      for (const [n, id] of ids.entries()) expect((await two.get(id))?.mark.offset).toBe(n)
      expect((await one.expiring(5, 100)).toSorted()).toEqual(ids.toSorted())
      for (const id of ids) await one.remove(id)
      expect(await under.remains()).toBe(0)
    })

    it('when it cannot be reached every method fails with `unavailable` and nothing hangs', async () => {
      await one.put(record('u'), 5)
      await one.check()
      await under.cutOff()
      const calls = [
        () => one.put(record('u'), 5),
        () => one.get('u'),
        () => one.remove('u'),
        () => one.expiring(1, 1),
        () => one.recent(1),
        () => one.withDigest({ algorithm: 'sha-256', base64: '' }, 1),
        () => one.list({ limit: 1 }),
        () => one.list({ owner: 'me', limit: 1 }),
        () => one.lastWalk(),
        () => one.noteWalk({ at: 1, epoch: 'a' }),
        () => one.ids()[Symbol.asyncIterator]().next(),
        () => one.check(),
      ]
      for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'unavailable' })
    })
  })
}
