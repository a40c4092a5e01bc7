// How far an upload is, asked of a server that does not receive it.

import { describe, expect, it, onTestFinished } from 'vitest'
import { progressOf } from '../../server/uploads/progress.ts'
import type { ByteStore, RecordStore, UploadRecord } from '../../stores/contracts.ts'
import { StoreError } from '../../stores/contracts.ts'
import { FileStore } from '../../stores/file/file-store.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { RedisRecords } from '../../stores/redis/redis-records.ts'
import { record } from '../contracts/records-contract.ts'
import { bytesAt, startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startRedis } from '../support/redis.ts'

const patience = { timeout: 10_000 }

describe('the progress of an upload', () => {
  it('grows on one server while another one receives it, and disturbs nobody', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const folder = await temporaryFolder()
    const [one, two] = [await site(redis.url, folder), await site(redis.url, folder)]
    const url = await one.create(12)
    const id = url.split('/').at(-1)!
    const { server } = two
    expect(await server.progress(id)).toEqual({ offset: 0, length: 12, state: 'open' })

    const patch = one.open('PATCH', url, bytesAt(0, { 'Content-Length': 12, Expect: '100-continue' }))
    await patch.continued
    for (const offset of [3, 6]) {
      patch.write('abc')
      await expect.poll(() => server.progress(id), patience).toMatchObject({ offset, state: 'open' })
      // Where a folder shows the marks of other servers late, the record says it.
      const { records } = server.engine
      await expect.poll(async () => (await records!.get(id))?.mark.offset, patience).toBe(offset)
    }
    patch.write('defdef')
    expect(await patch.answer).toMatchObject({ status: 204 })
    expect(await server.progress(id)).toEqual({ offset: 12, length: 12, state: 'finished' })
    await one.send('DELETE', url)
    expect(await server.progress(id)).toBeUndefined()
  })

  it('is what the mark says when Redis comes back empty, and when it is away', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const { server } = await site(redis.url, await temporaryFolder())
    const created = await server.handleWeb(
      new Request('http://localhost/files', {
        method: 'POST',
        headers: {
          'Tus-Resumable': '1.0.0',
          'Upload-Length': '6',
          'Content-Type': 'application/offset+octet-stream',
        },
        body: 'abc',
      }),
    )
    const id = created.headers.get('location')!.split('/').at(-1)!
    const three = { offset: 3, length: 6, state: 'open' }
    expect(await server.progress(id)).toEqual(three)
    await redis.command('FLUSHALL')
    expect(await server.progress(id)).toEqual(three)
    await redis.kill()
    expect(await server.progress(id)).toEqual(three)
  })

  it.each([
    ['a record that is newer than the mark is shown', { offset: 5, sequence: 3 }, 5],
    ['a record of a later generation is shown', { offset: 5, generation: 2, sequence: 1 }, 5],
    ['a record that is older than the mark is not', { offset: 1, sequence: 1 }, 3],
    ['a record of an earlier generation is not', { offset: 5, generation: 0, sequence: 9 }, 3],
  ] as const)('%s', async (_, copy, offset) => {
    expect(await progressOf('u', parts(mark({ offset: 3, sequence: 2 }), record('u', copy)))).toMatchObject({
      offset,
    })
  })

  it('a record without a mark is gone, and so is what was terminated', async () => {
    expect(await progressOf('u', parts(undefined, record('u')))).toBeUndefined()
    const terminated = mark({ state: 'terminated', sequence: 2 })
    expect(await progressOf('u', parts(terminated, record('u')))).toBeUndefined()
  })

  it('what is finished stays so, whatever a record says', async () => {
    const finished = mark({ state: 'finished', offset: 9, length: 9, sequence: 2 })
    expect(await progressOf('u', parts(finished, record('u', { sequence: 5 })))).toEqual({
      offset: 9,
      length: 9,
      state: 'finished',
    })
  })

  it('needs no records, and not that they answer', async () => {
    const marked = mark({ offset: 3 })
    const bytes = { look: async () => marked } as Partial<ByteStore> as ByteStore
    expect(await progressOf('u', { bytes, records: undefined })).toMatchObject({ offset: 3 })
    const get = () => Promise.reject(new StoreError('unavailable', 'away'))
    const records = { get } as Partial<RecordStore> as RecordStore
    expect(await progressOf('u', { bytes, records })).toMatchObject({ offset: 3 })
  })
})

const mark = (fields: Partial<UploadRecord['mark']>) => record('u', fields)

/** A folder and records of which each knows one thing. */
function parts(marked: UploadRecord | undefined, copy: UploadRecord | undefined) {
  return {
    bytes: { look: async () => marked } as Partial<ByteStore> as ByteStore,
    records: { get: async () => copy } as Partial<RecordStore> as RecordStore,
  }
}

async function site(redisUrl: string, directory: string) {
  const connection = new RedisConnection({ url: redisUrl })
  onTestFinished(() => connection.close())
  return await startSite({
    datastore: new FileStore({ directory, durability: 'none' }),
    locker: new RedisLocker({ connection }),
    records: new RedisRecords({ connection }),
  })
}
