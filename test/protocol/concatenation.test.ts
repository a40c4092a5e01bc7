// tus 1.0.0, concatenation and concatenation-unfinished. Row numbers are those of docs/protocol.md.

import { readdir } from 'node:fs/promises'
import { describe, expect, it, vi } from 'vitest'
import { FileStore } from '../../stores/file/file-store.ts'
import { deferred } from '../support/deferred.ts'
import { temporaryFolder } from '../support/folder.ts'
import { type Answer, bytesAt, bytesType, type Headers, pathOf, type Site, startSite } from './exchange.ts'

const partial = { 'Upload-Concat': 'partial' }

function finalOf(...urls: string[]): Headers {
  return { 'Upload-Concat': `final;${urls.join(' ')}` }
}

/** A finished part. */
function part(site: Site, body: string, headers: Headers = {}): Promise<string> {
  return site.createFinished(body, { ...partial, ...headers })
}

function concat(site: Site, ...urls: string[]): Promise<Answer> {
  return site.send('POST', '/files', finalOf(...urls))
}

async function textOf(site: Site, url: string): Promise<string> {
  return (await site.send('GET', url)).text
}

/** Uploads that are there. */
async function count(site: Site): Promise<number> {
  let uploads = 0
  for await (const _ of site.server.engine.bytes.walk()) uploads++
  return uploads
}

describe('a part', () => {
  it('row 42: POST with Upload-Concat: partial -> 201, HEAD shows it', async () => {
    const site = await startSite()
    const created = await site.send('POST', '/files', { ...partial, 'Upload-Length': 6 })
    expect(created.status).toBe(201)
    const url = pathOf(created)
    expect(await site.head(url)).toMatchObject({
      status: 200,
      headers: { 'upload-concat': 'partial', 'upload-offset': '0', 'upload-length': '6' },
    })
    expect(await site.append(url, 0, 'abcdef')).toMatchObject({ status: 204 })
    expect((await site.head(url)).headers).toMatchObject({ 'upload-concat': 'partial', 'upload-offset': '6' })
  })

  it('row 42: a part may begin with bytes, be empty, or have its length deferred', async () => {
    const site = await startSite()
    expect(await site.shown(await part(site, 'abc'))).toBe('3/3')
    expect(await site.shown(await site.create(0, partial))).toBe('0/0')
    const url = await site.create('deferred', partial)
    expect((await site.head(url)).headers).toMatchObject({
      'upload-concat': 'partial',
      'upload-defer-length': '1',
    })
  })

  it('row 42: a finished part is no download and fires no finish hook', async () => {
    const onUploadFinish = vi.fn(async () => ({}))
    const site = await startSite({ onUploadFinish })
    const finished = vi.fn()
    site.server.on('POST_FINISH', finished)
    const url = await part(site, 'abc')
    expect(await site.send('GET', url)).toMatchObject({ status: 404 })
    expect(onUploadFinish).not.toHaveBeenCalled()
    expect(finished).not.toHaveBeenCalled()
  })

  it('row 42: where the store can not concatenate it is not announced, and Upload-Concat -> 400', async () => {
    const datastore = new FileStore({ directory: await temporaryFolder() })
    Object.assign(datastore.byteStore, { concatenation: undefined })
    const site = await startSite({ datastore })
    const { headers } = await site.send('OPTIONS', '/files')
    expect(headers['tus-extension']).not.toContain('concatenation')
    for (const concat of ['partial', 'final;/files/a'])
      expect(await site.send('POST', '/files', { 'Upload-Concat': concat })).toMatchObject({ status: 400 })
  })
})

describe('a final', () => {
  const forms: [name: string, form: (site: Site, path: string) => string][] = [
    ['absolute', (site, path) => `http://${site.host}${path}`],
    ['absolute, by another name of this server', (_, path) => `https://uploads.example.com${path}?a=b`],
    ['relative to the host', (_, path) => path],
    ['relative to the creation URL', (_, path) => path.slice('/files/'.length)],
  ]
  for (const [name, form] of forms)
    it(`row 43: POST with the URLs of its parts (${name}) -> 201, their bytes in the listed order`, async () => {
      const site = await startSite()
      const [a, b] = [await part(site, 'abc'), await part(site, 'defg')]
      const created = await concat(site, form(site, b), form(site, a))
      expect(created).toMatchObject({ status: 201, headers: { 'upload-offset': '7' } })
      expect(await textOf(site, pathOf(created))).toBe('defgabc')
    })

  it('row 43: a part that comes twice -> its bytes come twice', async () => {
    const site = await startSite()
    const [a, b] = [await part(site, 'abc'), await part(site, 'd')]
    expect(await textOf(site, pathOf(await concat(site, a, b, a)))).toBe('abcdabc')
  })

  it('row 43: of one part, or of empty ones -> 201', async () => {
    const site = await startSite()
    const empty = await site.create(0, partial)
    expect(await textOf(site, pathOf(await concat(site, await part(site, 'abc'))))).toBe('abc')
    expect(await site.shown(pathOf(await concat(site, empty, empty)))).toBe('0/0')
  })

  it('row 43: uploads with URLs of another shape -> 201, found as their requests are', async () => {
    let made = 0
    const site = await startSite({
      namingFunction: () => `folder/${++made}`,
      generateUrl: (_, { proto, host, path, id }) => `${proto}://${host}${path}/${id.replace('/', '~')}`,
      getFileIdFromRequest: (_, lastPath) => lastPath?.replace('~', '/'),
    })
    const [a, b] = [await part(site, 'abc'), await part(site, 'd')]
    const created = await concat(site, a, `http://u:p@other.example${b}`)
    expect(pathOf(created)).toBe('/files/folder~3')
    expect(await textOf(site, pathOf(created))).toBe('abcd')
  })

  it('row 44: HEAD -> Upload-Concat as received, length and offset are the sum, metadata is its own', async () => {
    const site = await startSite()
    const a = await part(site, 'abc', { 'Upload-Metadata': 'of-part YQ==' })
    const b = await part(site, 'defg')
    const asSent = `final;http://${site.host}${a}  ${b}`
    const created = await site.send('POST', '/files', {
      'Upload-Concat': asSent,
      'Upload-Metadata': 'own Yg==',
    })
    const { headers } = await site.head(pathOf(created))
    expect(headers).toMatchObject({
      'upload-concat': asSent,
      'upload-length': '7',
      'upload-offset': '7',
      'upload-metadata': 'own Yg==',
    })
    const plain = await site.head(pathOf(await concat(site, a, b)))
    expect(plain.headers).not.toHaveProperty('upload-metadata')
  })

  it('row 44: the finish hook fires once, for the final, and its answer goes back', async () => {
    const seen: unknown[] = []
    const site = await startSite({
      onUploadFinish: async (_, { offset, size }) => {
        seen.push({ offset, size })
        return { headers: { 'X-Made': 'yes' } }
      },
    })
    const finished = vi.fn()
    site.server.on('POST_FINISH', finished)
    const created = await concat(site, await part(site, 'abc'), await part(site, 'defg'))
    expect(created).toMatchObject({ status: 201, headers: { 'x-made': 'yes' } })
    expect(seen).toEqual([{ offset: 7, size: 7 }])
    expect(finished).toHaveBeenCalledTimes(1)
  })

  it('row 44: a finish hook that refuses -> its status, and the final stays unfinished until it is asked for again', async () => {
    let refuses = true
    const site = await startSite({
      onUploadFinish: async () => {
        if (refuses) throw { status_code: 422, body: 'not now' }
        return {}
      },
    })
    const a = await part(site, 'abc')
    expect(await concat(site, a)).toMatchObject({ status: 422, text: 'not now' })
    refuses = false
    expect(await textOf(site, pathOf(await concat(site, a)))).toBe('abc')
  })
})

describe('what can not be concatenated', () => {
  it('row 45: PATCH on a final, finished or not -> 403, nothing changes', async () => {
    const site = await startSite()
    const finished = pathOf(await concat(site, await part(site, 'abc')))
    const waiting = pathOf(await concat(site, await site.create(3, partial)))
    for (const [url, offset] of [
      [finished, 3],
      [finished, 0],
      [waiting, 0],
    ] as const) {
      expect(await site.append(url, offset, 'x')).toMatchObject({ status: 403 })
      expect(await site.append(url, offset, '')).toMatchObject({ status: 403 })
    }
    expect(await textOf(site, finished)).toBe('abc')
  })

  const refused: [name: string, headers: Headers, body: string | undefined, status: number][] = [
    ['Upload-Length', { 'Upload-Length': 3 }, undefined, 400],
    ['Upload-Defer-Length', { 'Upload-Defer-Length': 1 }, undefined, 400],
    ['a body', bytesType, 'abc', 403],
    ['a chunked body', { ...bytesType, 'Transfer-Encoding': 'chunked' }, '3\r\nabc\r\n0\r\n\r\n', 403],
    ['Upload-Checksum', { 'Upload-Checksum': 'sha1 2jmj7l5rSw0yVb/vlWAYkK/YBwk=' }, undefined, 400],
    ['bad metadata', { 'Upload-Metadata': 'a *' }, undefined, 400],
  ]
  for (const [name, headers, body, status] of refused)
    it(`row 45: a final with ${name} -> ${status}, nothing made`, async () => {
      const site = await startSite()
      const chunked = 'Transfer-Encoding' in headers ? { 'Content-Length': undefined } : {}
      const all = { ...finalOf(await part(site, 'abc')), ...chunked, ...headers }
      expect(await site.send('POST', '/files', all, body)).toMatchObject({ status })
      expect(await count(site)).toBe(1)
    })

  const words = [
    '',
    'final',
    'final;',
    'final;  ',
    'Partial',
    'partial;',
    'part',
    'FINAL;/files/a',
    'partial, partial',
  ]
  for (const word of words)
    it(`row 45: Upload-Concat: "${word}" -> 400, nothing made`, async () => {
      const site = await startSite()
      const answer = await site.send('POST', '/files', { 'Upload-Concat': word, 'Upload-Length': 3 })
      expect(answer.status).toBe(400)
      expect(await count(site)).toBe(0)
    })

  const strange: [name: string, url: (site: Site) => string | Promise<string>][] = [
    ['that is not there', () => '/files/none'],
    ['that is no URL', () => 'http://['],
    ['that is the creation URL', () => '/files/'],
    ['elsewhere', () => '/other/a'],
    ['below an upload', () => '/files/a/b'],
    ['with an id that can not be one', () => '/files/..%2f..%2fetc%2fpasswd'],
    ['with NUL in its id', () => '/files/a%00'],
    ['with bad percent-encoding', () => '/files/%zz'],
    ['that is an ordinary upload', (site) => site.createFinished('abc')],
    ['that is itself a final', async (site) => pathOf(await concat(site, await part(site, 'abc')))],
    [
      'that was terminated',
      async (site) => {
        const url = await part(site, 'abc')
        await site.send('DELETE', url)
        return url
      },
    ],
  ]
  for (const [name, url] of strange)
    it(`row 45: a part ${name} -> 400 that says which one, nothing made`, async () => {
      const site = await startSite()
      const [good, bad] = [await part(site, 'abc'), await url(site)]
      const before = await count(site)
      const answer = await concat(site, good, bad)
      expect(answer.status).toBe(400)
      expect(answer.text).toContain('part 2')
      expect(await count(site)).toBe(before)
      expect(await site.send('DELETE', good)).toMatchObject({ status: 204 })
    })

  it('row 45: parts that are more than the limit together -> 413, nothing made', async () => {
    const site = await startSite({ maxSize: 5 })
    const [a, b] = [await part(site, 'abc'), await part(site, 'def')]
    expect(await concat(site, a, b)).toMatchObject({ status: 413 })
    expect(await count(site)).toBe(2)
  })

  it('row 45: parts of unknown length that turn out to be more than the limit -> the final is gone', async () => {
    const site = await startSite({ maxSize: 5 })
    const [a, b] = [await part(site, 'abc'), await site.create('deferred', partial)]
    const url = pathOf(await concat(site, a, b))
    await site.append(b, 0, 'def', { 'Upload-Length': 3 })
    await vi.waitFor(async () => expect(await site.shown(url)).toBe('404'))
    expect(await site.shown(a)).toBe('3/3')
  })

  it('row 45: 1000 parts -> 201, 1001 -> 400', async () => {
    const site = await startSite()
    const url = await part(site, 'a')
    const urls = Array<string>(1000).fill(`http://${site.host}${url}`)
    expect(await site.shown(pathOf(await concat(site, ...urls)))).toBe('1000/1000')
    expect(await concat(site, url, ...urls)).toMatchObject({ status: 400 })
  })
})

describe('a final of unfinished parts', () => {
  it('row 46: asked for before its parts are finished -> no Upload-Offset, Upload-Length when all are known', async () => {
    const site = await startSite()
    const [a, b] = [await site.create(3, partial), await site.create('deferred', partial)]
    const created = await site.send('POST', '/files', { ...finalOf(a, b), ...bytesType })
    expect(created.status).toBe(201)
    expect(created.headers).not.toHaveProperty('upload-offset')
    const url = pathOf(created)
    const waiting = await site.head(url)
    expect(waiting).toMatchObject({ status: 200, headers: { 'upload-concat': `final;${a} ${b}` } })
    for (const name of ['upload-offset', 'upload-length', 'upload-defer-length'])
      expect(waiting.headers).not.toHaveProperty(name)
    await site.append(b, 0, '', { 'Upload-Length': 4 })
    expect((await site.head(url)).headers).toMatchObject({ 'upload-length': '7' })
    expect((await site.head(url)).headers).not.toHaveProperty('upload-offset')
    expect(await site.send('GET', url)).toMatchObject({ status: 404 })
  })

  it('row 46: it finishes when its last part does, and the finish hook fires once', async () => {
    const onUploadFinish = vi.fn(async () => ({}))
    const site = await startSite({ onUploadFinish })
    const finished = vi.fn()
    site.server.on('POST_FINISH', finished)
    const [a, b] = [await site.create(3, partial), await site.create(4, partial)]
    const url = pathOf(await concat(site, a, b))
    await Promise.all([site.append(b, 0, 'defg'), site.append(a, 0, 'abc')])
    await vi.waitFor(() => expect(finished).toHaveBeenCalled())
    expect(await site.shown(url)).toBe('7/7')
    expect(await textOf(site, url)).toBe('abcdefg')
    await site.server.cleanUpExpiredUploads()
    expect(onUploadFinish).toHaveBeenCalledTimes(1)
    expect(finished).toHaveBeenCalledTimes(1)
  })

  it('row 46: asking for it disturbs no part that is being received', async () => {
    const site = await startSite()
    const a = await site.create(6, partial)
    const patch = site.open('PATCH', a, bytesAt(0, { 'Content-Length': 6, Expect: '100-continue' }))
    await patch.continued
    patch.write('abc')
    const url = pathOf(await concat(site, a))
    patch.write('def')
    expect(await patch.answer).toMatchObject({ status: 204 })
    await vi.waitFor(async () => expect(await textOf(site, url)).toBe('abcdef'))
  })

  it('row 46: a part of it expires with it, and not before', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.UTC(2031, 1, 1) })
    try {
      const hourMs = 3_600_000
      const site = await startSite({ expiry: { afterMs: hourMs, mode: 'sliding' } })
      const [a, b] = [await site.create(3, partial), await site.create(3, partial)]
      const url = pathOf(await concat(site, a, b))
      vi.setSystemTime(Date.now() + hourMs - 1000)
      await site.append(a, 0, 'a')
      vi.setSystemTime(Date.now() + hourMs - 1000)
      await site.server.cleanUpExpiredUploads()
      expect([await site.shown(a), await site.shown(b)]).toEqual(['1/3', '0/3'])
      expect((await site.head(url)).status).toBe(200)
      vi.setSystemTime(Date.now() + 2000)
      expect(await Promise.all([a, b, url].map((each) => site.shown(each)))).toEqual(['410', '410', '410'])
      await site.server.cleanUpExpiredUploads()
      await site.server.cleanUpExpiredUploads()
      expect(await readdir(site.folder)).toEqual([])
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('parts and their final', () => {
  it('row 47: the final has bytes of its own, parts stay as they are', async () => {
    const site = await startSite()
    const [a, b] = [await part(site, 'abc'), await part(site, 'def')]
    const url = pathOf(await concat(site, a, b))
    expect([await site.shown(a), await site.shown(b)]).toEqual(['3/3', '3/3'])
    for (const each of [a, b]) expect(await site.send('DELETE', each)).toMatchObject({ status: 204 })
    expect(await textOf(site, url)).toBe('abcdef')
    expect((await readdir(site.folder)).sort()).toEqual([`.${url.slice(7)}.0.mark`, url.slice(7)].sort())
  })

  it('row 47: DELETE of a part of an unfinished final -> 409, of a finished one -> 204', async () => {
    const site = await startSite()
    const [a, b] = [await part(site, 'abc'), await site.create(3, partial)]
    const url = pathOf(await concat(site, a, b))
    for (const each of [a, b]) expect(await site.send('DELETE', each)).toMatchObject({ status: 409 })
    await site.append(b, 0, 'def')
    await vi.waitFor(async () => expect(await site.shown(url)).toBe('6/6'))
    for (const each of [a, b]) expect(await site.send('DELETE', each)).toMatchObject({ status: 204 })
  })

  it('row 47: DELETE of the unfinished final -> 204, then of its parts too, and nothing is left', async () => {
    const site = await startSite()
    const [a, b] = [await part(site, 'abc'), await site.create(3, partial)]
    const url = pathOf(await concat(site, a, b))
    for (const each of [url, a, b]) expect(await site.send('DELETE', each)).toMatchObject({ status: 204 })
    expect(await readdir(site.folder)).toEqual([])
  })

  it('row 47: remove-parts -> parts go once their final is finished, but not while another one waits', async () => {
    const site = await startSite({ removeParts: true })
    const [a, b] = [await part(site, 'abc'), await site.create(3, partial)]
    const waiting = pathOf(await concat(site, a, b))
    const url = pathOf(await concat(site, a))
    expect(await textOf(site, url)).toBe('abc')
    expect(await site.shown(a)).toBe('3/3')
    await site.append(b, 0, 'def')
    await vi.waitFor(async () => expect([await site.shown(a), await site.shown(b)]).toEqual(['404', '404']))
    expect(await textOf(site, waiting)).toBe('abcdef')
  })
})

describe('a final POST whose answer was lost', () => {
  it('row 48: the same parts and metadata -> the same final, other ones -> another', async () => {
    const onUploadCreate = vi.fn(async () => ({}))
    const onUploadFinish = vi.fn(async () => ({}))
    const site = await startSite({ onUploadCreate, onUploadFinish })
    const [a, b] = [await part(site, 'abc'), await part(site, 'def')]
    const before = onUploadCreate.mock.calls.length
    const named = { 'Upload-Metadata': 'name YQ==' }
    const send = (headers: Headers) => site.send('POST', '/files', headers).then(pathOf)
    const url = await send({ ...finalOf(a, b), ...named })
    expect(await send({ ...finalOf(a, b), ...named })).toBe(url)
    expect(onUploadCreate).toHaveBeenCalledTimes(before + 1)
    expect(onUploadFinish).toHaveBeenCalledTimes(1)
    expect(await send(finalOf(a, b))).not.toBe(url)
    expect(await send({ ...finalOf(b, a), ...named })).not.toBe(url)
  })

  it('row 48: while it waits, at the same time, and after its parts were removed -> the same final', async () => {
    const site = await startSite({ removeParts: true })
    const [a, b] = [await part(site, 'abc'), await site.create(3, partial)]
    const asked = await Promise.all([concat(site, a, b), concat(site, a, b)])
    expect(new Set(asked.map(({ status }) => status))).toEqual(new Set([201]))
    expect(new Set(asked.map(pathOf)).size).toBe(1)
    await site.append(b, 0, 'def')
    await vi.waitFor(async () => expect(await site.shown(b)).toBe('404'))
    expect(await concat(site, a, b)).toMatchObject({ status: 201, headers: { 'upload-offset': '6' } })
  })

  it('row 48: where the application names uploads -> the same final', async () => {
    let made = 0
    const site = await startSite({ namingFunction: () => `upload${++made}` })
    const [a, b] = [await part(site, 'abc'), await site.create(3, partial)]
    const url = pathOf(await concat(site, a, b))
    expect(pathOf(await concat(site, a, b))).toBe(url)
    await site.append(b, 0, 'def')
    await vi.waitFor(async () => expect(await site.shown(url)).toBe('6/6'))
    expect(pathOf(await concat(site, a, b))).toBe(url)
    expect(await count(site)).toBe(3)
  })

  it('row 48: HEAD on a final takes no lock', async () => {
    const hook = deferred()
    const entered = deferred()
    const site = await startSite({
      acquireLockTimeoutMs: 100,
      onUploadFinish: async () => {
        entered.resolve()
        await hook.promise
        return {}
      },
    })
    const a = await part(site, 'abc')
    const making = concat(site, a)
    await entered.promise
    const url = pathOf({ headers: { location: `/files/${await waitingFinal(site)}` } } as unknown as Answer)
    expect((await site.head(url)).headers).toMatchObject({ 'upload-length': '3' })
    expect((await site.head(url)).headers).not.toHaveProperty('upload-offset')
    hook.resolve()
    expect(pathOf(await making)).toBe(url)
    expect(await site.shown(url)).toBe('3/3')
  })
})

async function waitingFinal(site: Site): Promise<string> {
  for await (const { head } of site.server.engine.bytes.walk()) if (head.parts) return head.id
  throw new Error('there is no final')
}
