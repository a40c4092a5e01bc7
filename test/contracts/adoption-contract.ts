/**
 * The contract of `linkFrom` and `Adoption`, sentence by sentence, for every implementation.
 */
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { ByteStore, Digest, UploadRecord } from '../../stores/contracts.ts'
import type { ByteStoreUnderTest } from './byte-store-contract.ts'
import { codeOf, headOf, randomBytes } from './byte-store-values.ts'

const content = randomBytes(300_000)
const digest: Digest = { algorithm: 'sha-256', base64: Buffer.alloc(32, 9).toString('base64') }

export async function makeSource(store: ByteStore, id = 'source'): Promise<UploadRecord> {
  const appender = await store.create(headOf(id), content.length)
  await appender.write([content], 0)
  await appender.finish(content.length, digest)
  await appender.close()
  return (await store.look(id))!
}

export async function contentOf(store: ByteStore, id: string): Promise<Buffer> {
  const record = (await store.look(id))!
  return buffer(await store.read(record, 0, record.mark.offset))
}

const held = () => true

export function describeAdoption(name: string, start: () => Promise<ByteStoreUnderTest>): void {
  describe(`${name}: the contract of linkFrom`, () => {
    let under: ByteStoreUnderTest
    let store: ByteStore
    let other: ByteStore
    let source: UploadRecord

    beforeEach(async () => {
      under = await start()
      ;({ store, other } = under)
      source = await makeSource(store)
    })
    afterEach(async () => {
      await under.stop()
    })
    const newcomer = (id = 'new') => store.create(headOf(id, { digest }), content.length)
    const adopt = async (id = 'new') => {
      const appender = await newcomer(id)
      const adoption = (await store.linkFrom!(appender.record, source))!
      const record = await adoption.finish(held)
      await appender.close()
      return record
    }

    it('readies the bytes of a finished upload for one that was just created, and seals it with them', async () => {
      const appender = await newcomer()
      const adoption = (await store.linkFrom!(appender.record, source))!
      expect((await other.look('new'))!.mark).toMatchObject({ state: 'open', offset: 0 })
      const record = await adoption.finish(held)
      expect(record.mark).toMatchObject({ state: 'finished', offset: content.length, digest })
      expect(await other.look('new')).toEqual(record)
      expect((await contentOf(other, 'new')).equals(content)).toBe(true)
      expect(await other.open('new')).toBeUndefined()
      await appender.close()
    })

    it('supersedes the appender: nothing that it writes is ever in either', async () => {
      const appender = await newcomer()
      const adoption = (await store.linkFrom!(appender.record, source))!
      await adoption.finish(held)
      await appender.write([Buffer.from('LATE')], 0).catch(() => undefined)
      expect(await codeOf(appender.commit({ offset: 4 }))).toBe('superseded')
      await appender.close()
      for (const id of ['new', 'source']) expect((await contentOf(other, id)).equals(content)).toBe(true)
    })

    it('removing either never hurts the other', async () => {
      for (const id of ['a', 'b', 'c']) await adopt(id)
      for (const id of ['source', 'b', 'a']) {
        expect(await other.remove(id)).toBe(true)
        expect((await contentOf(store, 'c')).equals(content)).toBe(true)
      }
      await other.remove('c')
      expect(await under.remains()).toEqual([])
    })

    it('is undefined, and nothing is left of it, when the source is gone, or is another upload by now', async () => {
      const appender = await newcomer()
      await store.remove('source')
      const files = await under.remains()
      expect(await store.linkFrom!(appender.record, source)).toBeUndefined()
      await makeSource(store)
      const again = await store.create(headOf('source2'), 1)
      await again.close()
      await store.remove('source')
      const open = await store.create({ ...headOf('source'), createdAt: 7 }, content.length)
      await open.write([content], 0)
      expect(await store.linkFrom!(appender.record, source)).toBeUndefined()
      await open.close()
      await store.remove('source')
      await store.remove('source2')
      expect(await under.remains()).toEqual(files)
      await appender.close()
    })

    it('`discard` gives them up; the upload goes on as if nothing had been', async () => {
      const appender = await newcomer()
      const files = await under.remains()
      const adoption = (await store.linkFrom!(appender.record, source))!
      await adoption.discard()
      expect(await under.remains()).toEqual(files)
      await appender.write([Buffer.alloc(content.length, 'x')], 0)
      await appender.finish(content.length, digest)
      await appender.close()
      expect((await contentOf(other, 'source')).equals(content)).toBe(true)
      expect((await contentOf(other, 'new')).equals(content)).toBe(false)
    })

    it('`finish` fails with `superseded` when the lock was lost, and shares nothing', async () => {
      const appender = await newcomer()
      const adoption = (await store.linkFrom!(appender.record, source))!
      expect(await codeOf(adoption.finish(() => false))).toBe('superseded')
      expect((await other.look('new'))!.mark.state).toBe('open')
      await appender.close()
      await other.remove('new')
      await other.remove('source')
      expect(await under.remains()).toEqual([])
    })
  })
}
