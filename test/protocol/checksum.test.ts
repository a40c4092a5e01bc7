// tus 1.0.0, checksum and checksum-trailer. Row numbers are those of docs/protocol.md.

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import { describe, expect, it, vi } from 'vitest'
import {
  bytesAt,
  bytesType,
  type Headers,
  type OpenRequest,
  pathOf,
  type Site,
  startSite,
} from './exchange.ts'

const trailing = { 'Transfer-Encoding': 'chunked', Trailer: 'Upload-Checksum' }

describe('what is announced', () => {
  it('row 33: OPTIONS -> Tus-Checksum-Algorithm, and the extensions', async () => {
    const site = await startSite()
    const { headers } = await site.send('OPTIONS', '/files')
    expect(headers['tus-checksum-algorithm']).toBe('sha1,sha256,sha512,md5,crc32')
    expect(headers['tus-extension']?.split(',')).toEqual(
      expect.arrayContaining(['checksum', 'checksum-trailer']),
    )
  })
})

describe('a checksum in a header', () => {
  for (const algorithm of ['sha1', 'sha256', 'sha512', 'md5', 'crc32'])
    it(`row 34: ${algorithm} that matches -> 204, and the bytes are kept`, async () => {
      const site = await startSite()
      const url = await site.create(6)
      const answer = await site.append(url, 0, 'abc', { 'Upload-Checksum': checksum('abc', algorithm) })
      expect(answer).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
      expect(await site.shown(url)).toBe('3/6')
    })

  for (const algorithm of ['sha1', 'sha256', 'sha512', 'md5', 'crc32'])
    it(`row 34: ${algorithm} that does not match -> 460, the offset is unchanged, and a good retry works`, async () => {
      const site = await startSite()
      const url = await site.create(6, bytesType, 'abc')
      const wrong = await site.append(url, 3, 'dXf', { 'Upload-Checksum': checksum('def', algorithm) })
      expect(wrong).toMatchObject({ status: 460, headers: { 'upload-offset': '3' } })
      expect(await site.shown(url)).toBe('3/6')

      const right = await site.append(url, 3, 'def', { 'Upload-Checksum': checksum('def', algorithm) })
      expect(right).toMatchObject({ status: 204, headers: { 'upload-offset': '6' } })
      expect((await site.send('GET', url)).text).toBe('abcdef')
    })

  it('row 34: the last bytes do not match -> 460, and the upload is not finished', async () => {
    const finished = vi.fn()
    const site = await startSite({ onUploadFinish: async () => finished() })
    const url = await site.create(3)
    expect((await site.append(url, 0, 'abX', { 'Upload-Checksum': checksum('abc') })).status).toBe(460)
    expect(await site.shown(url)).toBe('0/3')
    expect((await site.send('GET', url)).status).toBe(404)
    expect(finished).not.toHaveBeenCalled()
  })

  it('row 34: a body of many batches that does not match -> 460, and not one of them counts', async () => {
    const site = await startSite()
    const body = Buffer.alloc(20 * 1024 * 1024, 'x')
    const url = await site.create(body.length + 1)
    const answer = await site.send('PATCH', url, bytesAt(0, { 'Upload-Checksum': checksum('y') }), body)
    expect(answer).toMatchObject({ status: 460, headers: { 'upload-offset': '0' } })
    expect(await site.shown(url)).toBe(`0/${body.length + 1}`)
    const retry = await site.send('PATCH', url, bytesAt(0, { 'Upload-Checksum': checksum(body) }), body)
    expect(retry.status).toBe(204)
  })

  it('row 34: no bytes, and the checksum of no bytes -> 204', async () => {
    const site = await startSite()
    const url = await site.create(3)
    expect(await site.append(url, 0, '', { 'Upload-Checksum': checksum('') })).toMatchObject({ status: 204 })
    expect(await site.append(url, 0, '', { 'Upload-Checksum': checksum('x') })).toMatchObject({ status: 460 })
  })

  for (const digest of [
    Buffer.from('short').toString('base64'),
    createHash('sha1').update('abc').digest('hex'),
  ])
    it(`row 34: a digest that can not be one of sha1 (${digest}) -> 460, it does not match`, async () => {
      const site = await startSite()
      const url = await site.create(3)
      expect((await site.append(url, 0, 'abc', { 'Upload-Checksum': `sha1 ${digest}` })).status).toBe(460)
      expect(await site.shown(url)).toBe('0/3')
    })

  it('row 34: a length that comes with bytes that do not match is not fixed by them', async () => {
    const site = await startSite()
    const url = await site.create('deferred')
    const headers = { 'Upload-Length': 3, 'Upload-Checksum': checksum('x') }
    expect((await site.append(url, 0, 'abc', headers)).status).toBe(460)
    expect(await site.shown(url)).toBe('0/?')
  })

  const malformed: [sentence: string, value: string][] = [
    ['no digest', 'sha1'],
    ['an empty digest', 'sha1 '],
    ['no base64', 'sha1 %%%%'],
    ['more than two words', `${checksum('abc')} again`],
    ['nothing', ''],
  ]
  for (const [sentence, value] of malformed)
    it(`row 35: a checksum with ${sentence} -> 400, nothing stored`, async () => {
      const site = await startSite()
      const url = await site.create(3)
      expect(await site.append(url, 0, 'abc', { 'Upload-Checksum': value })).toMatchObject({ status: 400 })
      expect(await site.shown(url)).toBe('0/3')
    })

  for (const name of ['sha3', 'SHA1', 'constructor'])
    it(`row 35: the unknown algorithm ${name} -> 400, nothing stored`, async () => {
      const site = await startSite()
      const url = await site.create(3)
      const answer = await site.append(url, 0, 'abc', { 'Upload-Checksum': `${name} AAAA` })
      expect(answer).toMatchObject({ status: 400, text: expect.stringContaining('algorithm') })
      expect(await site.shown(url)).toBe('0/3')
    })

  it('row 39: the digest of the whole file in hex -> 400 that says which form is wanted', async () => {
    const site = await startSite()
    const url = await site.create(3)
    const value = createHash('sha256').update('abc').digest('hex')
    const answer = await site.append(url, 0, 'abc', { 'Upload-Checksum': value })
    expect(answer.status).toBe(400)
    expect(answer.text).toContain('base64')
  })
})

describe('a checksum in a trailer', () => {
  for (const algorithm of ['sha1', 'crc32'])
    it(`row 36: ${algorithm} that matches -> 204`, async () => {
      const site = await startSite()
      const url = await site.create(3)
      const answer = await sendTrailing(site, url, ['ab', 'c'], {
        'Upload-Checksum': checksum('abc', algorithm),
      })
      expect(answer).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
      expect((await site.send('GET', url)).text).toBe('abc')
    })

  it('row 36: one that does not match -> 460, nothing is kept', async () => {
    const site = await startSite()
    const url = await site.create(3)
    const answer = await sendTrailing(site, url, ['abc'], { 'Upload-Checksum': checksum('abd') })
    expect(answer).toMatchObject({ status: 460, headers: { 'upload-offset': '0' } })
    expect(await site.shown(url)).toBe('0/3')
  })

  it('row 36: one that was announced and did not come -> 460, nothing is kept', async () => {
    const site = await startSite()
    const url = await site.create(3)
    expect(await sendTrailing(site, url, ['abc'], {})).toMatchObject({ status: 460 })
    expect(await site.shown(url)).toBe('0/3')
  })

  it('row 36: one that is malformed -> 400, nothing is kept', async () => {
    const site = await startSite()
    const url = await site.create(3)
    expect(await sendTrailing(site, url, ['abc'], { 'Upload-Checksum': 'sha1' })).toMatchObject({
      status: 400,
    })
    expect(await site.shown(url)).toBe('0/3')
  })

  it('row 36: one that is announced for a body that is not chunked -> 400, nothing stored', async () => {
    const site = await startSite()
    const url = await site.create(3)
    expect(await site.append(url, 0, 'abc', { Trailer: 'Upload-Checksum' })).toMatchObject({ status: 400 })
    expect(await site.shown(url)).toBe('0/3')
  })
})

describe('a body with a checksum that ends before its end', () => {
  it('row 37: cut off -> nothing of it is kept', async () => {
    const site = await startSite()
    const url = await site.create(6, bytesType, 'abc')
    const request = await sendAllButOne(site, url)
    request.cut()
    await vi.waitFor(async () => expect(await site.shown(url)).toBe('3/6'))
    expect(await site.append(url, 3, 'xyz')).toMatchObject({ status: 204 })
    expect((await site.send('GET', url)).text).toBe('abcxyz')
  })

  it('row 37: displaced -> 423 with the offset that it had before', async () => {
    const site = await startSite()
    const url = await site.create(6, bytesType, 'abc')
    const request = await sendAllButOne(site, url)
    expect(await site.shown(url)).toBe('3/6')
    expect(await request.answer).toMatchObject({ status: 423, headers: { 'upload-offset': '3' } })
  })

  it('row 37: the server is stopped -> 204 with the offset that it had before', async () => {
    const site = await startSite()
    const url = await site.create(6, bytesType, 'abc')
    const request = await sendAllButOne(site, url)
    await site.server.drain()
    expect(await request.answer).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
  })
})

describe('a creation with bytes and a checksum', () => {
  it('row 38: that matches -> 201 with Upload-Offset', async () => {
    const site = await startSite()
    const headers = { 'Upload-Length': 3, 'Upload-Checksum': checksum('abc'), ...bytesType }
    const answer = await site.send('POST', '/files', headers, 'abc')
    expect(answer).toMatchObject({ status: 201, headers: { 'upload-offset': '3' } })
    expect((await site.send('GET', pathOf(answer))).text).toBe('abc')
  })

  it('row 38: that does not match -> 460 with Location and Upload-Offset 0; the upload is there, and empty', async () => {
    const site = await startSite()
    const headers = { 'Upload-Length': 3, 'Upload-Checksum': checksum('abc'), ...bytesType }
    const answer = await site.send('POST', '/files', headers, 'abX')
    expect(answer).toMatchObject({ status: 460, headers: { 'upload-offset': '0' } })
    const url = pathOf(answer)
    expect(await site.shown(url)).toBe('0/3')
    expect(await site.append(url, 0, 'abc', { 'Upload-Checksum': checksum('abc') })).toMatchObject({
      status: 204,
    })
    expect((await site.send('GET', url)).text).toBe('abc')
  })

  it('row 38: that is malformed -> 400, nothing made', async () => {
    const site = await startSite({ namingFunction: () => 'upload' })
    const headers = { 'Upload-Length': 3, 'Upload-Checksum': 'sha1', ...bytesType }
    expect(await site.send('POST', '/files', headers, 'abc')).toMatchObject({ status: 400 })
    expect(await site.shown('/files/upload')).toBe('404')
  })
})

function checksum(content: string | Uint8Array, algorithm = 'sha1'): string {
  if (algorithm !== 'crc32') return `${algorithm} ${createHash(algorithm).update(content).digest('base64')}`
  const digest = Buffer.alloc(4)
  digest.writeUInt32BE(crc32(content))
  return `crc32 ${digest.toString('base64')}`
}

function sendTrailing(site: Site, url: string, chunks: readonly string[], trailers: Headers) {
  const request = site.open('PATCH', url, bytesAt(0, trailing))
  for (const chunk of chunks) request.chunk(chunk)
  const lines = Object.entries(trailers).map(([name, value]) => `${name}: ${value}\r\n`)
  request.write(`0\r\n${lines.join('')}\r\n`)
  return request.answer
}

function fileOf(site: Site, url: string): string {
  return path.join(site.folder, path.basename(url))
}

/** Of `def`, behind three bytes that are there, what is on the disk when this returns is `de`. */
async function sendAllButOne(site: Site, url: string): Promise<OpenRequest> {
  const headers = bytesAt(3, { 'Content-Length': 3, 'Upload-Checksum': checksum('def') })
  const request = site.open('PATCH', url, headers)
  request.write('de')
  await vi.waitFor(async () => expect((await readFile(fileOf(site, url))).length).toBe(5), { timeout: 5000 })
  return request
}
