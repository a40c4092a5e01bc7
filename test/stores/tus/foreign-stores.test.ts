// Stores that are not Tidemark's, mounted in its server: the basics of the protocol, what is announced, and that an
// upload is gone on with after its client was cut off.

import { randomUUID } from 'node:crypto'
import path from 'node:path'
import { createClient } from '@redis/client'
import { FileStore as TusFileStore } from '@tus/file-store'
import {
  type DataStore,
  FileKvStore,
  IoRedisKvStore,
  type KvStore,
  MemoryKvStore,
  RedisKvStore,
  type Upload,
} from '@tus/utils'
import { Redis } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { RedisConfigStore } from '../../../stores/redis/redis-config-store.ts'
import { RedisConnection } from '../../../stores/redis/redis-connection.ts'
import { bytesAt, bytesType, pathOf, type Site, startSite } from '../../protocol/exchange.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { MapStore } from '../../support/map-store.ts'
import { randomBytes, sha256 } from '../../support/random-file.ts'
import { startTcpProxy } from '../../support/tcp-proxy.ts'
import { startUpload } from '../../support/tus-client.ts'

const MiB = 1024 * 1024

const configStores: [string, (folder: string) => Promise<KvStore<Upload> | undefined>][] = [
  ['its own default', async () => undefined],
  ['FileConfigstore', async (folder) => new FileKvStore<Upload>(folder)],
  ['MemoryConfigstore', async () => new MemoryKvStore<Upload>()],
  ['RedisKvStore', redisKvStore],
  ['IoRedisKvStore', ioRedisKvStore],
  ['our RedisConfigStore', redisConfigStore],
]

describe.each(configStores)("@tus/file-store's FileStore with %s", (_, makeConfigStore) => {
  const start = async (options = {}) => startSite({ datastore: await fileStore(makeConfigStore), ...options })

  it('announces what it can do', async () => {
    const site = await start()
    const { headers } = await site.send('OPTIONS', '/files')
    expect(headers['tus-extension']).toBe(
      'creation,creation-with-upload,creation-defer-length,termination,expiration',
    )
  })

  it('takes an upload in two requests, shows it, gives it back whole and in ranges, and removes it', async () => {
    const site = await start()
    const metadata = `filename ${Buffer.from('a b.txt').toString('base64')},is-private,empty `.trim()
    const url = await site.create(6, { 'Upload-Metadata': metadata })
    expect(await site.shown(url)).toBe('0/6')
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
    expect(await site.send('GET', url)).toMatchObject({ status: 404 })
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 409 })
    expect(await site.append(url, 3, 'defg')).toMatchObject({ status: 413 })
    expect(await site.append(url, 3, 'def')).toMatchObject({ status: 204, headers: { 'upload-offset': '6' } })
    expect((await site.head(url)).headers['upload-metadata']).toBe(metadata)
    expect(await site.append(url, 6, '')).toMatchObject({ status: 204, headers: { 'upload-offset': '6' } })
    expect(await site.send('GET', url)).toMatchObject({ status: 200, text: 'abcdef' })
    expect(await site.send('GET', url, { Range: 'bytes=2-3' })).toMatchObject({ status: 206, text: 'cd' })
    expect(await site.send('DELETE', url)).toMatchObject({ status: 204 })
    expect(await site.shown(url)).toBe('404')
    expect(await site.send('DELETE', url)).toMatchObject({ status: 404 })
  })

  it('takes bytes with the creation, a length that is told at the end, and an upload of no bytes', async () => {
    const site = await start()
    expect(await site.shown(await site.createFinished('whole'))).toBe('5/5')
    expect(await site.shown(await site.create(0))).toBe('0/0')
    const told = await site.create('deferred', bytesType, 'ab')
    expect(await site.shown(told)).toBe('2/?')
    expect(await site.append(told, 2, 'c')).toMatchObject({ status: 204 })
    expect(await site.append(told, 3, 'de', { 'Upload-Length': 5 })).toMatchObject({ status: 204 })
    expect((await site.send('GET', told)).text).toBe('abcde')
    const bare = await site.create('deferred', bytesType, 'abc')
    expect(await site.append(bare, 3, '', { 'Upload-Length': 3 })).toMatchObject({ status: 204 })
    expect((await site.send('GET', bare)).text).toBe('abc')
    const early = await site.create('deferred')
    expect(await site.append(early, 0, 'a', { 'Upload-Length': 2 })).toMatchObject({ status: 204 })
    expect(await site.shown(early)).toBe('1/2')
  })

  it('keeps what came before the client was cut off, and is gone on with from there', async () => {
    const site = await start()
    const url = await site.create(10)
    const cut = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10, Expect: '100-continue' }))
    await cut.continued
    cut.write('abcd')
    cut.cut()
    await cut.closed
    expect(await site.shown(url)).toBe('4/10')
    expect(await site.append(url, 4, 'efghij')).toMatchObject({ status: 204 })
    expect((await site.send('GET', url)).text).toBe('abcdefghij')
  })

  it('finishes what tus-js-client sends though its connection is cut in the middle', async () => {
    const site = await start()
    const wire = await startTcpProxy(site.port)
    onTestFinished(() => wire.close())
    wire.bytesPerSecond = 40 * MiB
    const content = randomBytes('foreign', 12 * MiB)
    let cuts = 0
    const { done, exchanges } = startUpload(content, {
      endpoint: `${wire.url}/files/`,
      onProgress: (sent) => {
        if (sent < (cuts + 1) * 4 * MiB || cuts === 2) return
        cuts++
        wire.cut()
      },
    })
    const url = await done
    expect(cuts).toBe(2)
    const resumed = exchanges.filter(({ method, status }) => method === 'HEAD' && status === 200)
    expect(resumed.at(-1)?.answeredOffset).toBeGreaterThan(0)
    expect(await contentHash(site, url)).toBe(await sha256(content))
  })

  it('gives an upload to the second of two overlapping requests, and the first is told what was kept', async () => {
    const site = await start()
    const url = await site.create(10)
    const first = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10, Expect: '100-continue' }))
    await first.continued
    first.write('abcd')
    const second = await site.append(url, 0, 'abcdefghij')
    expect(second).toMatchObject({ status: 409, headers: { 'upload-offset': '4' } })
    expect(await first.answer).toMatchObject({ status: 423, headers: { 'upload-offset': '4' } })
    expect(await site.append(url, 4, 'efghij')).toMatchObject({ status: 204 })
    expect((await site.send('GET', url)).text).toBe('abcdefghij')
  })

  it('is finished only when onUploadFinish agrees', async () => {
    let agrees = false
    const onUploadFinish = async () => {
      if (!agrees) throw { status_code: 409, body: 'not yet' }
      return {}
    }
    const site = await start({ onUploadFinish })
    const url = await site.create(3)
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 409, text: 'not yet' })
    const offset = Number((await site.head(url)).headers['upload-offset'])
    expect(offset).toBeLessThan(3)
    agrees = true
    expect(await site.append(url, offset, 'abc'.slice(offset))).toMatchObject({ status: 204 })
    expect((await site.send('GET', url)).text).toBe('abc')
  })
})

describe('a FileStore that knows an expiration', () => {
  it('says when uploads expire, counted from their creation, and answers 410 afterwards', async () => {
    const directory = await temporaryFolder()
    const datastore = new TusFileStore({ directory, expirationPeriodInMilliseconds: 3_600_000 })
    const site = await startSite({ datastore })
    const created = await site.send('POST', '/files', { 'Upload-Length': 3 })
    const at = Date.parse(created.headers['upload-expires']!)
    expect(Math.abs(at - Date.now() - 3_600_000)).toBeLessThan(60_000)
    const again = await site.append(pathOf(created), 0, 'a')
    expect(again.headers['upload-expires']).toBe(created.headers['upload-expires'])
    datastore.expirationPeriodInMilliseconds = -1
    const late = await startSite({ datastore: withExpiration(directory, 1) })
    await expect.poll(() => late.shown(pathOf(created))).toBe('410')
  })

  it('is not given another one', async () => {
    const datastore = new TusFileStore({ directory: await temporaryFolder() })
    const expiry = { afterMs: 1000, mode: 'absolute' } as const
    await expect(startSite({ datastore, expiry })).rejects.toThrow(
      'the option expiry needs a store of Tidemark',
    )
  })

  it('is cleaned up by its own deleteExpired, and a store that has none refuses', async () => {
    const site = await startSite({ datastore: withExpiration(await temporaryFolder(), 1) })
    const { headers } = await site.send('POST', '/files', { 'Upload-Length': 3 })
    await expect.poll(() => site.server.cleanUpExpiredUploads()).toBe(1)
    expect(await site.shown(new URL(headers.location!).pathname)).toBe('404')
    const none = await startSite({ datastore: new MapStore() })
    await expect(none.server.cleanUpExpiredUploads()).rejects.toMatchObject({ status_code: 501 })
  })
})

describe('a store that can do nothing but creation', () => {
  it('announces nothing else', async () => {
    const site = await startSite({ datastore: new MapStore() })
    const { headers } = await site.send('OPTIONS', '/files')
    expect(headers['tus-extension']).toBe('creation')
    expect(headers['tus-version']).toBe('1.0.0')
  })

  it('takes an upload, without Upload-Expires', async () => {
    const datastore = new MapStore()
    const site = await startSite({ datastore })
    const created = await site.send('POST', '/files', { 'Upload-Length': 6 })
    const url = pathOf(created)
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
    const last = await site.append(url, 3, 'def')
    expect(last).toMatchObject({ status: 204, headers: { 'upload-offset': '6' } })
    for (const { headers } of [created, last]) expect(headers).not.toHaveProperty('upload-expires')
    expect(String(datastore.bytesOf(idOf(url)))).toBe('abcdef')
  })

  it('refuses Upload-Defer-Length with 400 and a sentence, and makes nothing', async () => {
    const datastore = new MapStore()
    const site = await startSite({ datastore })
    const answer = await site.send('POST', '/files', { 'Upload-Defer-Length': 1 })
    expect(answer).toMatchObject({ status: 400, text: expect.stringContaining('send Upload-Length') })
    expect(datastore.content.size).toBe(0)
  })

  it('refuses DELETE with 405, says what is allowed, and the upload stays', async () => {
    const site = await startSite({ datastore: new MapStore() })
    const url = await site.create(3, bytesType, 'ab')
    const answer = await site.send('DELETE', url)
    expect(answer).toMatchObject({ status: 405, text: expect.stringContaining('can not terminate') })
    expect(answer.headers.allow).not.toContain('DELETE')
    expect(await site.shown(url)).toBe('2/3')
  })

  it('refuses GET with 404, because it can not be read', async () => {
    const site = await startSite({ datastore: new MapStore() })
    expect(await site.send('GET', await site.createFinished('abc'))).toMatchObject({ status: 404 })
  })

  it('refuses a second creation under the same name, and the first stays', async () => {
    const datastore = new MapStore()
    const site = await startSite({ datastore, namingFunction: () => 'given' })
    expect(await site.createFinished('abc')).toBe('/files/given')
    expect(await site.send('POST', '/files', { 'Upload-Length': 3 })).toMatchObject({ status: 409 })
    expect(String(datastore.bytesOf('given'))).toBe('abc')
  })

  it('does not have the last bytes while onUploadFinish is asked, so nobody sees it finished', async () => {
    const datastore = new MapStore()
    const shown: string[] = []
    const site = await startSite({
      datastore,
      onUploadFinish: async (_, { id }) => {
        for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve))
        shown.push(
          `${datastore.bytesOf(id).length < sizeBytes}, ${(await site.server.engine.bytes.look(id))?.mark.state}`,
        )
        return {}
      },
    })
    const sizeBytes = 3_000_000
    const url = await site.create(sizeBytes)
    expect(await site.append(url, 0, 'x'.repeat(sizeBytes))).toMatchObject({ status: 204 })
    expect(await site.append(await site.create(sizeBytes), 0, 'x'.repeat(sizeBytes))).toMatchObject({
      status: 204,
    })
    expect(shown).toEqual(['true, open', 'true, open'])
    expect(datastore.bytesOf(idOf(url)).length).toBe(sizeBytes)
  })

  it('refuses checksums and concatenation with 400, and stores nothing', async () => {
    const site = await startSite({ datastore: new MapStore() })
    const url = await site.create(3)
    const checksum = { 'Upload-Checksum': 'sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=' }
    expect(await site.append(url, 0, 'abc', checksum)).toMatchObject({ status: 400 })
    expect(await site.shown(url)).toBe('0/3')
    const partial = await site.send('POST', '/files', { 'Upload-Length': 3, 'Upload-Concat': 'partial' })
    expect(partial).toMatchObject({ status: 400 })
  })

  it('is never asked for ids that could be names of other things', async () => {
    const asked: string[] = []
    class Asked extends MapStore {
      override getUpload(id: string) {
        asked.push(id)
        return super.getUpload(id)
      }
    }
    const site = await startSite({ datastore: new Asked() })
    for (const id of ['..', '..%2fup', '%00', 'a%5cb', '.hidden', 'x'.repeat(3000)])
      expect(await site.shown(`/files/${id}`), id).toBe('404')
    expect(asked).toEqual([])
  })
})

async function fileStore(
  makeConfigStore: (folder: string) => Promise<KvStore<Upload> | undefined>,
): Promise<DataStore> {
  const directory = await temporaryFolder()
  const configstore = await makeConfigStore(directory)
  return new TusFileStore({ directory, ...(configstore && { configstore }) })
}

function withExpiration(directory: string, expirationPeriodInMilliseconds: number): TusFileStore {
  return new TusFileStore({ directory, expirationPeriodInMilliseconds })
}

async function redisKvStore(): Promise<KvStore<Upload>> {
  const client = createClient({ url: inject('redisUrl') })
  await client.connect()
  onTestFinished(() => client.destroy())
  return new RedisKvStore<Upload>(client as never, `${randomUUID()}:`)
}

async function ioRedisKvStore(): Promise<KvStore<Upload>> {
  const client = new Redis(inject('redisUrl'))
  onTestFinished(() => client.disconnect())
  return new IoRedisKvStore<Upload>(client, `${randomUUID()}:`)
}

async function redisConfigStore(): Promise<KvStore<Upload>> {
  const connection = new RedisConnection({ url: inject('redisUrl'), keyPrefix: `${randomUUID()}:` })
  onTestFinished(() => connection.close())
  return new RedisConfigStore({ connection })
}

function idOf(url: string): string {
  return path.posix.basename(url)
}

async function contentHash(site: Site, url: string): Promise<string> {
  const response = await fetch(`http://${site.host}${new URL(url).pathname}`)
  return sha256(new Uint8Array(await response.arrayBuffer()))
}
