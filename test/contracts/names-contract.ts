/**
 * The contract of `Names`, sentence by sentence, for every store that finds uploads by names.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Names } from '../../stores/contracts.ts'
import type { ByteStoreUnderTest } from './byte-store-contract.ts'
import { codeOf, headOf } from './byte-store-values.ts'

const name = 'a1'.repeat(32)
const otherName = 'b2'.repeat(32)

export function describeNames(of: string, start: () => Promise<ByteStoreUnderTest>): void {
  describe(`${of}: the contract of Names`, () => {
    let under: ByteStoreUnderTest
    let here: Names
    let there: Names

    beforeEach(async () => {
      under = await start()
      here = under.store.names!
      there = under.other.names!
    })
    afterEach(async () => {
      await under.stop()
    })

    const add = (id: string, now = 1, lasting = true) => here.add(name, id, { lasting, now })
    const idsOf = async (names: Names, of = name) => (await names.list(of)).map(({ id }) => id).toSorted()

    it('finds uploads by a name that their clients gave, on every server, without a search', async () => {
      expect(await there.list(name)).toEqual([])
      await add('one', 5)
      await add('folder/two with a space', 6, false)
      expect((await there.list(name)).toSorted((a, b) => a.addedAt - b.addedAt)).toEqual([
        { id: 'one', addedAt: 5 },
        { id: 'folder/two with a space', addedAt: 6 },
      ])
      expect(await there.list(otherName)).toEqual([])
    })

    it('adding what is there and removing what is not there is no error', async () => {
      await add('one', 5)
      await add('one', 6)
      expect(await here.list(name)).toEqual([{ id: 'one', addedAt: 5 }])
      await there.remove(name, 'one')
      await here.remove(name, 'one')
      expect(await idsOf(there)).toEqual([])
    })

    it('keeps every link, whoever adds and removes at the same time', async () => {
      for (let round = 0; round < 20; round++) {
        await add('going')
        await Promise.all([
          here.remove(name, 'going'),
          there.add(name, `new${round}`, { lasting: false, now: 1 }),
          there.remove(name, 'going'),
        ])
        expect(await idsOf(here)).toEqual([`new${round}`])
        await here.remove(name, `new${round}`)
      }
    })

    it('a name may have uploads that are gone, or were never made', async () => {
      await add('never')
      expect(await idsOf(there)).toEqual(['never'])
      expect(await there.isAtRest('never')).toBe(false)
    })

    it('a name is 64 hexadecimal digits', async () => {
      for (const bad of ['', '..', 'A'.repeat(64), `${'a'.repeat(63)}/`])
        expect(await codeOf(here.list(bad))).toBe('bad-id')
    })

    it('an upload is at rest when its last writer is done with it', async () => {
      const appender = await under.store.create(headOf('a'), 5)
      expect(await here.isAtRest('a')).toBe(false)
      expect(await there.isAtRest('a')).toBe(false)
      await appender.write([Buffer.from('abc')], 0)
      await appender.commit({ offset: 3, last: true })
      await appender.close()
      expect(await here.isAtRest('a')).toBe(true)
      expect(await there.isAtRest('a')).toBe(true)
    })

    it('leaves nothing of a name whose last upload was removed from it', async () => {
      await add('one')
      await here.remove(name, 'one')
      expect((await under.remains()).filter((file) => file.includes(name.slice(3)))).toEqual([])
    })
  })
}
