// What is written for @tus/server goes on working: its options, hooks, events and methods, as its documentation has them.

import { Readable } from 'node:stream'
import { ReadableStream, type ReadableStreamDefaultController } from 'node:stream/web'
import { Upload } from '@tus/utils'
import { describe, expect, it } from 'vitest'
import { TidemarkServer } from '../../server/host/tidemark-server.ts'
import { FileStore } from '../../stores/file/file-store.ts'
import { temporaryFolder } from '../support/folder.ts'
import { bytesAt, bytesType, type Headers, startSite } from './exchange.ts'

const nameHeader = { 'Upload-Metadata': `filename ${Buffer.from('a.txt').toString('base64')},secret` }

describe('hooks', () => {
  it('namingFunction gets request and metadata, and its name is the id', async () => {
    const seen: unknown[] = []
    const site = await startSite({
      namingFunction: async (request, metadata) => {
        seen.push([request.method, request.headers.get('upload-length'), { ...metadata }])
        return 'given'
      },
    })
    expect(await site.create(6, nameHeader)).toBe('/files/given')
    expect(seen).toEqual([['POST', '6', { filename: 'a.txt', secret: null }]])
  })

  it('generateUrl and getFileIdFromRequest give uploads URLs of another shape', async () => {
    const seen: unknown[] = []
    const site = await startSite({
      namingFunction: () => 'folder/name',
      generateUrl: (_, parts) => {
        seen.push(parts)
        return `${parts.proto}://${parts.host}${parts.path}/${parts.id.replace('/', '~')}`
      },
      getFileIdFromRequest: (_, lastPath) => lastPath?.replace('~', '/'),
    })
    const url = await site.create(3)
    expect(url).toBe('/files/folder~name')
    expect(seen).toEqual([{ proto: 'http', host: site.host, path: '/files', id: 'folder/name' }])
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
    expect(await site.shown(url)).toBe('3/3')
  })

  it('onUploadCreate gets the upload, and what it gives as metadata is kept', async () => {
    const seen: Upload[] = []
    const site = await startSite({
      onUploadCreate: async (_, upload) => {
        seen.push(upload)
        return { metadata: { ...upload.metadata, owner: 'ännä' } }
      },
    })
    const url = await site.create(6, nameHeader)
    expect(seen[0]).toBeInstanceOf(Upload)
    expect(seen[0]).toMatchObject({ size: 6, offset: 0, metadata: { filename: 'a.txt', secret: null } })
    const kept = (await site.head(url)).headers['upload-metadata']
    expect(kept).toBe(`${nameHeader['Upload-Metadata']},owner ${Buffer.from('ännä').toString('base64')}`)
  })

  it('onUploadCreate that gives no metadata at all leaves none, and one that gives nothing leaves what was sent', async () => {
    const emptied = await startSite({ onUploadCreate: async () => ({ metadata: {} }) })
    const url = await emptied.create(6, nameHeader)
    expect((await emptied.head(url)).headers).not.toHaveProperty('upload-metadata')
    const left = await startSite({ onUploadCreate: async () => ({}) })
    const { headers } = await left.head(await left.create(6, nameHeader))
    expect(headers['upload-metadata']).toBe(nameHeader['Upload-Metadata'])
  })

  it('onUploadCreate that gives metadata no header can carry -> 500, nothing made', async () => {
    const site = await startSite({
      namingFunction: () => 'given',
      onUploadCreate: async () => ({ metadata: { 'a key\r\nX: y': '潮' } }),
    })
    expect(await site.send('POST', '/files', { 'Upload-Length': 6 })).toMatchObject({ status: 500 })
    expect(await site.shown('/files/given')).toBe('404')
  })

  it('onUploadCreate refuses by throwing status_code and body', async () => {
    const site = await startSite({
      namingFunction: () => 'given',
      onUploadCreate: async () => {
        throw { status_code: 422, body: 'no such thing' }
      },
    })
    const answer = await site.send('POST', '/files', { 'Upload-Length': 6 })
    expect(answer).toMatchObject({
      status: 422,
      text: 'no such thing',
      headers: { 'tus-resumable': '1.0.0' },
    })
    expect(await site.shown('/files/given')).toBe('404')
  })

  it('onUploadFinish gets the whole upload, and changes status, headers and body of the answer', async () => {
    const seen: Upload[] = []
    const site = await startSite({
      onUploadFinish: async (_, upload) => {
        seen.push(upload)
        return { status_code: 200, headers: { 'X-Count': 7 }, body: '{"ok":true}' }
      },
    })
    const url = await site.create(6, nameHeader)
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
    expect(await site.append(url, 3, 'def')).toMatchObject({
      status: 200,
      text: '{"ok":true}',
      headers: { 'x-count': '7', 'upload-offset': '6' },
    })
    expect(seen).toMatchObject([
      { id: url.split('/').at(-1), size: 6, offset: 6, metadata: { filename: 'a.txt' } },
    ])
    expect(seen[0]?.storage?.type).toBe('file')
  })

  it('onUploadFinish refuses by throwing, and the upload stays unfinished until it agrees', async () => {
    let agrees = false
    const site = await startSite({
      onUploadFinish: async () => {
        if (!agrees) throw { status_code: 409, body: 'not yet' }
        return {}
      },
    })
    const url = await site.create(3)
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 409, text: 'not yet' })
    expect(await site.send('GET', url)).toMatchObject({ status: 404 })
    const offset = Number((await site.head(url)).headers['upload-offset'])
    expect(offset).toBeLessThan(3)
    agrees = true
    expect(await site.append(url, offset, 'abc'.slice(offset))).toMatchObject({ status: 204 })
    expect((await site.send('GET', url)).text).toBe('abc')
  })

  const unsendable: [string, { status_code?: number; headers?: Record<string, string> }][] = [
    ['a header with a line break', { headers: { 'X-Name': 'a\r\nb' } }],
    ['a header outside Latin-1', { headers: { 'X-Name': '潮' } }],
    ['a header name with a space', { headers: { 'X Name': 'a' } }],
    ['a status that is none', { status_code: 99 }],
  ]
  for (const [what, answer] of unsendable)
    it(`onUploadFinish that gives ${what} -> 500, the upload is finished and the process lives`, async () => {
      const site = await startSite({ onUploadFinish: async () => answer })
      const url = await site.create(3)
      expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 500 })
      expect(await site.shown(url)).toBe('3/3')
      expect(site.reports).toMatchObject([{ is: 'request-failed' }])
    })

  it('onIncomingRequest gets every request to an upload with its id, and refuses by throwing', async () => {
    const seen: string[] = []
    const site = await startSite({
      namingFunction: () => 'given',
      onIncomingRequest: async (request, id) => {
        seen.push(`${request.method} ${id}`)
        if (request.headers.get('authorization') !== 'me') throw { status_code: 401, body: 'who?' }
      },
    })
    const mine = { Authorization: 'me' }
    const url = await site.create(3, mine)
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 401, text: 'who?' })
    expect(await site.append(url, 0, 'abc', mine)).toMatchObject({ status: 204 })
    expect(await site.send('HEAD', url, mine)).toMatchObject({ headers: { 'upload-offset': '3' } })
    expect(await site.send('GET', url)).toMatchObject({ status: 401 })
    expect(await site.send('DELETE', url, mine)).toMatchObject({ status: 204 })
    expect(seen).toEqual(
      ['POST', 'PATCH', 'PATCH', 'HEAD', 'GET', 'DELETE'].map((method) => `${method} given`),
    )
  })

  it('onResponseError sees what is refused, and may answer something else', async () => {
    const seen: unknown[] = []
    const site = await startSite({
      onResponseError: (_, error) => {
        seen.push(error)
        return (error as { status_code: number }).status_code === 404
          ? { status_code: 410, body: 'long gone' }
          : undefined
      },
    })
    expect(await site.send('DELETE', '/files/none')).toMatchObject({ status: 410, text: 'long gone' })
    expect(await site.send('POST', '/files')).toMatchObject({ status: 400 })
    expect(seen).toMatchObject([
      { status_code: 404, body: 'not-found: there is no such upload\n' },
      { status_code: 400 },
    ])
  })

  it('onResponseError is given the error that a hook threw', async () => {
    class OverQuota extends Error {}
    const site = await startSite({
      onUploadCreate: async () => {
        throw new OverQuota('seven of five')
      },
      onResponseError: (_, error) =>
        error instanceof OverQuota ? { status_code: 402, body: error.message } : undefined,
    })
    const answer = await site.send('POST', '/files', { 'Upload-Length': 6 })
    expect(answer).toMatchObject({ status: 402, text: 'seven of five' })
  })

  it('an error that nobody expected -> 500 without its words, and it is reported', async () => {
    const site = await startSite({
      onUploadCreate: async () => {
        throw new Error('at /srv/secret/path')
      },
    })
    const answer = await site.send('POST', '/files', { 'Upload-Length': 6 })
    expect(answer.status).toBe(500)
    expect(answer.text).not.toContain('secret')
    expect(site.reports).toMatchObject([{ is: 'request-failed', error: { message: 'at /srv/secret/path' } }])
  })

  it('an onResponseError that throws, or answers nonsense -> the answer that was meant, and the process lives', async () => {
    const throwing = () => {
      throw new Error('in the mapping')
    }
    for (const onResponseError of [throwing, () => ({ status_code: 7, body: '' })]) {
      const site = await startSite({ onResponseError })
      expect(await site.send('DELETE', '/files/none')).toMatchObject({ status: 404 })
      expect(site.reports).toMatchObject([{ is: 'request-failed' }])
    }
  })

  it('maxSize as a function gets request and id, and its limit counts', async () => {
    const seen: unknown[] = []
    const site = await startSite({
      namingFunction: () => 'given',
      maxSize: async (request, id) => {
        seen.push([request.method, id])
        return request.headers.get('x-plan') === 'large' ? 100 : 6
      },
    })
    expect(await site.send('POST', '/files', { 'Upload-Length': 7 })).toMatchObject({ status: 413 })
    const large = { 'Upload-Length': 7, 'X-Plan': 'large' }
    expect(await site.send('POST', '/files', large)).toMatchObject({ status: 201 })
    expect(seen).toEqual([
      ['POST', 'given'],
      ['POST', 'given'],
    ])
    expect((await site.send('OPTIONS', '/files')).headers).not.toHaveProperty('tus-max-size')
  })
})

describe('HEAD and failures', () => {
  it('a store that fails for a while -> HEAD 423 with Retry-After, never 5xx; clients would begin again', async () => {
    const site = await startSite()
    const url = await site.create(6)
    const { bytes } = site.server.engine
    const look = bytes.look.bind(bytes)
    bytes.look = async () => {
      throw new Error('EIO: i/o error, read')
    }
    expect(await site.head(url)).toMatchObject({ status: 423, headers: { 'retry-after': '1' } })
    bytes.look = look
    expect(await site.shown(url)).toBe('0/6')
  })
})

describe('events', () => {
  it('come with the documented arguments', async () => {
    const heard: unknown[][] = []
    const site = await startSite()
    for (const event of ['POST_CREATE', 'POST_FINISH', 'POST_TERMINATE'])
      site.server.on(event, (...args: unknown[]) => heard.push([event, ...args]))
    const url = await site.create(3, nameHeader)
    await site.append(url, 0, 'abc')
    await site.send('DELETE', url)
    const id = url.split('/').at(-1)
    const [created = [], finished = [], terminated = []] = heard
    expect(created.slice(2, 4)).toMatchObject([{ id, size: 3, offset: 0 }, `http://${site.host}${url}`])
    expect((finished[2] as Response).headers.get('upload-offset')).toBe('3')
    expect(finished[3]).toMatchObject({ id, size: 3, offset: 3, metadata: { filename: 'a.txt' } })
    expect((terminated[2] as Response).status).toBe(204)
    expect(terminated[3]).toBe(id)
    const methods = heard.map(([event, request]) => [event, (request as Request).method])
    expect(methods).toEqual([
      ['POST_CREATE', 'POST'],
      ['POST_FINISH', 'PATCH'],
      ['POST_TERMINATE', 'DELETE'],
    ])
  })

  it('POST_RECEIVE tells of a running upload, with request and upload', async () => {
    const site = await startSite({ postReceiveInterval: 1 })
    const url = await site.create(100_000)
    const received = new Promise<[Request, Upload]>((resolve) => {
      site.server.on('POST_RECEIVE', (request, upload) => resolve([request, upload]))
    })
    const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 100_000 }))
    const sending = setInterval(() => request.write('x'), 20)
    const [told, upload] = await received
    clearInterval(sending)
    request.cut()
    expect(told.method).toBe('PATCH')
    expect(upload.offset).toBeGreaterThan(0)
    expect(upload.size).toBe(100_000)
  })

  it('POST_RECEIVE tells of a short body when it has ended, and of nothing twice', async () => {
    const site = await startSite({ postReceiveInterval: 60_000 })
    const offsets: number[] = []
    site.server.on('POST_RECEIVE', (_request, upload) => void offsets.push(upload.offset))
    const url = await site.create(6)
    for (const at of [0, 3]) await site.send('PATCH', url, bytesAt(at), 'abc')
    expect(offsets).toEqual([3, 6])
  })

  it('an async listener that rejects does not end the process', async () => {
    const site = await startSite()
    site.server.on('POST_FINISH', async () => {
      throw new Error('a listener of the application')
    })
    await site.createFinished('abc')
    await expect.poll(() => site.reports).toMatchObject([{ is: 'listener-failed', event: 'POST_FINISH' }])
  })
})

describe('get(path, handler)', () => {
  it('answers GET on that path, and only that', async () => {
    const site = await startSite()
    site.server.get('/files/health', (request) => {
      const headers = new Headers({ 'X-Asked': new URL(request.url).search })
      headers.append('Set-Cookie', 'a=1')
      headers.append('Set-Cookie', 'b=2')
      return new Response('fine', { status: 207, headers })
    })
    const answer = await site.send('GET', '/files/health?deep', { 'Tus-Resumable': undefined })
    expect(answer).toMatchObject({ status: 207, text: 'fine' })
    expect(answer.headers).toMatchObject({ 'x-asked': '?deep', 'set-cookie': 'a=1, b=2' })
    expect(await site.shown('/files/health')).toBe('404')
    expect(await site.send('GET', '/files/healthy')).toMatchObject({ status: 404 })
  })

  it('answers an error of its handler as any other error', async () => {
    const site = await startSite()
    site.server.get('/files/health', async () => {
      throw { status_code: 418, body: 'a teapot' }
    })
    expect(await site.send('GET', '/files/health')).toMatchObject({ status: 418, text: 'a teapot' })
  })
})

describe('handleWeb', () => {
  const base = 'http://up.example/files'

  async function startWeb(options = {}) {
    const datastore = new FileStore({ directory: await temporaryFolder(), durability: 'none' })
    const server = new TidemarkServer({ path: '/files', datastore, ...options })
    const send = (method: string, url: string, headers: Headers = {}, body?: string | ReadableStream) =>
      server.handleWeb(
        new Request(url, {
          method,
          headers: { 'Tus-Resumable': '1.0.0', ...(headers as Record<string, string>) },
          ...(body !== undefined && { body, duplex: 'half' }),
        } as RequestInit),
      )
    return { server, send }
  }

  it('takes a web Request through a whole upload, with bodies of unknown length', async () => {
    const { send, server } = await startWeb()
    const created = await send('POST', base, { 'Upload-Length': '9', ...bytesType }, 'abc')
    expect(created.status).toBe(201)
    expect(created.headers.get('upload-offset')).toBe('3')
    const url = created.headers.get('location')!
    expect(url).toMatch(/^http:\/\/up\.example\/files\/[0-9a-f]{32}$/)
    const stream = Readable.toWeb(Readable.from([Buffer.from('de'), Buffer.from('f')]))
    expect((await send('PATCH', url, bytesAt('3'), stream)).headers.get('upload-offset')).toBe('6')
    expect((await send('PATCH', url, bytesAt('6'), 'ghi')).status).toBe(204)
    const head = await send('HEAD', url)
    expect([head.status, head.headers.get('upload-offset'), await head.text()]).toEqual([200, '9', ''])
    expect(await (await send('GET', url)).text()).toBe('abcdefghi')
    expect((await send('DELETE', url)).status).toBe(204)
    expect((await send('HEAD', url)).status).toBe(404)
    await server.close()
  })

  it('answers refusals, and routes of get()', async () => {
    const { send, server } = await startWeb()
    server.get('/files/health', () => new Response('fine'))
    expect(await (await send('GET', `${base}/health`)).text()).toBe('fine')
    expect((await send('PATCH', `${base}/none`, bytesAt('0'), 'abc')).status).toBe(404)
    const tooMuch = await send('POST', base, { 'Upload-Length': '2', ...bytesType }, 'abc')
    expect([tooMuch.status, tooMuch.headers.get('tus-resumable')]).toEqual([413, '1.0.0'])
    await server.close()
  })

  it('keeps what came of a body that fails in the middle', async () => {
    const { send, server } = await startWeb()
    const created = await send('POST', base, { 'Upload-Length': '9' })
    const url = created.headers.get('location')!
    let pulls = 0
    const pull = (controller: ReadableStreamDefaultController) => {
      if (pulls++ === 0) controller.enqueue(Buffer.from('abc'))
      else controller.error(new Error('cut'))
    }
    const stream = new ReadableStream({ pull }, { highWaterMark: 0 })
    expect((await send('PATCH', url, bytesAt('0'), stream)).type).toBe('error')
    expect((await send('HEAD', url)).headers.get('upload-offset')).toBe('3')
    await server.close()
  })
})
