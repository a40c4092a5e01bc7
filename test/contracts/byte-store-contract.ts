/**
 * The contract of `ByteStore` and `Appender`, sentence by sentence, for every implementation.
 */
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Appender, ByteStore, StoreError, UploadHead, UploadRecord } from '../../stores/contracts.ts'

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

export function describeByteStore(name: string, start: () => Promise<ByteStoreUnderTest>): void {
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
      const head = headOf('a', { metadata: 'name d29ybGQ=,empty', concat: 'partial', owner: 'somebody' })
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

    it('`create` is exclusive: of two creations of one id exactly one succeeds, the other fails with `exists`', async () => {
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
    })

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

    it('a creation that failed or was cut off leaves nothing that `look` would find', async () => {
      const ids = await under.cutOffCreations()
      expect(ids.length).toBeGreaterThan(1)
      for (const id of ids) expect(await other.look(id)).toBeUndefined()
      expect(await idsOf(other.walk())).toEqual([])
      await store.sweepOrphans(-1)
      await store.sweepOrphans(-1)
      expect(await under.remains()).toEqual([])
    })

    it('`look` needs no lock and answers undefined for an upload that never was, or is gone', async () => {
      expect(await store.look('never')).toBeUndefined()
      const appender = await store.create(headOf('a'), 3)
      expect(await other.look('a')).toBeDefined()
      await appender.close()
      await store.remove('a')
      expect(await other.look('a')).toBeUndefined()
    })

    it('once `remove` has begun, `look` never again shows the upload as open or finished', async () => {
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
    })

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

    it('what an earlier writer may still write late is never read, acknowledged or finished', async () => {
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
    })

    it('after another writer took over, `commit` and `finish` fail with `superseded`, and nothing was acknowledged', async () => {
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
    })

    it('a writer under which the upload was removed is superseded', async () => {
      const appender = await store.create(headOf('a'), 4)
      expect(await other.remove('a')).toBe(true)
      await appender.write([Buffer.from('abcd')], 0)
      expect(await codeOf(appender.commit({ offset: 2 }))).toBe('superseded')
      expect(await codeOf(appender.finish(4))).toBe('superseded')
      await appender.close()
      expect(await other.look('a')).toBeUndefined()
      expect(await under.remains()).toEqual([])
    })

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
      expect((await silent.commit({ offset: 1 })).mark.offset).toBe(1)
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

    it('`walk` gives every upload that is there', async () => {
      const expected = ['deep/er/a', 'finished', 'open', 'with.dots.1.data']
      await made('gone', Buffer.from('a'), 2)
      for (const id of expected) await made(id, Buffer.from('a'), id === 'finished' ? 1 : 2)
      await store.remove('gone')
      expect(await idsOf(other.walk())).toEqual(expected)
      for await (const record of other.walk()) expect(record).toEqual(await store.look(record.head.id))
    })

    it('`sweepOrphans` removes nothing of an upload that is there, and nothing that is young', async () => {
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

  describe(`${name}: the contract of Appender`, () => {
    let under: ByteStoreUnderTest
    let store: ByteStore
    let other: ByteStore
    let appender: Appender

    beforeEach(async () => {
      under = await start()
      ;({ store, other } = under)
      appender = await store.create(headOf('a'), 100)
    })
    afterEach(async () => {
      await appender.close()
      await under.stop()
    })
    const marked = async () => (await other.look('a'))!.mark

    it('`write` puts bytes at an explicit position; they do not count until `commit` says so', async () => {
      await appender.write([Buffer.from('def')], 3)
      await appender.write([Buffer.from('abc')], 0)
      expect((await marked()).offset).toBe(0)
      const record = await appender.commit({ offset: 6 })
      expect(String(await buffer(await other.read(record, 0, 6)))).toBe('abcdef')
    })

    it('`write` writes all of `buffers`, in order, at `position`', async () => {
      const long = await store.create(headOf('long'), undefined)
      const buffers = Array.from({ length: 3000 }, (_, n) => randomBytes(n % 700))
      await long.write([], 0)
      await long.write([Buffer.alloc(0), new Uint8Array()], 0)
      await long.write(buffers, 0)
      const whole = Buffer.concat(buffers)
      await long.finish(whole.length)
      await long.close()
      const record = (await other.look('long'))!
      expect((await buffer(await other.read(record, 0, whole.length))).equals(whole)).toBe(true)
    })

    it('`commit` moves the mark to bytes that were written, before it returns', async () => {
      let sequence = (await marked()).sequence
      for (const offset of [1, 2, 50, 99]) {
        await appender.write([Buffer.alloc(offset)], 0)
        const record = await appender.commit({ offset })
        expect(await other.look('a')).toEqual(record)
        expect(record).toEqual(appender.record)
        expect(record.mark.offset).toBe(offset)
        expect(record.mark.sequence).toBeGreaterThan(sequence)
        expect(record.mark.writtenAt).toBeGreaterThan(Date.now() - 60_000)
        sequence = record.mark.sequence
      }
    })

    it('`commit` fixes the length when one is given', async () => {
      const unknown = await store.create(headOf('unknown'), undefined)
      expect((await unknown.commit({ offset: 0, length: 7 })).mark.length).toBe(7)
      await unknown.write([Buffer.alloc(3)], 0)
      expect((await unknown.commit({ offset: 3 })).mark).toMatchObject({ offset: 3, length: 7 })
      await unknown.close()
      expect((await other.look('unknown'))!.mark.length).toBe(7)
    })

    it('the mark reaches the length only by `finish`', async () => {
      await appender.write([Buffer.alloc(100)], 0)
      await expect(appender.commit({ offset: 100 })).rejects.toThrow(RangeError)
      await expect(appender.commit({ offset: 5, length: 5 })).rejects.toThrow(RangeError)
      await expect(appender.finish(99)).rejects.toThrow(RangeError)
      expect(await marked()).toMatchObject({ offset: 0, state: 'open' })
      expect((await appender.finish(100)).mark).toMatchObject({ offset: 100, length: 100, state: 'finished' })
    })

    it('the mark never goes back', async () => {
      await appender.write([Buffer.alloc(10)], 0)
      await appender.commit({ offset: 10 })
      await expect(appender.commit({ offset: 9 })).rejects.toThrow(RangeError)
      expect((await marked()).offset).toBe(10)
    })

    it('a mark that was not committed stays where it was', async () => {
      await appender.write([Buffer.from('abcdef')], 0)
      await appender.commit({ offset: 3 })
      await appender.write([Buffer.from('gone')], 3)
      await appender.close()
      expect((await marked()).offset).toBe(3)
      appender = (await other.open('a'))!
      expect(appender.record.mark.offset).toBe(3)
      await appender.write([Buffer.alloc(97, 'z')], 3)
      const record = await appender.finish(100)
      expect(String(await buffer(await other.read(record, 0, 6)))).toBe('abczzz')
    })

    it('`finish` seals the upload: no more and no fewer bytes than its length', async () => {
      await appender.write([Buffer.alloc(120, 'x')], 0)
      const record = await appender.finish(100)
      await appender.close()
      expect(await other.look('a')).toEqual(record)
      expect(await other.open('a')).toBeUndefined()
      expect(await codeOf(other.read(record, 0, 101))).toBe('damaged')
      expect((await buffer(await other.read(record, 0, 100))).length).toBe(100)
    })

    it('`finish` fails with `damaged`, and the upload stays open, when there are fewer bytes', async () => {
      await appender.write([Buffer.alloc(99)], 0)
      expect(await codeOf(appender.finish(100))).toBe('damaged')
      expect(await marked()).toMatchObject({ state: 'open', offset: 0 })
    })

    it('an upload of no bytes can be finished', async () => {
      const empty = await store.create(headOf('empty'), 0)
      expect((await empty.finish(0)).mark).toMatchObject({ state: 'finished', offset: 0, length: 0 })
      await empty.close()
      expect((await other.look('empty'))!.mark.state).toBe('finished')
    })

    it('`close` waits for the last write to return; only then may the lock be given up', async () => {
      const content = randomBytes(4 << 20)
      let returned = 0
      const half = content.length / 2
      const writes = [0, half].map((at) =>
        appender.write([content.subarray(at, at + half)], at).then(() => {
          returned += 1
        }),
      )
      await Promise.all([appender.close(), appender.close()])
      expect(returned).toBe(2)
      await Promise.all(writes)
      const again = (await other.open('a'))!
      expect(again.record.mark).toMatchObject({ offset: 0, generation: 0 })
      await again.close()
    })

    it('a writer that let go is followed in the same files, on every server', async () => {
      for (let turn = 0; turn < 5; turn++) {
        await appender.write([Buffer.from(`${turn}`)], turn)
        const last = turn % 2 === 0
        await appender.commit({ offset: turn + 1, last })
        await appender.close()
        appender = (await (turn % 2 ? store : other).open('a'))!
        expect(appender.record.mark).toMatchObject({ offset: turn + 1, generation: 0 })
        expect(appender.rewound).toBeUndefined()
      }
    })

    it('nothing remains when all uploads are removed', async () => {
      await appender.write([Buffer.alloc(10)], 0)
      const next = (await other.open('a'))!
      await appender.close()
      await next.close()
      expect(await other.remove('a')).toBe(true)
      expect(await under.remains()).toEqual([])
    })
  })
}

export function headOf(id: string, more: Partial<UploadHead> = {}): UploadHead {
  return { id, createdAt: 1_700_000_000_123, dialect: 'tus', ...more }
}

/** The code with which it failed; undefined when it did not. */
export async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    return (error as StoreError).code
  }
}

/** Bytes that differ everywhere, the same in every run. */
export function randomBytes(length: number, seed = 1): Buffer {
  const out = Buffer.alloc(length)
  let state = (seed * 2654435761) >>> 0 || 1
  for (let at = 0; at < length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    out[at] = state
  }
  return out
}

async function idsOf(walk: AsyncIterable<UploadRecord>): Promise<string[]> {
  const ids: string[] = []
  for await (const { head } of walk) ids.push(head.id)
  return ids.sort()
}
