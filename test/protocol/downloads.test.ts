// Downloads of finished uploads: which bytes, on which condition, and under which name. What a row promises for a header
// is asked of the wire, for real clients read it there.

import { expect, it } from 'vitest'
import { mostRanges } from '../../server/host/ranges.ts'
import { FileStore } from '../../stores/file/file-store.ts'
import { temporaryFolder } from '../support/folder.ts'
import { type Headers, type Site, startSite } from './exchange.ts'

const content = '0123456789'

async function siteWithFile(metadata: Record<string, string> = {}) {
  const site = await startSite()
  const header = Object.entries(metadata).map(
    ([key, value]) => `${key} ${Buffer.from(value).toString('base64')}`,
  )
  const url = await site.createFinished(content, { 'Upload-Metadata': header.join(',') })
  const get = (headers: Headers = {}, method = 'GET') =>
    site.send(method, url, { 'Tus-Resumable': undefined, ...headers })
  const { etag = '', 'last-modified': modified = '' } = (await get()).headers
  return { site, url, get, etag, modified }
}

it('row 70: GET -> 200 with a strong ETag, Last-Modified, the time of the finish, and Accept-Ranges', async () => {
  const before = Math.floor(Date.now() / 1000) * 1000
  const { get, etag, modified } = await siteWithFile()
  const answer = await get()
  expect(answer).toMatchObject({ status: 200, text: content, headers: { 'accept-ranges': 'bytes' } })
  expect(etag).toMatch(/^"[\w-]+"$/)
  expect(Date.parse(modified)).toBeGreaterThanOrEqual(before)
  expect(Date.parse(modified)).toBeLessThanOrEqual(Date.now())
  expect(answer.headers['cache-control']).toBe('private, no-cache')
})

it('row 70: two uploads, and one that was made anew under the same id -> other ETags', async () => {
  const site = await startSite({ namingFunction: () => 'v' })
  const etags = new Set<string | undefined>()
  for (let round = 0; round < 3; round++) {
    const url = await site.createFinished(content)
    etags.add((await site.send('GET', url)).headers.etag)
    await site.send('DELETE', url)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  expect(etags.size).toBe(3)
})

it('row 71: HEAD without Tus-Resumable -> what GET says, without the bytes', async () => {
  const { get } = await siteWithFile({ filename: 'a.png', filetype: 'image/png' })
  const { 'content-length': length, date: _, ...shown } = (await get()).headers
  const head = await get({ Range: 'bytes=0-1' }, 'HEAD')
  expect(head).toMatchObject({ status: 200, text: '', headers: { 'content-length': length } })
  expect(head.headers).toMatchObject(shown)
  expect(await get({ 'If-None-Match': '*' }, 'HEAD')).toMatchObject({ status: 304 })
})

it('row 71: HEAD of tus on a finished upload -> ETag, Last-Modified and Accept-Ranges too', async () => {
  const { site, url, etag, modified } = await siteWithFile()
  const { status, headers } = await site.head(url)
  expect(status).toBe(200)
  expect(headers).toMatchObject({ etag, 'last-modified': modified, 'accept-ranges': 'bytes' })
  expect(headers).toMatchObject({ 'upload-offset': '10', 'cache-control': 'no-store' })
  expect((await site.head(await site.create(3))).headers).not.toHaveProperty('etag')
})

it('row 72: several ranges -> 206 with multipart/byteranges, each with its Content-Range', async () => {
  const { get } = await siteWithFile({ filetype: 'text/plain' })
  const { status, headers, text } = await get({ Range: 'bytes=0-1, 4-5,-2' })
  expect(status).toBe(206)
  const boundary = /^multipart\/byteranges; boundary=([\w-]+)$/.exec(headers['content-type'] ?? '')?.[1]
  const part = (range: string, bytes: string) =>
    `\r\n--${boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes ${range}/10\r\n\r\n${bytes}`
  expect(text).toBe(`${part('0-1', '01')}${part('4-5', '45')}${part('8-9', '89')}\r\n--${boundary}--\r\n`)
  expect(headers).not.toHaveProperty('content-range')
})

const greedy: [name: string, range: string, status: number, bytes: number][] = [
  ['that overlap', `bytes=${'0-,'.repeat(300)}0-`, 206, 10],
  ['that touch, in any order', 'bytes=6-7,4-5,8-9', 206, 6],
  [
    'that are too many',
    `bytes=${Array.from({ length: mostRanges + 1 }, (_, n) => `${2 * n}-${2 * n}`)}`,
    200,
    64,
  ],
  ['in a header that is too long', `bytes=${'0-0,'.repeat(10_000)}0-0`, 200, 10],
]
for (const [name, Range, status, bytes] of greedy)
  it(`row 72: ranges ${name} -> never more bytes than there are`, async () => {
    const site = await startSite()
    const url = await site.createFinished('x'.repeat(bytes > 10 ? bytes : 10))
    const answer = await site.send('GET', url, { Range })
    expect({ status: answer.status, bytes: answer.text.length }).toEqual({ status, bytes })
  })

it('row 73: a range that begins behind the end -> 416 with the size', async () => {
  const { get } = await siteWithFile()
  for (const Range of ['bytes=10-', 'bytes=-0', 'bytes=99-100,20-'])
    expect(await get({ Range })).toMatchObject({ status: 416, headers: { 'content-range': 'bytes */10' } })
})

/** In the order of RFC 9110, 13.2.2. */
const past = 'Thu, 01 Jan 1970 00:00:00 GMT'
const future = 'Fri, 31 Dec 2100 23:59:59 GMT'
type Condition = (known: { etag: string; modified: string }) => Headers
const conditions: [name: string, headers: Condition, status: number][] = [
  ['If-Match with the ETag', ({ etag }) => ({ 'If-Match': `"x", ${etag}` }), 200],
  ['If-Match: *', () => ({ 'If-Match': '*' }), 200],
  ['If-Match with another', () => ({ 'If-Match': '"x"' }), 412],
  ['If-Match with the ETag made weak', ({ etag }) => ({ 'If-Match': `W/${etag}` }), 412],
  ['If-Unmodified-Since its date', ({ modified }) => ({ 'If-Unmodified-Since': modified }), 200],
  ['If-Unmodified-Since before', () => ({ 'If-Unmodified-Since': past }), 412],
  ['If-Unmodified-Since what is no date', () => ({ 'If-Unmodified-Since': '1970' }), 200],
  [
    'If-Match that fits, before a date that does not',
    ({ etag }) => ({ 'If-Match': etag, 'If-Unmodified-Since': past }),
    200,
  ],
  ['If-None-Match with the ETag', ({ etag }) => ({ 'If-None-Match': `"x", W/${etag}` }), 304],
  ['If-None-Match: *', () => ({ 'If-None-Match': '*' }), 304],
  ['If-None-Match with another', () => ({ 'If-None-Match': '"x"' }), 200],
  [
    'If-None-Match with another, before a date that fits',
    () => ({ 'If-None-Match': '"x"', 'If-Modified-Since': future }),
    200,
  ],
  ['If-Modified-Since its date', ({ modified }) => ({ 'If-Modified-Since': modified }), 304],
  ['If-Modified-Since before', () => ({ 'If-Modified-Since': past }), 200],
  ['If-Modified-Since what is no date', () => ({ 'If-Modified-Since': '2100-01-01' }), 200],
  [
    'If-Match that fails, before If-None-Match',
    ({ etag }) => ({ 'If-Match': '"x"', 'If-None-Match': etag }),
    412,
  ],
  [
    'a range and If-None-Match with the ETag',
    ({ etag }) => ({ Range: 'bytes=1-2', 'If-None-Match': etag }),
    304,
  ],
  ['a range and If-Match with another', () => ({ Range: 'bytes=1-2', 'If-Match': '"x"' }), 412],
  ['a range and If-Range with the ETag', ({ etag }) => ({ Range: 'bytes=1-2', 'If-Range': etag }), 206],
  ['a range and If-Range with another', () => ({ Range: 'bytes=1-2', 'If-Range': '"x"' }), 200],
  ['a range and If-Range made weak', ({ etag }) => ({ Range: 'bytes=1-2', 'If-Range': `W/${etag}` }), 200],
  ['a range and If-Range of another date', () => ({ Range: 'bytes=1-2', 'If-Range': future }), 200],
  [
    'a range behind the end and If-Range with another',
    () => ({ Range: 'bytes=99-', 'If-Range': '"x"' }),
    200,
  ],
]
for (const [name, headers, status] of conditions)
  it(`row 74: ${name} -> ${status}`, async () => {
    const { get, ...known } = await siteWithFile()
    const answer = await get(headers(known))
    expect(answer.status).toBe(status)
    expect(answer.text).toBe(status === 206 ? '12' : status === 200 ? content : '')
    expect(answer.headers.etag).toBe(known.etag)
  })

it('row 74: If-Range with its date -> the range, once the second of the date is over', async () => {
  let now = Date.now()
  const datastore = new FileStore({ directory: await temporaryFolder(), durability: 'none', now: () => now })
  const site = await startSite({ now: () => now, datastore })
  const url = await site.createFinished(content)
  const modified = (await site.send('GET', url)).headers['last-modified']
  const ranged = { Range: 'bytes=1-2', 'If-Range': modified }
  now = Date.parse(modified!) + 999
  expect(await site.send('GET', url, ranged)).toMatchObject({ status: 200 })
  now += 3000
  expect(await site.send('GET', url, ranged)).toMatchObject({ status: 206, text: '12' })
})

const names: [sent: string, shown: string | undefined][] = [
  ['plain.bin', 'plain.bin'],
  ['Wal, „groß“; 100%.bin', 'Wal, „groß“; 100%.bin'],
  ['👨‍👩‍👧 family.png', '👨‍👩‍👧 family.png'],
  ['say "hi"\r\nSet-Cookie: a=b', 'say "hi" Set-Cookie: a=b'],
  ['two\u2028lines\u0085and\u0000more', 'two lines and more'],
  ['photo\u202Egpj.exe', 'photogpj.exe'],
  ['../../etc/passwd', 'passwd'],
  ['C:\\Users\\me\\file.txt', 'file.txt'],
  ['..', undefined],
  [' \t ', undefined],
  [`${'🌊'.repeat(300)}.tar`, `${'🌊'.repeat(196)}.tar`],
]
for (const [sent, shown] of names)
  it(`row 75: a file named ${JSON.stringify(sent.slice(0, 24))} -> is saved under a name that can do no harm`, async () => {
    const { get } = await siteWithFile({ filename: sent })
    const { headers } = await get()
    const { parameters } = parseDisposition(headers['content-disposition']!)
    expect(parameters.filename).toBe(shown)
    expect(headers).not.toHaveProperty('set-cookie')
  })

it('row 76: an upload that is not finished -> 404; where that is wished what was acknowledged of it', async () => {
  const site = await startSite()
  const url = await site.create(6, { 'Content-Type': 'application/offset+octet-stream' }, 'abc')
  expect(await site.send('GET', url)).toMatchObject({ status: 404 })
  const open = await startSite({ serveUnfinished: true })
  const growing = await open.create(6, { 'Content-Type': 'application/offset+octet-stream' }, 'abc')
  const first = await open.send('GET', growing)
  expect(first).toMatchObject({ status: 200, text: 'abc' })
  await open.append(growing, 3, 'de')
  expect(await open.send('GET', growing, { Range: 'bytes=3-' })).toMatchObject({
    status: 206,
    text: 'de',
    headers: { 'content-range': 'bytes 3-4/5' },
  })
  const stale = { Range: 'bytes=3-', 'If-Range': first.headers.etag }
  expect(await open.send('GET', growing, stale)).toMatchObject({ status: 200, text: 'abcde' })
  expect(await open.send('GET', await part(open))).toMatchObject({ status: 404 })
})

it('row 76: reading what is there does not disturb who writes, and shows nothing that is not acknowledged', async () => {
  const site = await startSite({ serveUnfinished: true })
  const url = await site.create(6)
  const patch = site.open('PATCH', url, {
    'Upload-Offset': 0,
    'Content-Type': 'application/offset+octet-stream',
    'Upload-Checksum': 'sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=',
    'Content-Length': 6,
  })
  patch.write('abc')
  expect(await site.send('GET', url)).toMatchObject({ status: 200, text: '' })
  patch.write('def')
  expect(await patch.answer).toMatchObject({ status: 460 })
  expect(await site.send('GET', url)).toMatchObject({ status: 200, text: '' })
})

it('row 77: an upload that is terminated while it is downloaded -> its bytes come to the end', async () => {
  const site = await startSite()
  const bytes = 'x'.repeat(12 * 1024 * 1024)
  const url = await site.createFinished(bytes)
  const ranges = `bytes=0-5999999,6100000-${bytes.length - 1}`
  const downloads = [{}, { Range: ranges }].map((headers) => site.open('GET', url, headers))
  await Promise.all(downloads.map((download) => download.begun))
  expect(await site.send('DELETE', url)).toMatchObject({ status: 204 })
  const [whole, some] = await Promise.all(downloads.map((download) => download.answer))
  expect(whole!.text.length).toBe(bytes.length)
  expect(some!.text.length).toBe(Number(some!.headers['content-length']))
  expect(await site.send('GET', url)).toMatchObject({ status: 404 })
})

function part(site: Site): Promise<string> {
  return site.create(
    6,
    { 'Upload-Concat': 'partial', 'Content-Type': 'application/offset+octet-stream' },
    'abc',
  )
}

/** As browsers read it: the extended name counts where there is one. */
function parseDisposition(header: string): { type: string; parameters: { filename: string | undefined } } {
  const [, type = ''] = /^(\w+)/.exec(header) ?? []
  const extended = /filename\*=UTF-8''([^;]+)/.exec(header)?.[1]
  const quoted = /filename="((?:\\.|[^"\\])*)"/.exec(header)?.[1]?.replace(/\\(.)/g, '$1')
  const token = /filename=([^";\s]+)/.exec(header)?.[1]
  const filename = extended === undefined ? (quoted ?? token) : decodeURIComponent(extended)
  return { type, parameters: { filename } }
}
