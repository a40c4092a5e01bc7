/**
 * The contract of `ByteStore`, sentence by sentence, for every implementation.
 */
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { ByteStore, StoreError, UploadRecord } from '../../stores/contracts.ts'
import type { NotPromised } from '../../stores/tus/data-store-bytes.ts'
import { codeOf, headOf, randomBytes } from './byte-store-values.ts'

export interface ByteStoreUnderTest {
  readonly store: ByteStore
  /** Another server's store on the same storage; the same one where only one process may use it. */
  readonly other: ByteStore
  /** Leaves what creations leave that were cut off after every one of their steps; gives the ids. */
  cutOffCreations(): Promise<string[]>
  /** Leaves what removals of this upload leave that were cut off after every one of their steps, calling `look` after each. */
  cutOffRemovals(id: string, look: () => Promise<void>): Promise<void>
  /** What is left behind: files, objects, open uploads. */
  remains(): Promise<string[]>
  stop(): Promise<void>
}

/** What a store says that it does not promise, with the reason. Tidemark's own stores promise everything. */
export type Exceptions = Partial<Record<NotPromised, string>>

/** `it` for a sentence that only stores without these exceptions promise; for the others the report says why not. */
export function promised(exceptions: Exceptions, ...needs: NotPromised[]) {
  const missing = needs.filter((need) => exceptions[need] !== undefined)
  if (missing.length === 0) return it
  return (sentence: string, _: () => Promise<void>) =>
    it(`(not promised, ${missing.join(', ')}: ${exceptions[missing[0]!]}) ${sentence}`, () => {
      for (const need of missing) expect(exceptions[need]).toMatch(/\w.*\.$/)
    })
}

export function describeByteStore(
  name: string,
  start: () => Promise<ByteStoreUnderTest>,
  exceptions: Exceptions = {},
): void {
  describe(`${name}: the contract of ByteStore`, () => {
    let under: ByteStoreUnderTest
    let store: ByteStore
    let other: ByteStore

    beforeEach(async () => {
      under = await start()
      ;({ store, other } = under)
    })
    afterEach(async () => {
      await under.stop()
    })

    const made = async (id: string, content: Buffer, length = content.length) => {
      const appender = await store.create(headOf(id), length)
      await appender.write([content], 0)
      if (length === content.length) await appender.finish(length)
      else await appender.commit({ offset: content.length, last: true })
      await appender.close()
    }
    const contentOf = async (id: string, from = other) => {
      const record = (await from.look(id))!
      return buffer(await from.read(record, 0, record.mark.offset))
    }

    it('`create` makes an empty upload and leaves it open for its creator to append to', async () => {
      const more = exceptions['whole-head'] ? {} : { concat: 'partial', owner: 'somebody' }
      const head = headOf('a', { metadata: 'name d29ybGQ=,empty', ...more })
      const appender = await store.create(head, 10)
      expect(appender.rewound).toBeUndefined()
      expect(await other.look('a')).toMatchObject({ head, mark: { state: 'open', offset: 0, length: 10 } })
      expect((await other.look('a'))!.head).toStrictEqual(head)
      await appender.write([Buffer.from('x')], 0)
      expect((await appender.commit({ offset: 1, last: true })).mark.offset).toBe(1)
      await appender.close()
      const unknown = await store.create(headOf('b'), undefined)
      expect((await other.look('b'))!.mark.length).toBeUndefined()
      await unknown.close()
    })

    promised(exceptions, 'exclusive-create')(
      '`create` is exclusive: of two creations of one id exactly one succeeds, the other fails with `exists`',
      async () => {
        for (const count of [2, 50]) {
          const id = `race${count}`
          const creations = Array.from({ length: count }, (_, n) =>
            (n % 2 ? store : other).create(headOf(id), n + 1),
          )
          const results = await Promise.allSettled(creations)
          const won = results.filter((result) => result.status === 'fulfilled')
          expect(won).toHaveLength(1)
          for (const result of results)
            if (result.status === 'rejected') expect((result.reason as StoreError).code).toBe('exists')
          const appender = won[0]!.value
          expect((await other.look(id))!.mark.length).toBe(appender.record.mark.length)
          await appender.write([Buffer.from('kept')], 0)
          await appender.close()
          expect(await codeOf(store.create(headOf(id), 1))).toBe('exists')
        }
      },
    )

    it('`create` fails with `bad-id` when the id can not name an upload in this store', async () => {
      for (const id of [
        '',
        '.',
        '..',
        '../up',
        'a/../b',
        '/abs',
        'a//b',
        'a/',
        '.hidden',
        'a/.b',
        'nul\0',
        'line\n',
        'back\\slash',
        '\ud800',
        'x'.repeat(2000),
      ]) {
        expect(await codeOf(store.create(headOf(id), 1)), JSON.stringify(id)).toBe('bad-id')
        expect(await store.look(id)).toBeUndefined()
        expect(await store.open(id)).toBeUndefined()
        expect(await store.remove(id)).toBe(false)
      }
      expect(await under.remains()).toEqual([])
    })

    promised(exceptions, 'clean-creation')(
      'a creation that failed or was cut off leaves nothing that `look` would find',
      async () => {
        const ids = await under.cutOffCreations()
        expect(ids.length).toBeGreaterThan(1)
        for (const id of ids) expect(await other.look(id)).toBeUndefined()
        expect(await idsOf(other.walk())).toEqual([])
        await store.sweepOrphans(-1)
        await store.sweepOrphans(-1)
        expect(await under.remains()).toEqual([])
      },
    )

    it('`look` needs no lock and answers undefined for an upload that never was, or is gone', async () => {
      expect(await store.look('never')).toBeUndefined()
      const appender = await store.create(headOf('a'), 3)
      expect(await other.look('a')).toBeDefined()
      await appender.close()
      await store.remove('a')
      expect(await other.look('a')).toBeUndefined()
    })

    promised(exceptions, 'clean-removal')(
      'once `remove` has begun, `look` never again shows the upload as open or finished',
      async () => {
        for (const [id, length] of [
          ['open', 9],
          ['finished', 3],
        ] as const) {
          await made(id, Buffer.from('abc'), length)
          await under.cutOffRemovals(id, async () => {
            const state = (await other.look(id))?.mark.state
            expect(state === undefined || state === 'terminated').toBe(true)
            expect(await other.open(id)).toBeUndefined()
          })
          expect(await other.look(id)).toBeUndefined()
        }
        expect(await under.remains()).toEqual([])
      },
    )

    it('`open` opens an unfinished upload for one writer', async () => {
      await made('a', Buffer.from('abc'), 6)
      const appender = (await other.open('a'))!
      expect(appender.record).toMatchObject({
        head: headOf('a'),
        mark: { state: 'open', offset: 3, length: 6 },
      })
      await appender.write([Buffer.from('def')], 3)
      await appender.finish(6)
      await appender.close()
      expect(String(await contentOf('a'))).toBe('abcdef')
    })

    it('`open` answers undefined when the upload is gone or sealed', async () => {
      await made('sealed', Buffer.from('abc'))
      await made('gone', Buffer.from('abc'), 6)
      await store.remove('gone')
      for (const id of ['never', 'sealed', 'gone']) expect(await other.open(id)).toBeUndefined()
    })

    promised(exceptions, 'late-writers')(
      'what an earlier writer may still write late is never read, acknowledged or finished',
      async () => {
        for (const id of ['commits', 'finishes']) {
          const late = await store.create(headOf(id), 8)
          await late.write([Buffer.from('1234')], 0)
          await late.commit({ offset: 4 })
          const next = (await other.open(id))!
          expect(next.record.mark.offset).toBe(4)
          await late.write([Buffer.from('LATE')], 4)
          if (id === 'commits') await late.write([Buffer.from('LATE')], 0)
          const attempt = id === 'commits' ? late.commit({ offset: 6 }) : late.finish(8)
          expect(await codeOf(attempt)).toBe('superseded')
          await next.write([Buffer.from('5678')], 4)
          await late.write([Buffer.from('LATELATE')], 0)
          await next.finish(8)
          await late.write([Buffer.from('LATELATE')], 0)
          expect(await codeOf(late.finish(8))).toBe('superseded')
          await Promise.all([late.close(), next.close()])
          await late.close()
          expect(String(await contentOf(id))).toBe('12345678')
          expect((await store.look(id))!.mark.generation).toBe(next.record.mark.generation)
        }
      },
    )

    promised(exceptions, 'late-writers')(
      'after another writer took over, `commit` and `finish` fail with `superseded`, and nothing was acknowledged',
      async () => {
        const first = await store.create(headOf('a'), 4)
        await first.write([Buffer.from('abcd')], 0)
        const second = (await other.open('a'))!
        const third = (await store.open('a'))!
        expect(await codeOf(first.commit({ offset: 2 }))).toBe('superseded')
        expect(await codeOf(second.finish(4))).toMatch(/superseded|damaged/)
        expect(await codeOf(second.commit({ offset: 2 }))).toBe('superseded')
        expect((await store.look('a'))!.mark).toMatchObject({ state: 'open', offset: 0 })
        await Promise.all([first, second, third].map((appender) => appender.close()))
        const fourth = (await other.open('a'))!
        expect(fourth.record.mark.offset).toBe(0)
        await fourth.close()
      },
    )

    promised(exceptions, 'late-writers')(
      'a writer under which the upload was removed is superseded',
      async () => {
        const appender = await store.create(headOf('a'), 4)
        expect(await other.remove('a')).toBe(true)
        await appender.write([Buffer.from('abcd')], 0)
        expect(await codeOf(appender.commit({ offset: 2 }))).toBe('superseded')
        expect(await codeOf(appender.finish(4))).toBe('superseded')
        await appender.close()
        expect(await other.look('a')).toBeUndefined()
        expect(await under.remains()).toEqual([])
      },
    )

    it('`open` fails with `superseded`, having written nothing, when `isHeld` says that the lock was lost meanwhile', async () => {
      await made('released', Buffer.from('abc'), 6)
      const silent = await store.create(headOf('silent'), 6)
      for (const id of ['released', 'silent']) {
        const before = await store.look(id)
        const files = await under.remains()
        expect(await codeOf(other.open(id, () => false))).toBe('superseded')
        expect(await store.look(id)).toEqual(before)
        expect(await under.remains()).toEqual(files)
      }
      await silent.write([Buffer.from('x')], 0)
      expect((await silent.commit({ offset: 1, last: true })).mark.offset).toBe(1)
      await silent.close()
    })

    it('`remove` removes upload and bytes; false when it was not there', async () => {
      await made('open', Buffer.from('abc'), 6)
      await made('finished', Buffer.from('abc'))
      await made('in/a/folder', Buffer.from('abc'))
      for (const id of ['open', 'finished', 'in/a/folder']) {
        expect(await other.remove(id)).toBe(true)
        expect(await other.remove(id)).toBe(false)
      }
      expect(await store.remove('never')).toBe(false)
      expect(await under.remains()).toEqual([])
      await made('open', Buffer.from('again'), 9)
      expect(String(await contentOf('open'))).toBe('again')
    })

    it('`remove` fails with `superseded` when `isHeld` says that the lock was lost', async () => {
      await made('open', Buffer.from('abc'), 6)
      await made('finished', Buffer.from('abc'))
      for (const id of ['open', 'finished']) {
        expect(await codeOf(other.remove(id, () => false))).toBe('superseded')
        expect(String(await contentOf(id))).toBe('abc')
      }
    })

    it('`read` gives the bytes [start, end) of an upload, as they were when this was called; also while it is removed meanwhile', async () => {
      const content = randomBytes(3 << 20)
      await made('a', content)
      const record = (await other.look('a'))!
      for (const [start, end] of [
        [0, 0],
        [0, 1],
        [5, 5],
        [1, 70_000],
        [content.length - 1, content.length],
        [0, content.length],
      ] as const)
        expect(
          (await buffer(await other.read(record, start, end))).equals(content.subarray(start, end)),
        ).toBe(true)
      const stream = await other.read(record, 0, content.length)
      await store.remove('a')
      expect((await buffer(stream)).equals(content)).toBe(true)
      expect(await codeOf(other.read(record, 0, 1))).toBe('io')
    })

    promised(exceptions, 'walk')('`walk` gives every upload that is there', async () => {
      const expected = ['deep/er/a', 'finished', 'open', 'with.dots.1.data']
      await made('gone', Buffer.from('a'), 2)
      for (const id of expected) await made(id, Buffer.from('a'), id === 'finished' ? 1 : 2)
      await store.remove('gone')
      expect(await idsOf(other.walk())).toEqual(expected)
      for await (const record of other.walk()) expect(record).toEqual(await store.look(record.head.id))
    })

    promised(
      exceptions,
      'walk',
      'clean-creation',
    )('`sweepOrphans` removes nothing of an upload that is there, and nothing that is young', async () => {
      await under.cutOffCreations()
      await made('a', Buffer.from('abc'), 6)
      await made('b', Buffer.from('abc'))
      const writing = await store.create(headOf('c'), 5)
      const files = await under.remains()
      expect(await other.sweepOrphans(60_000)).toBe(0)
      expect(await under.remains()).toEqual(files)
      expect(await other.sweepOrphans(-1)).toBeGreaterThan(0)
      expect(await idsOf(other.walk())).toEqual(['a', 'b', 'c'])
      expect(String(await contentOf('b'))).toBe('abc')
      await writing.close()
    })

    it('`freeBytes` says how many bytes are free for new uploads, or that the store does not know', async () => {
      const free = await store.freeBytes()
      expect(free === undefined || (Number.isFinite(free) && free >= 0)).toBe(true)
    })
  })
}

async function idsOf(walk: AsyncIterable<UploadRecord>): Promise<string[]> {
  const ids: string[] = []
  for await (const { head } of walk) ids.push(head.id)
  return ids.sort()
}
