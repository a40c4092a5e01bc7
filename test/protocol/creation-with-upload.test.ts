// tus 1.0.0, creation-with-upload, and how early refusals reach a client. Row numbers are those of docs/protocol.md.

import { describe, expect, it } from 'vitest'
import { deferred } from '../support/deferred.ts'
import { bytesAt, bytesType, type Headers, pathOf, startSite } from './exchange.ts'

describe('creation with bytes', () => {
  it('row 25: POST with all bytes -> 201 with Upload-Offset, finished', async () => {
    const site = await startSite()
    const answer = await site.send('POST', '/files', { 'Upload-Length': 3, ...bytesType }, 'abc')
    expect(answer).toMatchObject({ status: 201, headers: { 'upload-offset': '3' } })
    expect(await site.shown(pathOf(answer))).toBe('3/3')
    expect((await site.send('GET', pathOf(answer))).text).toBe('abc')
  })

  it('row 25: POST with the first bytes -> 201 with Upload-Offset, to be gone on with', async () => {
    const site = await startSite()
    const answer = await site.send('POST', '/files', { 'Upload-Length': 6, ...bytesType }, 'abc')
    expect(answer).toMatchObject({ status: 201, headers: { 'upload-offset': '3' } })
    expect(await site.append(pathOf(answer), 3, 'def')).toMatchObject({ status: 204 })
    expect((await site.send('GET', pathOf(answer))).text).toBe('abcdef')
  })

  it('row 25: a chunked POST -> 201 with Upload-Offset', async () => {
    const site = await startSite()
    const headers = { 'Upload-Length': 6, 'Transfer-Encoding': 'chunked', ...bytesType }
    const request = site.open('POST', '/files', headers)
    request.chunk('ab')
    request.chunk('c')
    request.lastChunk()
    expect(await request.answer).toMatchObject({ status: 201, headers: { 'upload-offset': '3' } })
  })

  it('row 25: POST with a body longer than Upload-Length -> 413, nothing made', async () => {
    const site = await startSite({ namingFunction: () => 'upload' })
    const answer = await site.send('POST', '/files', { 'Upload-Length': 3, ...bytesType }, 'abcd')
    expect(answer.status).toBe(413)
    expect(await site.shown('/files/upload')).toBe('404')
  })

  it('row 25: a chunked POST that overflows Upload-Length -> 413, nothing is left', async () => {
    const site = await startSite({ namingFunction: () => 'upload' })
    const headers = { 'Upload-Length': 3, 'Transfer-Encoding': 'chunked', ...bytesType }
    const request = site.open('POST', '/files', headers)
    request.chunk('abcd')
    expect(await request.answer).toMatchObject({ status: 413 })
    expect(await site.shown('/files/upload')).toBe('404')
    expect(await site.create(3)).toBe('/files/upload')
  })

  for (const more of [{ 'Content-Length': 3 }, { 'Transfer-Encoding': 'chunked' }] as Headers[])
    it(`row 26: POST with a body of another Content-Type (${Object.keys(more)}) -> 415, nothing made`, async () => {
      const site = await startSite({ namingFunction: () => 'upload' })
      const request = site.open('POST', '/files', {
        'Upload-Length': 3,
        'Content-Type': 'text/plain',
        ...more,
      })
      expect(await request.answer).toMatchObject({ status: 415 })
      expect(await site.shown('/files/upload')).toBe('404')
    })

  it('row 26: POST without a body -> 201, its Content-Type is ignored', async () => {
    const site = await startSite()
    const headers = { 'Upload-Length': 3, 'Content-Type': 'application/json' }
    expect(await site.send('POST', '/files', headers)).toMatchObject({ status: 201 })
    expect(await site.send('POST', '/files', headers, '')).toMatchObject({ status: 201 })
  })
})

describe('Expect: 100-continue', () => {
  it('row 27: PATCH that passes the checks -> 100, then 204', async () => {
    const site = await startSite()
    const url = await site.create(3)
    const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 3, Expect: '100-continue' }))
    await request.continued
    request.write('abc')
    expect(await request.answer).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
  })

  it('row 27: POST that passes the checks -> 100, then 201', async () => {
    const site = await startSite()
    const headers = { 'Upload-Length': 3, 'Content-Length': 3, Expect: '100-continue', ...bytesType }
    const request = site.open('POST', '/files', headers)
    await request.continued
    request.write('abc')
    expect(await request.answer).toMatchObject({ status: 201, headers: { 'upload-offset': '3' } })
  })

  const refused: [status: number, method: string, headers: Headers][] = [
    [412, 'PATCH', bytesAt(0, { 'Tus-Resumable': '2.0.0' })],
    [415, 'PATCH', bytesAt(0, { 'Content-Type': 'text/plain' })],
    [400, 'PATCH', bytesAt('x')],
    [409, 'PATCH', bytesAt(1)],
    [413, 'PATCH', bytesAt(0, { 'Content-Length': 7 })],
    [404, 'POST', {}],
    [405, 'PUT', {}],
  ]
  for (const [status, method, headers] of refused)
    it(`row 27: ${method} that will be refused with ${status} -> refused before its body, without a 100`, async () => {
      const site = await startSite()
      const url = await site.create(6)
      const request = site.open(method, url, { 'Content-Length': 6, Expect: '100-continue', ...headers })
      let isContinued = false
      void request.continued.then(() => {
        isContinued = true
      })
      expect(await request.answer).toMatchObject({ status, headers: { connection: 'close' } })
      await request.closed
      expect(isContinued).toBe(false)
      expect(await site.shown(url)).toBe('0/6')
    })

  it('row 27: a creation that a hook refuses -> refused before its body, without a 100', async () => {
    const site = await startSite({
      onUploadCreate: async () => {
        throw { status_code: 403, body: 'not you' }
      },
    })
    const headers = { 'Upload-Length': 3, 'Content-Length': 3, Expect: '100-continue', ...bytesType }
    const request = site.open('POST', '/files', headers)
    expect(await request.answer).toMatchObject({ status: 403, text: 'not you' })
  })

  it('row 27: while a PATCH waits for the upload no 100 is sent', async () => {
    const finishing = deferred()
    const mayGoOn = deferred()
    const site = await startSite({
      acquireLockTimeoutMs: 20,
      onUploadFinish: async () => {
        finishing.resolve()
        await mayGoOn.promise
        return {}
      },
    })
    const url = await site.create(3)
    const holder = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 3 }))
    holder.write('abc')
    await finishing.promise
    const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 3, Expect: '100-continue' }))
    expect(await request.answer).toMatchObject({ status: 423 })
    mayGoOn.resolve()
    expect(await holder.answer).toMatchObject({ status: 204 })
  })
})

describe('a refusal while a large body is arriving', () => {
  const bodyBytes = 50 * 1024 * 1024
  const piece = Buffer.alloc(256 * 1024)

  const refused: [status: number, method: string, headers: Headers][] = [
    [409, 'PATCH', bytesAt(3)],
    [413, 'PATCH', bytesAt(0, { 'Upload-Length': 6 })],
    [415, 'PATCH', bytesAt(0, { 'Content-Type': 'text/plain' })],
    [412, 'PATCH', bytesAt(0, { 'Tus-Resumable': undefined })],
  ]
  for (const [status, method, headers] of refused)
    it(`row 27: ${status} while 50 MiB are sent -> the whole answer can be read, and the body may be sent to its end`, async () => {
      const site = await startSite()
      const url = await site.create('deferred')
      const request = site.open(method, url, { 'Content-Length': bodyBytes, ...headers })
      for (let sent = 0; sent < bodyBytes; sent += piece.length) {
        request.write(piece)
        await Promise.race([request.drained(), request.closed])
      }
      const answer = await request.answer
      expect(answer).toMatchObject({ status, headers: { connection: 'close' } })
      expect(answer.text.length).toBe(Number(answer.headers['content-length']))
      await request.closed
      expect(await site.shown(url)).toBe('0/?')
    })

  it('row 27: 413 in the middle of a chunked body -> the whole answer can be read', async () => {
    const site = await startSite()
    const url = await site.create(1024 * 1024)
    const request = site.open('PATCH', url, bytesAt(0, { 'Transfer-Encoding': 'chunked' }))
    for (let sent = 0; sent < bodyBytes; sent += piece.length) {
      request.write(`${piece.length.toString(16)}\r\n`)
      request.write(piece)
      request.write('\r\n')
      await Promise.race([request.drained(), request.closed])
    }
    request.lastChunk()
    const answer = await request.answer
    expect(answer).toMatchObject({ status: 413, headers: { connection: 'close' } })
    expect(await site.shown(url)).toBe(`${answer.headers['upload-offset']}/${1024 * 1024}`)
  })

  it('row 27: the refusal is there before the body has ended', async () => {
    const site = await startSite()
    const url = await site.create(bodyBytes)
    const request = site.open('PATCH', url, bytesAt(3, { 'Content-Length': bodyBytes }))
    request.write(piece)
    expect(await request.answer).toMatchObject({ status: 409, headers: { 'upload-offset': '0' } })
  })
})
