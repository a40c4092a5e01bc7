/**
 * The contract of `Concatenation`, sentence by sentence, for every store that can make one upload of several.
 */
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Concatenation, UploadRecord } from '../../stores/contracts.ts'
import type { ByteStoreUnderTest } from './byte-store-contract.ts'
import { codeOf, headOf, randomBytes } from './byte-store-values.ts'

const key = 'k'.repeat(64)
const never = new AbortController().signal
const nobody = async () => false

export function describeConcatenation(name: string, start: () => Promise<ByteStoreUnderTest>): void {
  describe(`${name}: the contract of Concatenation`, () => {
    let under: ByteStoreUnderTest
    let here: Concatenation
    let there: Concatenation

    beforeEach(async () => {
      under = await start()
      here = under.store.concatenation!
      there = under.other.concatenation!
    })
    afterEach(async () => {
      await under.stop()
    })

    const part = async (id: string, content: Buffer = Buffer.from(id)): Promise<UploadRecord> => {
      const appender = await under.store.create(headOf(id, { concat: 'partial' }), content.length)
      if (content.length > 0) await appender.write([content], 0)
      const record = await appender.finish(content.length)
      await appender.close()
      return record
    }
    const contentOf = async (id: string) => {
      const record = (await under.other.look(id))!
      return buffer(await under.other.read(record, 0, record.mark.offset))
    }

    it('`tie` is exclusive: one part has one tie of a key', async () => {
      await part('a')
      const tied = await Promise.all(
        Array.from({ length: 20 }, (_, n) => (n % 2 ? here : there).tie('a', key, `final${n}`)),
      )
      expect(tied.filter((each) => each === 'tied')).toHaveLength(1)
      const winner = (await there.tiedTo('a', key))!
      for (const each of tied) if (each !== 'tied') expect(each).toEqual({ takenBy: winner })
      expect(await here.tie('a', key, winner)).toBe('tied')
    })

    it('a part knows every final that is tied to it, on every server', async () => {
      await part('a')
      expect(await there.finalsOf('a')).toEqual([])
      expect(await there.tiedTo('a', key)).toBeUndefined()
      for (const final of ['one', 'folder/two']) await here.tie('a', `${key}${final.length}`, final)
      expect((await there.finalsOf('a')).sort()).toEqual(['folder/two', 'one'])
    })

    it('`untie` takes the tie away when it is this final’s', async () => {
      await part('a')
      await here.tie('a', key, 'one')
      await there.untie('a', key, 'two')
      expect(await here.finalsOf('a')).toEqual(['one'])
      await there.untie('a', key, 'one')
      await there.untie('a', key, 'one')
      expect(await here.finalsOf('a')).toEqual([])
    })

    it('a sealed part takes no more ties', async () => {
      await part('a')
      expect(await here.seal('a', nobody)).toBe(true)
      expect(await there.seal('a', nobody)).toBe(true)
      expect(await there.tie('a', key, 'one')).toBe('sealed')
      expect(await here.finalsOf('a')).toEqual([])
    })

    it('`seal` answers false while `isNeeded` says so of a tied final', async () => {
      await part('a')
      await here.tie('a', key, 'one')
      expect(await there.seal('a', async (final) => final === 'one')).toBe(false)
      expect(await here.finalsOf('a')).toEqual(['one'])
      expect(await here.tie('a', `${key}2`, 'two')).toBe('tied')
      expect(await there.seal('a', nobody)).toBe(true)
    })

    it('of a `tie` and a `seal` that run at the same time one fails', async () => {
      for (let round = 0; round < 50; round++) {
        const id = `a${round}`
        await part(id)
        if (round % 2) await here.tie(id, key, 'old')
        const isNeeded = async (final: string) => final === 'new'
        const [tied, sealed] = await Promise.all([here.tie(id, `${key}2`, 'new'), there.seal(id, isNeeded)])
        expect([tied === 'tied', sealed]).toEqual(sealed ? [false, true] : [true, false])
      }
    })

    it('ties go with their part', async () => {
      for (const id of ['a', 'b']) {
        await part(id)
        await here.tie(id, key, 'one')
      }
      expect(await here.seal('a', nobody)).toBe(true)
      for (const id of ['a', 'b']) expect(await here.tie(id, key, 'one')).toBe(id === 'a' ? 'sealed' : 'tied')
      for (const id of ['a', 'b']) expect(await under.other.remove(id)).toBe(true)
      expect(await under.remains()).toEqual([])
      expect(await here.finalsOf('b')).toEqual([])
    })

    it('`assemble` writes the bytes of the parts one after the other, never changes a part, and finishes nothing', async () => {
      const contents = [
        randomBytes(3_000_001, 1),
        Buffer.alloc(0),
        randomBytes(5, 2),
        randomBytes(1024 * 1024, 3),
      ]
      const parts = await Promise.all(contents.map((content, index) => part(`p${index}`, content)))
      const order = [0, 1, 2, 3, 0]
      const final = await under.store.create(headOf('f'), undefined)
      await here.assemble(
        final,
        order.map((index) => parts[index]!),
        never,
      )
      const expected = Buffer.concat(order.map((index) => contents[index]!))
      expect(await under.other.look('f')).toMatchObject({ mark: { state: 'open', offset: 0 } })
      await final.finish(expected.length)
      await final.close()
      expect((await contentOf('f')).equals(expected)).toBe(true)
      for (const index of [0, 1, 2, 3])
        expect((await contentOf(`p${index}`)).equals(contents[index]!)).toBe(true)
    })

    it('an assembly that was cut off goes on from the mark', async () => {
      const parts = [await part('a', Buffer.from('abc')), await part('b', Buffer.from('def'))]
      const first = await under.store.create(headOf('f'), 6)
      await first.write([Buffer.from('abXX')], 0)
      await first.commit({ offset: 2 })
      await first.close()
      const next = (await under.store.open('f'))!
      await here.assemble(next, parts, never)
      await next.finish(6)
      await next.close()
      expect((await contentOf('f')).toString()).toBe('abcdef')
    })

    it('`assemble` fails with the reason of `signal` when that aborts', async () => {
      const parts = [await part('a', Buffer.from('abc'))]
      const final = await under.store.create(headOf('f'), 3)
      const stop = AbortSignal.abort(new Error('enough'))
      await expect(here.assemble(final, parts, stop)).rejects.toThrow('enough')
      await final.close()
    })

    it('`assemble` fails with `damaged` when a part holds less than its mark says', async () => {
      const whole = await part('a', Buffer.from('abc'))
      const final = await under.store.create(headOf('f'), 5)
      const parts = [{ ...whole, mark: { ...whole.mark, offset: 5 } }]
      expect(await codeOf(here.assemble(final, parts, never))).toBe('damaged')
      await final.close()
    })
  })
}
