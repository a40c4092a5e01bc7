// tus 1.0.0, core protocol. Row numbers are those of docs/protocol.md.

import { describe, expect, it } from 'vitest'
import { bytesAt, startSite } from './exchange.ts'

describe('version', () => {
  it('row 1: every answer says Tus-Resumable: 1.0.0, errors included', async () => {
    const site = await startSite()
    const url = await site.create(3)
    const answers = [
      await site.send('POST', '/files', { 'Upload-Length': 1 }),
      await site.head(url),
      await site.append(url, 0, 'abc'),
      await site.send('GET', url),
      await site.send('DELETE', url),
      await site.send('HEAD', '/files/none'),
      await site.send('POST', '/files'),
      await site.send('PUT', '/files/none'),
      await site.send('HEAD', '/files/none', { 'Tus-Resumable': '0.2.2' }),
      await site.send('GET', '/files/none', { 'Tus-Resumable': undefined }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([201, 200, 204, 200, 204, 404, 400, 405, 412, 404])
    for (const { headers } of answers) expect(headers['tus-resumable']).toBe('1.0.0')
  })

  for (const method of ['HEAD', 'PATCH', 'DELETE', 'GET', 'POST'])
    it(`row 2: ${method} with an unsupported Tus-Resumable -> 412 with Tus-Version, nothing processed`, async () => {
      const site = await startSite()
      const url = await site.create(6)
      const target = method === 'POST' ? '/files' : url
      const body = method === 'PATCH' ? 'abc' : undefined
      const headers = { ...bytesAt(0), 'Upload-Length': 6, 'Tus-Resumable': '2.0.0' }
      const answer = await site.send(method, target, headers, body)
      expect(answer).toMatchObject({ status: 412, headers: { 'tus-version': '1.0.0' } })
      expect(await site.shown(url)).toBe('0/6')
    })

  for (const method of ['HEAD', 'PATCH', 'DELETE', 'POST'])
    it(`row 3: ${method} without Tus-Resumable -> 412 with Tus-Version, nothing processed`, async () => {
      const site = await startSite()
      const url = await site.create(6)
      const target = method === 'POST' ? '/files' : url
      const headers = { ...bytesAt(0), 'Upload-Length': 6, 'Tus-Resumable': undefined }
      const answer = await site.send(method, target, headers, method === 'PATCH' ? 'abc' : undefined)
      expect(answer).toMatchObject({ status: 412, headers: { 'tus-version': '1.0.0' } })
      expect(await site.shown(url)).toBe('0/6')
    })
})

describe('OPTIONS', () => {
  it('row 4: OPTIONS -> 200 with Tus-Version, Tus-Extension, and Tus-Max-Size where there is a limit', async () => {
    const site = await startSite({ maxSize: 1000 })
    const answer = await site.send('OPTIONS', '/files', { 'Tus-Resumable': undefined })
    expect(answer).toMatchObject({
      status: 200,
      headers: {
        'tus-version': '1.0.0',
        'tus-max-size': '1000',
        'tus-extension':
          'creation,creation-with-upload,creation-defer-length,termination,expiration,checksum,checksum-trailer,concatenation,concatenation-unfinished',
      },
    })
  })

  it('row 4: OPTIONS announces nothing that is switched off, and no limit where there is none', async () => {
    const site = await startSite({ disableTermination: true })
    const { headers } = await site.send('OPTIONS', '/files')
    expect(headers['tus-extension']).not.toContain('termination')
    expect(headers).not.toHaveProperty('tus-max-size')
  })

  it('row 4: OPTIONS ignores the Tus-Resumable of the request', async () => {
    const site = await startSite()
    expect(await site.send('OPTIONS', '/files', { 'Tus-Resumable': '0.2.2' })).toMatchObject({ status: 200 })
  })
})

describe('X-HTTP-Method-Override', () => {
  it('row 5: POST that says PATCH acts as PATCH', async () => {
    const site = await startSite()
    const url = await site.create(6)
    const answer = await site.send('POST', url, bytesAt(0, { 'X-HTTP-Method-Override': 'PATCH' }), 'abc')
    expect(answer).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
    expect(await site.shown(url)).toBe('3/6')
  })

  it('row 5: GET that says HEAD acts as HEAD, and POST that says DELETE acts as DELETE', async () => {
    const site = await startSite()
    const url = await site.create(6)
    const asked = await site.send('GET', url, { 'X-HTTP-Method-Override': 'HEAD' })
    expect(asked).toMatchObject({ status: 200, headers: { 'upload-offset': '0', 'upload-length': '6' } })
    expect(await site.send('POST', url, { 'X-HTTP-Method-Override': 'delete' })).toMatchObject({
      status: 204,
    })
    expect(await site.shown(url)).toBe('404')
  })
})

describe('HEAD', () => {
  it('row 6: HEAD -> 200 with Upload-Offset, 0 and finished included, Upload-Length, and no-store', async () => {
    const site = await startSite()
    const url = await site.create(3)
    const expected = (offset: string) => ({
      status: 200,
      headers: { 'upload-offset': offset, 'upload-length': '3', 'cache-control': 'no-store' },
    })
    expect(await site.head(url)).toMatchObject(expected('0'))
    await site.append(url, 0, 'ab')
    expect(await site.head(url)).toMatchObject(expected('2'))
    await site.append(url, 2, 'c')
    expect(await site.head(url)).toMatchObject(expected('3'))
  })

  it('row 6: HEAD on an unknown upload -> 404 without Upload-Offset', async () => {
    const site = await startSite()
    const answer = await site.head(`/files/${'0'.repeat(32)}`)
    expect(answer.status).toBe(404)
    expect(answer.headers).not.toHaveProperty('upload-offset')
  })
})

describe('PATCH', () => {
  it('row 7: PATCH -> 204 with the new Upload-Offset', async () => {
    const site = await startSite()
    const url = await site.create(6)
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
    expect(await site.append(url, 3, 'def')).toMatchObject({ status: 204, headers: { 'upload-offset': '6' } })
    expect(await site.shown(url)).toBe('6/6')
    expect((await site.send('GET', url)).text).toBe('abcdef')
  })

  it('row 7: a chunked PATCH -> 204 with the new Upload-Offset', async () => {
    const site = await startSite()
    const url = await site.create(6)
    const request = site.open('PATCH', url, bytesAt(0, { 'Transfer-Encoding': 'chunked' }))
    request.chunk('ab')
    request.chunk('c')
    request.lastChunk()
    expect(await request.answer).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
    expect(await site.shown(url)).toBe('3/6')
  })

  for (const type of [undefined, 'application/octet-stream', 'application/offset+octet-stream2'])
    it(`row 8: PATCH with Content-Type ${type ?? 'missing'} -> 415, nothing stored`, async () => {
      const site = await startSite()
      const url = await site.create(6)
      const answer = await site.append(url, 0, 'abc', { 'Content-Type': type })
      expect(answer.status).toBe(415)
      expect(await site.shown(url)).toBe('0/6')
    })

  for (const offset of [0, 2, 4, 7])
    it(`row 9: PATCH with offset ${offset} where 3 is right -> 409 with the right Upload-Offset, nothing stored`, async () => {
      const site = await startSite()
      const url = await site.create(6)
      await site.append(url, 0, 'abc')
      const answer = await site.append(url, offset, 'def')
      expect(answer).toMatchObject({ status: 409, headers: { 'upload-offset': '3' } })
      expect(await site.shown(url)).toBe('3/6')
    })

  for (const offset of [undefined, '-1', '1.5', 'three', '', '0x1', '1e0', '9007199254740992', '0, 0'])
    it(`row 10: PATCH with Upload-Offset ${offset ?? 'missing'} -> 400, nothing stored`, async () => {
      const site = await startSite()
      const url = await site.create(6)
      expect(await site.append(url, 0, 'abc', { 'Upload-Offset': offset })).toMatchObject({ status: 400 })
      expect(await site.shown(url)).toBe('0/6')
    })

  it('row 11: Content-Length beyond Upload-Length -> 413 before a byte is read', async () => {
    const site = await startSite()
    const url = await site.create(6)
    await site.append(url, 0, 'abc')
    const request = site.open('PATCH', url, bytesAt(3, { 'Content-Length': 4 }))
    expect(await request.answer).toMatchObject({ status: 413, headers: { 'upload-offset': '3' } })
    expect(await site.shown(url)).toBe('3/6')
  })

  it('row 11: a chunked body that overflows -> 413 when it does, the upload stays below its length', async () => {
    const site = await startSite()
    const url = await site.create(6)
    await site.append(url, 0, 'abc')
    const request = site.open('PATCH', url, bytesAt(3, { 'Transfer-Encoding': 'chunked' }))
    request.chunk('defg')
    const answer = await request.answer
    expect(answer.status).toBe(413)
    expect(await site.shown(url)).toBe(`${answer.headers['upload-offset']}/6`)
    expect(Number(answer.headers['upload-offset'])).toBeLessThan(6)
    expect(await site.append(url, 3, 'def')).toMatchObject({ status: 204 })
    expect((await site.send('GET', url)).text).toBe('abcdef')
  })

  it('row 12: an empty PATCH on a finished upload at its end -> 204, no hook fires again', async () => {
    let finished = 0
    const site = await startSite({
      onUploadFinish: async () => {
        finished++
        return {}
      },
    })
    const url = await site.createFinished('abc')
    expect(await site.append(url, 3, '')).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
    const request = site.open('PATCH', url, bytesAt(3, { 'Transfer-Encoding': 'chunked' }))
    request.lastChunk()
    expect(await request.answer).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
    expect(finished).toBe(1)
    expect(await site.shown(url)).toBe('3/3')
  })

  it('row 12: an empty PATCH elsewhere -> 204 with the same offset', async () => {
    const site = await startSite()
    const url = await site.create(6)
    await site.append(url, 0, 'abc')
    expect(await site.append(url, 3, '')).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
    expect(await site.shown(url)).toBe('3/6')
  })

  it('row 12: a PATCH with bytes on a finished upload -> 413, and the client can read it', async () => {
    const site = await startSite()
    const url = await site.createFinished('abc')
    expect(await site.append(url, 3, 'd')).toMatchObject({ status: 413, headers: { 'upload-offset': '3' } })
    const request = site.open('PATCH', url, bytesAt(3, { 'Transfer-Encoding': 'chunked' }))
    request.chunk('d')
    expect(await request.answer).toMatchObject({ status: 413, headers: { 'upload-offset': '3' } })
    expect(await site.shown(url)).toBe('3/3')
  })

  it('row 13: connection cut in a PATCH -> HEAD shows the prefix that was kept', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10, Expect: '100-continue' }))
    await request.continued
    request.write('abc')
    request.cut()
    await request.closed
    expect(await site.shown(url)).toBe('3/10')
  })

  it('row 13: connection cut in a chunk -> HEAD shows the prefix that was kept', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const chunked = { 'Transfer-Encoding': 'chunked', Expect: '100-continue' }
    const request = site.open('PATCH', url, bytesAt(0, chunked))
    await request.continued
    request.chunk('ab')
    request.write('5\r\nc')
    request.cut()
    await request.closed
    expect(await site.shown(url)).toBe('3/10')
  })

  it('row 14: no byte for the network timeout -> the connection is closed, bytes are kept', async () => {
    const site = await startSite({ networkTimeoutMs: 100 })
    const url = await site.create(10)
    const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10 }))
    request.write('abc')
    await request.closed
    await expect(request.answer).rejects.toThrow('the connection ended after: ')
    expect(await site.shown(url)).toBe('3/10')
  })

  it('row 14: no byte for the network timeout on a finished upload -> the connection is closed', async () => {
    const site = await startSite({ networkTimeoutMs: 100 })
    const url = await site.createFinished('abc')
    const request = site.open('PATCH', url, bytesAt(3, { 'Transfer-Encoding': 'chunked' }))
    await request.closed
    expect(await site.shown(url)).toBe('3/3')
  })
})

describe('URLs and methods', () => {
  it('row 16: a query string on the upload URL is ignored', async () => {
    const site = await startSite()
    const url = await site.create(6)
    expect(await site.append(`${url}?token=1/../2`, 0, 'abc')).toMatchObject({ status: 204 })
    expect(await site.shown(`${url}?`)).toBe('3/6')
  })

  it('row 16: percent-encoding is decoded once', async () => {
    const site = await startSite({ namingFunction: () => 'a b%41' })
    const url = await site.create(6)
    expect(url).toBe('/files/a%20b%2541')
    expect(await site.shown(url)).toBe('0/6')
    expect(await site.shown('/files/a%20b%41')).toBe('404')
  })

  for (const id of ['nothing', '%', '%zz', '%00', '..', '%2e%2e', 'a/b', `${'x'.repeat(2000)}`])
    it(`row 16: an id that is not ours (${id.slice(0, 10)}) -> 404`, async () => {
      const site = await startSite()
      expect(await site.shown(`/files/${id}`)).toBe('404')
      expect(await site.append(`/files/${id}`, 0, 'abc')).toMatchObject({ status: 404 })
      expect(await site.send('DELETE', `/files/${id}`)).toMatchObject({ status: 404 })
    })

  for (const method of ['PUT', 'PROPFIND', 'TRACE'])
    it(`row 17: unknown method ${method} -> 405 with Allow`, async () => {
      const site = await startSite()
      const url = await site.create(6)
      const answer = await site.send(method, url)
      expect(answer.status).toBe(405)
      expect(answer.headers.allow).toBe('OPTIONS, POST, HEAD, PATCH, GET, DELETE')
      expect(await site.shown(url)).toBe('0/6')
    })
})
