// What goes wrong with the @tus packages as shipped, named after what a user would see. Each is a case that must not
// come back here. Those that a row of docs/protocol.md covers already are not repeated.

import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FileStore } from '../../stores/file/file-store.ts'
import { temporaryFolder } from '../support/folder.ts'
import { bytesAt, bytesType, startSite } from './exchange.ts'

const named = { namingFunction: (_: unknown, metadata?: Record<string, string | null>) => metadata?.id ?? '' }

/** Metadata that makes `named` use this id. */
function withId(id: string) {
  return { 'Upload-Metadata': `id ${Buffer.from(id).toString('base64')}` }
}

describe('finished uploads stay', () => {
  it('cleaning up expired uploads does not delete finished ones', async () => {
    const site = await startSite()
    const url = await site.createFinished('abc')
    const store = new FileStore({ directory: site.folder, expirationPeriodInMilliseconds: 1 })
    await store.deleteExpired()
    await site.server.cleanUpExpiredUploads()
    expect((await site.send('GET', url)).text).toBe('abc')
  })

  it('a creation with an id that is taken -> 409, the upload that has it keeps its bytes', async () => {
    const site = await startSite(named)
    const url = await site.createFinished('abc', withId('v'))
    const again = { 'Upload-Length': 6, ...withId('v') }
    expect(await site.send('POST', '/files', again)).toMatchObject({ status: 409 })
    expect(await site.send('POST', '/files', { ...again, ...bytesType }, 'XXX')).toMatchObject({
      status: 409,
    })
    expect((await site.send('GET', url)).text).toBe('abc')
  })

  it('ids such as v.json and v.info are uploads of their own, and touch nothing of v', async () => {
    const site = await startSite(named)
    const url = await site.createFinished('abc', withId('v'))
    for (const id of ['v.json', 'v.info', 'v.0.mark', 'v.lock']) {
      expect(await site.send('DELETE', `/files/${id}`)).toMatchObject({ status: 404 })
      const other = await site.createFinished('other', withId(id))
      expect((await site.send('GET', other)).text).toBe('other')
      expect(await site.send('DELETE', other)).toMatchObject({ status: 204 })
    }
    expect(await site.shown(url)).toBe('3/3')
    expect((await site.send('GET', url)).text).toBe('abc')
  })

  const foreign = [
    '.v.0.mark',
    '.v.1.data',
    '..',
    '.',
    '../v',
    '..%2Fv',
    '%2e%2e%2fv',
    'v%2F',
    '%2Fv',
    './v',
    'v%00',
    'v%00.json',
    '.%2Fv',
    'v\\..',
    '%5C..',
    'v%2F..%2Fv',
    'v%2Fw',
    'v%0a',
  ]
  for (const id of foreign)
    it(`a URL that ends in ${id} -> 404 on every method, and touches no file`, async () => {
      const site = await startSite(named)
      const url = await site.create(6, { ...withId('v'), ...bytesType }, 'abc')
      const before = await readdir(site.folder)
      const target = `/files/${id}`
      expect((await site.head(target)).status).toBe(404)
      expect((await site.append(target, 3, 'XXX')).status).toBe(404)
      expect((await site.send('GET', target)).status).toBe(404)
      expect((await site.send('DELETE', target)).status).toBe(404)
      expect(await readdir(site.folder)).toEqual(before)
      expect(await site.shown(url)).toBe('3/6')
    })

  for (const id of [
    '..',
    '.',
    '',
    '.v.0.mark',
    '../v',
    '/v',
    'v/../w',
    'a\\b',
    'a\0b',
    'a\nb',
    'x'.repeat(300),
    '.hidden',
    'v/',
  ])
    it(`a name ${JSON.stringify(id.slice(0, 12))} from the naming function -> 400, nothing made`, async () => {
      const site = await startSite(named)
      const url = await site.createFinished('abc', withId('v'))
      const before = await readdir(site.folder)
      const answer = await site.send('POST', '/files', { 'Upload-Length': 6, ...withId(id) })
      expect(answer.status).toBe(400)
      expect(await readdir(site.folder)).toEqual(before)
      expect((await site.send('GET', url)).text).toBe('abc')
    })

  it('a file in the folder that is no upload is neither served nor removed', async () => {
    const site = await startSite(named)
    await site.create(1, withId('v'))
    await writeFile(join(site.folder, 'notes.txt'), 'mine')
    expect((await site.send('GET', '/files/notes.txt')).status).toBe(404)
    expect((await site.send('DELETE', '/files/notes.txt')).status).toBe(404)
    const creation = { 'Upload-Length': 6, ...withId('notes.txt') }
    expect(await site.send('POST', '/files', creation)).toMatchObject({ status: 409 })
    expect(await readdir(site.folder)).toContain('notes.txt')
  })
})

describe('clients that go away', () => {
  it('a client that goes away in the middle of a body, with hooks and listeners there, does not end the process', async () => {
    const site = await startSite({
      onIncomingRequest: async (request) => void request.headers.get('upload-offset'),
      onUploadFinish: async () => ({}),
    })
    site.server.on('POST_RECEIVE', () => undefined)
    const url = await site.create(1_000_000)
    for (const how of ['Content-Length', 'chunked'])
      for (let round = 0; round < 5; round++) {
        const offset = Number((await site.head(url)).headers['upload-offset'])
        const length = how === 'chunked' ? { 'Transfer-Encoding': 'chunked' } : { [how]: 1_000_000 - offset }
        const request = site.open('PATCH', url, bytesAt(offset, length))
        if (how === 'chunked') request.chunk('abc')
        else request.write('abc')
        if (round % 2 === 0) await request.drained()
        request.cut()
        await request.closed
      }
    const other = await site.createFinished('abc')
    expect((await site.send('GET', other)).text).toBe('abc')
    expect(site.reports.filter(({ is }) => is === 'request-failed')).toEqual([])
  })

  it('a client that goes away in a creation, or on a finished upload, does not end the process', async () => {
    const site = await startSite()
    const finished = await site.createFinished('abc')
    const chunked = { 'Transfer-Encoding': 'chunked', Expect: '100-continue' }
    const requests = [
      site.open('POST', '/files', { 'Upload-Length': 6, ...bytesType, ...chunked }),
      site.open('PATCH', finished, bytesAt(3, chunked)),
    ]
    for (const request of requests) {
      await request.continued
      request.cut()
      await request.closed
    }
    expect(await site.shown(finished)).toBe('3/3')
    expect(site.reports).toEqual([])
  })
})

describe('an upload finishes once', () => {
  it('a final PATCH that is repeated does not fire finish hook and event again', async () => {
    const told: string[] = []
    const site = await startSite({
      onUploadFinish: async () => {
        told.push('hook')
        return {}
      },
    })
    site.server.on('POST_FINISH', () => told.push('event'))
    const url = await site.create(3)
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
    expect(await site.append(url, 3, '')).toMatchObject({ status: 204 })
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 409, headers: { 'upload-offset': '3' } })
    expect(told).toEqual(['hook', 'event'])
  })

  for (const event of ['POST_CREATE', 'POST_FINISH', 'POST_TERMINATE'])
    it(`a ${event} listener that throws does not turn what was done into an error`, async () => {
      const site = await startSite()
      site.server.on(event, () => {
        throw new Error('a listener of the application')
      })
      const url = await site.create(3)
      expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
      expect(await site.shown(url)).toBe('3/3')
      expect(await site.send('DELETE', url)).toMatchObject({ status: 204 })
      expect(site.reports).toMatchObject([{ is: 'listener-failed', event }])
    })

  it('a listener that throws does not keep the others from hearing', async () => {
    const site = await startSite()
    const heard: string[] = []
    site.server.on('POST_FINISH', () => {
      throw new Error('a listener of the application')
    })
    site.server.on('POST_FINISH', (_, __, upload) => heard.push(upload.id))
    site.server.once('POST_FINISH', () => heard.push('once'))
    const url = await site.createFinished('abc')
    await site.createFinished('abc')
    expect(heard).toEqual([url.split('/').at(-1), 'once', expect.any(String)])
  })
})

describe('downloads', () => {
  async function siteWithFile(metadata: Record<string, string>) {
    const site = await startSite()
    const header = Object.entries(metadata).map(
      ([key, value]) => `${key} ${Buffer.from(value).toString('base64')}`,
    )
    return { site, url: await site.createFinished('0123456789', { 'Upload-Metadata': header.join(',') }) }
  }

  it('a file name outside Latin-1 -> 200, with the name in UTF-8', async () => {
    const { site, url } = await siteWithFile({ filename: '🌊 潮.txt', filetype: 'text/plain' })
    const { status, headers, text } = await site.send('GET', url)
    expect({ status, text }).toEqual({ status: 200, text: '0123456789' })
    expect(headers['content-disposition']).toBe(
      `inline; filename="?? ?.txt"; filename*=UTF-8''%F0%9F%8C%8A%20%E6%BD%AE.txt`,
    )
  })

  it('a file name with quotes and line breaks -> escaped by the book', async () => {
    const { site, url } = await siteWithFile({ filename: 'say "hi"\r\nX-Evil: 1.txt' })
    const { headers } = await site.send('GET', url)
    expect(headers['content-disposition']).toBe(String.raw`attachment; filename="say \"hi\" X-Evil: 1.txt"`)
    expect(headers).not.toHaveProperty('x-evil')
  })

  const types: [declared: string, type: string, shown: 'inline' | 'attachment'][] = [
    ['image/png', 'image/png', 'inline'],
    ['IMAGE/PNG', 'image/png', 'inline'],
    ['text/plain', 'text/plain; charset=utf-8', 'inline'],
    ['text/html', 'text/html', 'attachment'],
    ['image/svg+xml', 'image/svg+xml', 'attachment'],
    ['text/html\r\nX-Evil: 1', 'application/octet-stream', 'attachment'],
    ['nonsense', 'application/octet-stream', 'attachment'],
  ]
  for (const [declared, type, shown] of types)
    it(`a file of type ${JSON.stringify(declared)} -> ${type}, ${shown}, and can run nothing`, async () => {
      const { site, url } = await siteWithFile({ filename: 'a', filetype: declared })
      const { headers } = await site.send('GET', url)
      expect(headers).toMatchObject({
        'content-type': type,
        'content-disposition': `${shown}; filename="a"`,
        'x-content-type-options': 'nosniff',
        'content-security-policy': "default-src 'none'; media-src 'self'; sandbox",
      })
    })

  const ranges: [range: string, status: number, contentRange: string | undefined, text: string][] = [
    ['bytes=2-4', 206, 'bytes 2-4/10', '234'],
    ['bytes=7-', 206, 'bytes 7-9/10', '789'],
    ['bytes=-3', 206, 'bytes 7-9/10', '789'],
    ['bytes=0-0', 206, 'bytes 0-0/10', '0'],
    ['bytes=8-99', 206, 'bytes 8-9/10', '89'],
    ['bytes=10-', 416, 'bytes */10', ''],
    ['bytes=0-1,1-3,4-5', 206, 'bytes 0-5/10', '012345'],
    ['bytes=-99', 206, 'bytes 0-9/10', '0123456789'],
    ['lines=1-2', 200, undefined, '0123456789'],
    ['nonsense', 200, undefined, '0123456789'],
  ]
  for (const [Range, status, contentRange, text] of ranges)
    it(`Range: ${Range} -> ${status}`, async () => {
      const { site, url } = await siteWithFile({})
      const answer = await site.send('GET', url, { Range, 'Tus-Resumable': undefined })
      expect({ status: answer.status, text: answer.text }).toEqual({ status, text })
      expect(answer.headers['content-range']).toBe(contentRange)
      expect(Number(answer.headers['content-length'])).toBe(text.length)
    })

  it('an ETag that is still right -> 304, and If-Range with it -> the range', async () => {
    const { site, url } = await siteWithFile({})
    const { etag } = (await site.send('GET', url)).headers
    expect(etag).toMatch(/^"[\w-]+"$/)
    expect(await site.send('GET', url, { 'If-None-Match': etag })).toMatchObject({ status: 304, text: '' })
    for (const list of [`"x", ${etag}`, `W/${etag}`, '*'])
      expect(await site.send('GET', url, { 'If-None-Match': list })).toMatchObject({ status: 304 })
    expect(await site.send('GET', url, { 'If-None-Match': '"x"' })).toMatchObject({ status: 200 })
    const ranged = { Range: 'bytes=1-2' }
    expect(await site.send('GET', url, { ...ranged, 'If-Range': etag })).toMatchObject({ status: 206 })
    expect(await site.send('GET', url, { ...ranged, 'If-Range': '"x"' })).toMatchObject({ status: 200 })
  })

  it('an upload that is not finished -> 404, and nothing of it is shown', async () => {
    const site = await startSite()
    const url = await site.create(6, bytesType, 'abc')
    expect((await site.send('GET', url)).text).not.toContain('abc')
    expect((await site.send('GET', url)).status).toBe(404)
  })

  it('downloads that are switched off -> 403', async () => {
    const site = await startSite({ disableDownload: true })
    const url = await site.createFinished('abc')
    expect(await site.send('GET', url)).toMatchObject({ status: 403 })
  })
})

describe('headers that change what a request means', () => {
  const refused: [method: string, header: string, value: string][] = [
    ['PATCH', 'Upload-Checksum', 'sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0='],
    ['PATCH', 'Trailer', 'Upload-Checksum'],
    ['PATCH', 'Trailer', 'x-a, upload-checksum'],
    ['POST', 'Upload-Checksum', 'sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0='],
    ['POST', 'Upload-Concat', 'partial'],
    ['POST', 'Upload-Concat', 'final;/files/a /files/b'],
  ]
  for (const [method, header, value] of refused)
    it(`${method} with ${header}: ${value} that is not announced -> 400, not silently ignored`, async () => {
      const datastore = new FileStore({ directory: await temporaryFolder(), durability: 'none' })
      const extensions = ['creation', 'creation-with-upload']
      Object.assign(datastore.byteStore, { extensions, concatenation: undefined })
      const site = await startSite({ datastore })
      const url = await site.create(3)
      const target = method === 'POST' ? '/files' : url
      const headers = method === 'POST' ? { 'Upload-Length': 3, ...bytesType } : bytesAt(0)
      const answer = await site.send(method, target, { ...headers, [header]: value }, 'abc')
      expect(answer.status).toBe(400)
      expect(answer.text).toContain('Upload-C')
      expect(await site.shown(url)).toBe('0/3')
    })
})
