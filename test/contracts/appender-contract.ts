/**
 * The contract of `Appender`, sentence by sentence, for every implementation.
 */
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Appender, ByteStore } from '../../stores/contracts.ts'
import { type ByteStoreUnderTest, type Exceptions, promised } from './byte-store-contract.ts'
import { codeOf, headOf, randomBytes } from './byte-store-values.ts'

export function describeAppender(
  name: string,
  start: () => Promise<ByteStoreUnderTest>,
  exceptions: Exceptions = {},
): void {
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
    const made = async () => {
      const plain = await store.create(headOf('plain'), 0)
      const record = await plain.finish(0)
      await plain.close()
      return record
    }
    /** Where the mark is while nothing was committed. */
    const unmoved = exceptions.uncommitted ? {} : { offset: 0 }

    promised(exceptions, 'free-position')(
      '`write` puts bytes at an explicit position; they do not count until `commit` says so',
      async () => {
        await appender.write([Buffer.from('def')], 3)
        await appender.write([Buffer.from('abc')], 0)
        expect((await marked()).offset).toBe(0)
        const record = await appender.commit({ offset: 6 })
        expect(String(await buffer(await other.read(record, 0, 6)))).toBe('abcdef')
      },
    )

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

    it('a last `commit` may leave out the last byte that was written; it is written again', async () => {
      const short = await store.create(headOf('short'), 4)
      await short.write([Buffer.from('ab'), Buffer.from('cX')], 0)
      expect((await short.commit({ offset: 3, length: 4, last: true })).mark).toMatchObject({
        offset: 3,
        state: 'open',
      })
      await short.close()
      expect((await other.look('short'))!.mark).toMatchObject({ offset: 3, state: 'open' })
      const again = (await other.open('short'))!
      await again.write([Buffer.from('d')], 3)
      const record = await again.finish(4)
      await again.close()
      expect(String(await buffer(await other.read(record, 0, 4)))).toBe('abcd')
    })

    promised(exceptions, 'read-back')(
      '`read` gives bytes that were written, also those that do not count yet',
      async () => {
        const content = randomBytes(2_500_000)
        const large = await store.create(headOf('large'), undefined)
        await large.write([content], 0)
        const chunks: Uint8Array[] = []
        for await (const chunk of large.read(7, content.length)) chunks.push(Uint8Array.from(chunk))
        expect(Buffer.concat(chunks).equals(content.subarray(7))).toBe(true)
        await large.close()
      },
    )

    promised(
      exceptions,
      'free-position',
      'checkpoints',
    )('`commit` moves the mark to bytes that were written, before it returns', async () => {
      let sequence = (await marked()).sequence
      for (const offset of [1, 2, 50, 99]) {
        await appender.write([Buffer.alloc(offset)], 0)
        const record = await appender.commit({ offset })
        expect(await other.look('a')).toEqual(record)
        expect(record).toEqual(appender.record)
        expect(record.mark.offset).toBe(offset)
        expect(record.mark.sequence).toBeGreaterThan(sequence)
        expect(record.mark.movedAt).toBeGreaterThan(Date.now() - 60_000)
        sequence = record.mark.sequence
      }
    })

    it('`commit` fixes the length when one is given', async () => {
      const unknown = await store.create(headOf('unknown'), undefined)
      expect((await unknown.commit({ offset: 0, length: 7 })).mark.length).toBe(7)
      await unknown.write([Buffer.alloc(3)], 0)
      expect((await unknown.commit({ offset: 3, last: true })).mark).toMatchObject({ offset: 3, length: 7 })
      await unknown.close()
      expect((await other.look('unknown'))!.mark.length).toBe(7)
    })

    it('the mark reaches the length only by `finish`', async () => {
      await appender.write([Buffer.alloc(100)], 0)
      await expect(appender.commit({ offset: 100 })).rejects.toThrow(RangeError)
      await expect(appender.commit({ offset: 5, length: 5 })).rejects.toThrow(RangeError)
      await expect(appender.finish(99)).rejects.toThrow(RangeError)
      expect(await marked()).toMatchObject({ ...unmoved, state: 'open' })
      expect((await appender.finish(100)).mark).toMatchObject({ offset: 100, length: 100, state: 'finished' })
    })

    it('the mark never goes back', async () => {
      await appender.write([Buffer.alloc(10)], 0)
      await appender.commit({ offset: 10, last: true })
      await expect(appender.commit({ offset: 9 })).rejects.toThrow(RangeError)
      expect((await marked()).offset).toBe(10)
    })

    promised(exceptions, 'uncommitted')('a mark that was not committed stays where it was', async () => {
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
      expect(await marked()).toMatchObject({ ...unmoved, state: 'open' })
    })

    promised(exceptions, 'whole-head')(
      'the mark says what the bytes hash to; an upload that declares a digest finishes with no other',
      async () => {
        const digest = { algorithm: 'sha-256', base64: Buffer.alloc(32, 7).toString('base64') } as const
        const long = { algorithm: 'sha-512', base64: Buffer.alloc(64, 8).toString('base64') } as const
        const declared = await store.create(headOf('declared', { digest }), 3)
        await declared.write([Buffer.from('abc')], 0)
        await expect(declared.finish(3)).rejects.toThrow(RangeError)
        await expect(declared.finish(3, { ...digest, base64: long.base64 })).rejects.toThrow(RangeError)
        expect((await other.look('declared'))!.mark.state).toBe('open')
        expect((await declared.finish(3, digest)).mark).toMatchObject({ state: 'finished', digest })
        await declared.close()
        expect(await other.look('declared')).toMatchObject({ head: { digest }, mark: { digest } })
        await appender.write([Buffer.alloc(100)], 0)
        await appender.finish(100, long)
        expect((await marked()).digest).toEqual(long)
        expect((await made()).mark).not.toHaveProperty('digest')
      },
    )

    promised(exceptions, 'whole-head')(
      '`fail` seals the upload as failed: it is never finished, and its bytes are given up',
      async () => {
        await appender.write([Buffer.alloc(50)], 0)
        await appender.commit({ offset: 50 })
        const record = await appender.fail()
        await appender.close()
        expect(record.mark.state).toBe('failed')
        expect(await other.look('a')).toEqual(record)
        expect(await other.open('a')).toBeUndefined()
        expect(await codeOf(other.read(record, 0, 1))).toBe('damaged')
        expect(await other.remove('a')).toBe(true)
        expect(await under.remains()).toEqual([])
      },
    )

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
      expect(again.record.mark).toMatchObject({ ...unmoved, generation: 0 })
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
