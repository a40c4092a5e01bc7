// What a hook's answer does to the request, and to the upload.

import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { hookTypes } from '../../server/hooks/hook-types.ts'
import type { TidemarkServerOptions } from '../../server/host/server-options.ts'
import { bytesAt, bytesType, pathOf, startSite } from '../protocol/exchange.ts'
import { Receiver } from './receiver.ts'

const enabled = hookTypes.filter((type) => type !== 'pre-access')

async function hookedSite(options: Partial<TidemarkServerOptions> = {}, hooks: object = {}) {
  const receiver = await Receiver.start()
  const settings = { http: { url: receiver.url }, enabled, progressIntervalMs: 1, backoffMs: 1, ...hooks }
  const site = await startSite({ hooks: settings, ...options })
  return { receiver, site }
}

const create = (length: number, more = {}) =>
  ['POST', '/files', { 'Upload-Length': length, ...more }] as const

describe('pre-create', () => {
  it('refuses an upload, and nothing is created', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-create': { RejectUpload: true } }
    const answer = await site.send(...create(3, bytesType), 'abc')
    expect(answer.status).toBe(400)
    expect(await readdir(site.folder)).toEqual([])
    expect(receiver.types).toEqual(['pre-create'])
  })

  it('refuses in its own words', async () => {
    const { receiver, site } = await hookedSite()
    const HTTPResponse = {
      StatusCode: 402,
      Body: '{"pay":1}',
      Header: { 'Content-Type': 'application/json' },
    }
    receiver.answers = { 'pre-create': { RejectUpload: true, HTTPResponse } }
    const answer = await site.send(...create(3))
    expect(answer).toMatchObject({ status: 402, text: '{"pay":1}' })
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.headers['tus-resumable']).toBe('1.0.0')
  })

  it('is understood in any case, as Go understands it', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-create': { rejectUpload: true, httpresponse: { statuscode: 403 } } }
    expect((await site.send(...create(3))).status).toBe(403)
  })

  it('names the upload, also with slashes, and replaces all its metadata', async () => {
    const { receiver, site } = await hookedSite()
    const ChangeFileInfo = { ID: "2026/a%b!$'()*+,;=:@~-_.png", MetaData: { owner: 'zoë' } }
    receiver.answers = { 'pre-create': { ChangeFileInfo } }
    const answer = await site.send(...create(3, { 'Upload-Metadata': 'filename YQ==' }))
    expect(answer.status).toBe(201)
    const url = pathOf(answer)
    expect(decodeURIComponent(url)).toBe(`/files/${ChangeFileInfo.ID}`)
    expect(url.split('/')).toHaveLength(3)
    const { headers } = await site.head(url)
    expect(headers['upload-metadata']).toBe(`owner ${Buffer.from('zoë').toString('base64')}`)
    expect((await site.append(url, 0, 'abc')).status).toBe(204)
    expect((await site.send('GET', url)).text).toBe('abc')
    const [finished] = await receiver.until('post-finish')
    expect(finished?.payload.Event.Upload.ID).toBe(ChangeFileInfo.ID)
    expect((await site.send('DELETE', url)).status).toBe(204)
  })

  it('can not name two uploads alike', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-create': { ChangeFileInfo: { ID: 'same' } } }
    expect((await site.send(...create(3))).status).toBe(201)
    expect((await site.send(...create(3))).status).toBe(409)
  })

  it('takes all metadata away', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-create': { ChangeFileInfo: { MetaData: {} } } }
    const url = await site.create(3, { 'Upload-Metadata': 'filename YQ==' })
    expect((await site.head(url)).headers['upload-metadata']).toBeUndefined()
  })

  it('adds to the answer of a creation', async () => {
    const { receiver, site } = await hookedSite()
    const HTTPResponse = { StatusCode: 200, Body: 'welcome', Header: { 'X-Backend': 'seven' } }
    receiver.answers = { 'pre-create': { HTTPResponse } }
    const answer = await site.send(...create(3))
    expect(answer).toMatchObject({ status: 200, text: 'welcome' })
    expect(answer.headers).toMatchObject({
      'x-backend': 'seven',
      'content-type': 'text/plain; charset=utf-8',
    })
    expect(await site.shown(pathOf(answer))).toBe('0/3')
  })

  it('names finals too', async () => {
    const { receiver, site } = await hookedSite()
    const part = await site.createFinished('abc', { 'Upload-Concat': 'partial' })
    receiver.answers = { 'pre-create': { ChangeFileInfo: { ID: 'whole' } } }
    const answer = await site.send('POST', '/files', { 'Upload-Concat': `final;${part}` })
    expect(pathOf(answer)).toBe('/files/whole')
    expect((await site.send('GET', '/files/whole')).text).toBe('abc')
  })
})

describe('pre-finish', () => {
  const refusal = { HTTPResponse: { StatusCode: 422, Body: 'a virus' } }

  it('refuses in its own words, keeps the upload unfinished, and is asked again by one more byte', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-finish': refusal }
    const url = await site.create(6)
    expect(await site.append(url, 0, 'abcdef')).toMatchObject({ status: 422, text: 'a virus' })
    expect(await site.shown(url)).toBe('5/6')
    expect((await site.append(url, 5, 'f')).status).toBe(422)
    expect((await site.send('GET', url)).status).toBe(404)
    receiver.answers = {}
    expect((await site.append(url, 5, 'f')).status).toBe(204)
    await receiver.until('post-finish')
    expect((await site.append(url, 6, '')).status).toBe(204)
    expect((await site.send('GET', url)).text).toBe('abcdef')
    expect(receiver.types.filter((type) => type.endsWith('finish'))).toEqual([
      'pre-finish',
      'pre-finish',
      'pre-finish',
      'post-finish',
    ])
  })

  it('refuses a creation with all its content, which leaves nothing', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-finish': { RejectUpload: true } }
    expect((await site.send(...create(3, bytesType), 'abc')).status).toBe(400)
    expect((await readdir(site.folder)).filter((name) => name !== '.tidemark')).toEqual([])
  })

  it('is asked for an upload without bytes, and for one whose length is said last', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-finish': refusal }
    expect((await site.send(...create(0))).status).toBe(422)
    const url = await site.create('deferred')
    expect((await site.append(url, 0, 'abc')).status).toBe(204)
    const finish = () => site.send('PATCH', url, bytesAt(3, { 'Upload-Length': 3, 'Content-Length': 0 }))
    expect((await finish()).status).toBe(422)
    expect(await site.shown(url)).toBe('3/?')
    receiver.answers = {}
    expect((await finish()).status).toBe(204)
    expect(await site.shown(url)).toBe('3/3')
    expect((await site.send(...create(0))).status).toBe(201)
  })

  it('keeps what a checksum has verified', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-finish': refusal }
    const url = await site.create(3)
    const sum = { 'Upload-Checksum': 'md5 kAFQmDzST7DWlj99KOF/cg==' }
    expect((await site.append(url, 0, 'abc', sum)).status).toBe(422)
    expect(await site.shown(url)).toBe('2/3')
  })

  it('changes the answer of the last request', async () => {
    const { receiver, site } = await hookedSite()
    const HTTPResponse = { StatusCode: 200, Body: '{"url":"/a"}', Header: { 'X-Done': 'yes' } }
    receiver.answers = { 'pre-finish': { HTTPResponse } }
    const url = await site.create(3)
    const answer = await site.append(url, 0, 'abc')
    expect(answer).toMatchObject({ status: 200, text: '{"url":"/a"}' })
    expect(answer.headers).toMatchObject({ 'x-done': 'yes', 'upload-offset': '3' })
  })

  it('is asked before onUploadFinish, which is called once', async () => {
    let calls = 0
    const { receiver, site } = await hookedSite({
      onUploadFinish: async () => {
        calls++
        return {}
      },
    })
    receiver.answers = { 'pre-finish': refusal }
    const url = await site.create(3)
    await site.append(url, 0, 'abc')
    expect(calls).toBe(0)
    receiver.answers = {}
    await site.append(url, 2, 'c')
    expect(calls).toBe(1)
  })
})

describe('pre-terminate', () => {
  it('keeps the upload', async () => {
    const { receiver, site } = await hookedSite()
    const url = await site.create(3)
    receiver.answers = { 'pre-terminate': { RejectTermination: true } }
    expect((await site.send('DELETE', url)).status).toBe(400)
    expect(await site.shown(url)).toBe('0/3')
    expect(receiver.of('post-terminate')).toEqual([])
  })

  it('has a twin for who uses the library', async () => {
    const site = await startSite({
      onUploadTerminate: (_, { id }) => {
        throw { status_code: 409, body: `${id} stays` }
      },
    })
    const url = await site.create(3)
    expect(await site.send('DELETE', url)).toMatchObject({
      status: 409,
      text: expect.stringMatching(/stays$/),
    })
    expect(await site.shown(url)).toBe('0/3')
  })
})

describe('post-receive', () => {
  it('stops a running body, and the upload is gone', async () => {
    const { receiver, site } = await hookedSite()
    const HTTPResponse = { Body: 'enough' }
    receiver.answers = { 'post-receive': { StopUpload: true, HTTPResponse } }
    const url = await site.create(6)
    const patch = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 6 }))
    patch.write('abc')
    expect(await patch.answer).toMatchObject({ status: 400, text: 'enough' })
    patch.cut()
    expect(await site.shown(url)).toBe('404')
    await receiver.until('post-terminate')
    expect(existsSync(`${site.folder}/${url.slice('/files/'.length)}`)).toBe(false)
  })

  it('stops a creation that carries bytes', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'post-receive': { StopUpload: true } }
    const creation = site.open('POST', '/files', { 'Upload-Length': 6, ...bytesType, 'Content-Length': 6 })
    creation.write('abc')
    expect((await creation.answer).status).toBe(400)
    creation.cut()
    await receiver.until('post-terminate')
    expect((await readdir(site.folder)).filter((name) => name !== '.tidemark')).toEqual([])
  })

  it('never holds a body up, and is asked one thing at a time', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'post-receive': () => undefined }
    const size = 24 * 1024 * 1024
    const url = await site.create(size)
    const patch = site.open('PATCH', url, bytesAt(0, { 'Content-Length': size }))
    patch.write('a')
    await receiver.until('post-receive')
    patch.write(Buffer.alloc(size - 1))
    expect((await patch.answer).status).toBe(204)
    expect(receiver.of('post-receive')).toHaveLength(1)
    patch.cut()
  })

  const offsetsIn = (receiver: Receiver) =>
    receiver.of('post-receive').map(({ payload }) => payload.Event.Upload.Offset)

  it('tells of every body at its end, however short it is, and of nothing twice', async () => {
    const { receiver, site } = await hookedSite({}, { progressIntervalMs: 60_000 })
    const url = await site.create(10)
    await site.send('PATCH', url, bytesAt(0), 'abc')
    await site.send('PATCH', url, bytesAt(3), 'defg')
    await site.send('PATCH', url, bytesAt(7), '')
    await site.send('PATCH', url, bytesAt(7), 'hij')
    await site.createFinished('12345')
    await expect.poll(() => offsetsIn(receiver)).toEqual([3, 7, 10, 5])
    await receiver.until('post-finish')
    expect(offsetsIn(receiver)).toEqual([3, 7, 10, 5])
  })

  it('tells how far a body came that was cut, and nothing of one that did not match its checksum', async () => {
    const { receiver, site } = await hookedSite({}, { progressIntervalMs: 60_000 })
    const url = await site.create(10)
    const patch = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10 }))
    patch.write('abc')
    await expect.poll(() => site.shown(url)).toBe('3/10')
    patch.cut()
    await expect.poll(() => offsetsIn(receiver)).toEqual([3])
    const wrong = { 'Upload-Checksum': `sha1 ${Buffer.alloc(20).toString('base64')}` }
    expect((await site.send('PATCH', url, bytesAt(3, wrong), 'defg')).status).toBe(460)
    await site.send('PATCH', url, bytesAt(3), 'x')
    await expect.poll(() => offsetsIn(receiver)).toEqual([3, 4])
  })

  it('tells of the end when what was asked before is answered, and comes too late to stop anything', async () => {
    const { receiver, site } = await hookedSite()
    const open: ServerResponse[] = []
    receiver.answers = { 'post-receive': (response) => void open.push(response) }
    const url = await site.create(6)
    const patch = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 6 }))
    patch.write('abc')
    await receiver.until('post-receive')
    patch.write('def')
    expect((await patch.answer).status).toBe(204)
    patch.cut()
    expect(offsetsIn(receiver)).toEqual([3])
    const stop = JSON.stringify({ StopUpload: true })
    for (const at of [0, 1]) {
      await expect.poll(() => open.length).toBe(at + 1)
      open[at]!.writeHead(200, { 'Content-Type': 'application/json' }).end(stop)
    }
    expect(offsetsIn(receiver)).toEqual([3, 6])
    expect(await site.shown(url)).toBe('6/6')
  })
})

describe('pre-access', () => {
  const requests = [
    ['POST', '/files', { 'Upload-Length': 3 }],
    ['HEAD', 'upload', {}],
    ['GET', 'upload', {}],
    ['PATCH', 'upload', bytesAt(0, { 'Content-Length': 0 })],
    ['DELETE', 'upload', {}],
  ] as const

  it.each(requests)('refuses %s', async (method, target, headers) => {
    const { receiver, site } = await hookedSite({}, { enabled: ['pre-access'] })
    const upload = await site.create(3)
    receiver.answers = { 'pre-access': { RejectAccess: true } }
    const url = target === 'upload' ? upload : target
    expect((await site.send(method, url, headers)).status).toBe(403)
    receiver.answers = { 'pre-access': { HTTPResponse: { StatusCode: 401 } } }
    expect((await site.send(method, url, headers)).status).toBe(401)
  })

  it('never makes who asks for an offset begin anew: HEAD is answered 423 for what would be 5xx or 429', async () => {
    const { receiver, site } = await hookedSite({}, { enabled: ['pre-access'], retries: 0 })
    const url = await site.create(3)
    for (const StatusCode of [429, 500, 503]) {
      receiver.answers = { 'pre-access': { HTTPResponse: { StatusCode } } }
      const { status, headers } = await site.head(url)
      expect([status, headers['retry-after']]).toEqual([423, '1'])
      expect((await site.send('DELETE', url)).status).toBe(StatusCode)
    }
    await receiver.down()
    expect((await site.head(url)).status).toBe(423)
    expect((await site.send('DELETE', url)).status).toBe(500)
  })
})
