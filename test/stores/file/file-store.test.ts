/** FileStore in somebody's own @tus/server, with a standard client. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { type KvStore, MemoryKvStore, Server, type ServerOptions, type Upload } from '@tus/server'
import { Upload as TusClient, type UploadOptions } from 'tus-js-client'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FileStore, type FileStoreOptions } from '../../../stores/file/file-store.ts'
import { randomBytes } from '../../contracts/byte-store-values.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { filesIn } from './support.ts'

const content = randomBytes(700_000)
const tus = { 'Tus-Resumable': '1.0.0' }
const bytesHeaders = { ...tus, 'Content-Type': 'application/offset+octet-stream' }

describe('FileStore in a plain @tus/server', () => {
  it('takes an upload from a standard client, in pieces, with its metadata', async () => {
    const { url, store, finished, folder } = await start()
    const client = await uploaded(url, { chunkSize: 200_000, metadata: { filename: 'ø π.bin', empty: '' } })
    const id = idOf(client.url!)
    expect((await buffer(store.read(id))).equals(content)).toBe(true)
    expect(await store.getUpload(id)).toMatchObject({
      id,
      size: content.length,
      offset: content.length,
      metadata: { filename: 'ø π.bin' },
    })
    expect(finished).toEqual([id])
    expect(await filesIn(folder)).toEqual([`.${id}.0.mark`, id].sort())
  })

  it('goes on where an aborted client stopped, also in another server', async () => {
    const one = await start()
    const { url } = one
    const first = new TusClient(content, { endpoint: url, chunkSize: 100_000, retryDelays: null })
    await new Promise<void>((resolve) => {
      first.options.onChunkComplete = (_, accepted) => {
        if (accepted >= 300_000) void first.abort().then(resolve)
      }
      first.start()
    })
    const at = await offsetOf(first.url!)
    expect(at).toBeGreaterThanOrEqual(300_000)
    const two = await start({ directory: one.folder })
    const sameUpload = `${two.url}/${idOf(first.url!)}`
    expect(await offsetOf(sameUpload)).toBe(at)
    const client = await uploaded(two.url, { uploadUrl: sameUpload })
    expect((await buffer(one.store.read(idOf(client.url!)))).equals(content)).toBe(true)
    expect(await offsetOf(client.url!)).toBe(content.length)
  })

  it('takes uploads with data in the creation, without data, of no bytes, and of unknown length', async () => {
    const { url, store, finished } = await start()
    const withData = await uploaded(url, { uploadDataDuringCreation: true })
    expect((await buffer(store.read(idOf(withData.url!)))).equals(content)).toBe(true)
    const empty = await uploaded(url, {}, Buffer.alloc(0))
    expect(await offsetOf(empty.url!)).toBe(0)
    expect((await store.byteStore.look(idOf(empty.url!)))!.mark.state).toBe('finished')
    const options = { uploadLengthDeferred: true, chunkSize: 250_000 }
    const deferred = await uploaded(url, options, Readable.from(slices(content, 90_000)))
    expect((await buffer(store.read(idOf(deferred.url!)))).equals(content)).toBe(true)
    expect((await store.byteStore.look(idOf(deferred.url!)))!.mark.state).toBe('finished')
    expect(finished).toHaveLength(3)
  })

  it('finishes an upload whose length is declared when all bytes are there', async () => {
    const { url, store, finished } = await start()
    const created = await fetch(url, { method: 'POST', headers: { ...tus, 'Upload-Defer-Length': '1' } })
    const at = created.headers.get('location')!
    const send = (offset: number, body: string, more = {}) =>
      fetch(at, {
        method: 'PATCH',
        headers: { ...bytesHeaders, 'Upload-Offset': `${offset}`, ...more },
        body,
      })
    expect((await send(0, 'hello')).headers.get('upload-offset')).toBe('5')
    const last = await send(5, '', { 'Upload-Length': '5' })
    expect([last.status, last.headers.get('upload-offset')]).toEqual([204, '5'])
    expect((await store.byteStore.look(idOf(at)))!.mark).toMatchObject({ state: 'finished', length: 5 })
    expect(finished).toEqual([idOf(at)])
    expect((await send(5, 'more')).status).toBe(413)
    expect(String(await buffer(store.read(idOf(at))))).toBe('hello')
  })

  it('removes on DELETE, and answers 404 then', async () => {
    const { url, folder } = await start()
    const client = await uploaded(url)
    expect((await fetch(client.url!, { method: 'DELETE', headers: tus })).status).toBe(204)
    for (const method of ['DELETE', 'HEAD', 'GET'])
      expect((await fetch(client.url!, { method, headers: tus })).status).toBe(404)
    expect(await filesIn(folder)).toEqual([])
  })

  it('removes what is unfinished when its time is over, and never a finished one', async () => {
    const expirationPeriodInMilliseconds = 60_000
    const { url, store, folder } = await start({ expirationPeriodInMilliseconds })
    const finished = await uploaded(url)
    const empty = await uploaded(url, {}, Buffer.alloc(0))
    await fetch(url, { method: 'POST', headers: { ...tus, 'Upload-Length': '5' } })
    await fetch(url, { method: 'POST', headers: { ...bytesHeaders, 'Upload-Length': '5' }, body: 'ab' })
    expect(await store.deleteExpired()).toBe(0)
    const later = new FileStore({ directory: folder, expirationPeriodInMilliseconds: 1 })
    await expect.poll(() => later.deleteExpired()).toBe(2)
    expect(await later.deleteExpired()).toBe(0)
    const ids = [idOf(finished.url!), idOf(empty.url!)]
    expect(await filesIn(folder)).toEqual(ids.flatMap((id) => [id, `.${id}.0.mark`]).sort())
    expect((await buffer(store.read(ids[0]!))).equals(content)).toBe(true)
    expect(await new FileStore({ directory: folder }).deleteExpired()).toBe(0)
  })

  it('tells a config store of everything, and depends on it for nothing', async () => {
    const configstore: KvStore<Upload> & { list(): Promise<string[]> } = new MemoryKvStore<Upload>()
    const { url, store } = await start({ configstore })
    const client = await uploaded(url, { metadata: { a: 'b' } })
    const id = idOf(client.url!)
    expect(await configstore.get(id)).toMatchObject({ id, size: content.length, metadata: { a: 'b' } })
    expect(store.configstore).toBe(configstore)
    const created = await fetch(url, { method: 'POST', headers: { ...tus, 'Upload-Defer-Length': '1' } })
    const deferred = created.headers.get('location')!
    const headers = { ...bytesHeaders, 'Upload-Offset': '0', 'Upload-Length': '9' }
    await fetch(deferred, { method: 'PATCH', headers, body: 'abc' })
    expect((await configstore.get(idOf(deferred)))!.size).toBe(9)
    await configstore.delete(idOf(deferred))
    expect(await offsetOf(deferred)).toBe(3)
    await fetch(client.url!, { method: 'DELETE', headers: tus })
    expect(await configstore.get(id)).toBeUndefined()
  })

  it('shows the marks as a config store where none is given', async () => {
    const { url, store } = await start()
    const client = await uploaded(url, { metadata: { a: 'b' } })
    const id = idOf(client.url!)
    expect(await store.configstore.list!()).toEqual([id])
    expect(await store.configstore.get(id)).toMatchObject({ id, metadata: { a: 'b' } })
    expect(await store.configstore.get('never')).toBeUndefined()
  })

  it('keeps uploads under names with dots and slashes, and under any that fit', async () => {
    const exotic = [
      'a.b.c',
      'in/a/folder.d/file.tar.gz',
      'ünï/ço∂é 🌊',
      '%2e%2e',
      'a b',
      "it's",
      'x'.repeat(200),
      '0',
      'con',
    ]
    for (const name of exotic) {
      const { url, store } = await start({}, withNames(name))
      const client = await uploaded(url, { metadata: { name: 'n' } })
      expect(await offsetOf(client.url!), name).toBe(content.length)
      expect((await buffer(store.read(name))).equals(content)).toBe(true)
      const again = await fetch(url, { method: 'POST', headers: { ...tus, 'Upload-Length': '5' } })
      expect(again.status).toBe(409)
      expect((await fetch(client.url!, { method: 'DELETE', headers: tus })).status).toBe(204)
    }
  })

  it('refuses names that could be another file, and makes nothing of them', async () => {
    for (const name of ['../up', '.hidden', 'a/../../b', '/etc/x', 'x'.repeat(201), 'a\\b', 'nul\0']) {
      const { url, folder, store } = await start({}, withNames(name))
      const created = await fetch(url, { method: 'POST', headers: { ...tus, 'Upload-Length': '5' } })
      expect(created.status, name).toBe(400)
      await expect(store.getUpload(name)).rejects.toMatchObject({ status_code: 404 })
      await expect(store.remove(name)).rejects.toMatchObject({ status_code: 404 })
      expect(await filesIn(folder)).toEqual([])
    }
  })

  it('makes no folder before it is used, and tells whoever uses one that can not be', async () => {
    const folder = await temporaryFolder()
    const store = new FileStore({ directory: `${folder}/later` })
    expect(await filesIn(folder)).toEqual([])
    const { url } = await start({ directory: `${folder}/later` })
    expect((await uploaded(url)).url).toBeDefined()
    expect(await store.configstore.list!()).toHaveLength(1)
    await writeFile(`${folder}/file`, '')
    const wrong = new FileStore({ directory: `${folder}/file` })
    await expect(wrong.getUpload('a')).rejects.toMatchObject({ status_code: 500 })
  })
})

async function start(options: Partial<FileStoreOptions> = {}, more: Partial<ServerOptions> = {}) {
  const folder = options.directory ?? (await temporaryFolder())
  const store = new FileStore({ directory: folder, ...options })
  const finished: string[] = []
  const server = new Server({
    path: '/files',
    datastore: store,
    async onUploadFinish(_, upload) {
      finished.push(upload.id)
      return {}
    },
    ...more,
  })
  const http = createServer((request, response) => void server.handle(request, response))
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  onTestFinished(async () => {
    http.closeAllConnections()
    http.close()
    await once(http, 'close')
  })
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/files`
  return { folder, store, url, finished }
}

/** A server that gives every upload this name, as its documentation shows it for names with slashes. */
function withNames(name: string): Partial<ServerOptions> {
  return {
    namingFunction: () => name,
    generateUrl: (_, { proto, host, path, id }) =>
      `${proto}://${host}${path}/${Buffer.from(id).toString('base64url')}`,
    getFileIdFromRequest: (_, last) => (last ? Buffer.from(last, 'base64url').toString() : undefined),
  }
}

async function uploaded(
  endpoint: string,
  options: UploadOptions = {},
  source: Buffer | Readable = content,
): Promise<TusClient> {
  const client = new TusClient(source, { endpoint, retryDelays: null, ...options })
  await new Promise<void>((resolve, reject) => {
    Object.assign(client.options, { onSuccess: () => resolve(), onError: reject })
    client.start()
  })
  return client
}

async function offsetOf(url: string): Promise<number> {
  const answer = await fetch(url, { method: 'HEAD', headers: tus })
  expect(answer.status).toBe(200)
  return Number(answer.headers.get('upload-offset'))
}

function idOf(url: string): string {
  return url.slice(url.lastIndexOf('/') + 1)
}

function* slices(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}
