// PUT by name, byte by byte: what a name means, where a PUT goes on, and what is refused.

import { describe, expect, it, vi } from 'vitest'
import { FileStore } from '../../stores/file/file-store.ts'
import { type Answer, type Headers, type Site, startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes } from '../support/random-file.ts'
import { hashOf } from './form.ts'

const MiB = 1024 * 1024

const start = (options: Parameters<typeof startSite>[0] = {}) =>
  startSite({ plainPath: '/upload', ...options })
const put = (site: Site, name: string, body: string | Uint8Array, headers: Headers = {}) =>
  site.send('PUT', `/upload/${name}`, headers, body)
const putRange = (site: Site, name: string, body: string, range: string) =>
  put(site, name, body, { 'Content-Range': `bytes ${range}` })
const get = async (site: Site, name: string) => {
  const { status, text } = await site.send('GET', `/upload/${name}`)
  return status === 200 ? text : status
}
/** What HEAD shows: `3/6` for 3 bytes of 6, `3/?` while the length is not known, else the status. */
const shown = async (site: Site, name: string) => statusOf(await site.head(`/upload/${name}`))
const statusOf = ({ status, headers }: Answer) =>
  status === 200 ? `${headers['upload-offset']}/${headers['upload-length'] ?? '?'}` : status
/** Begins a PUT of so many bytes and goes away after the first ones. */
async function begin(site: Site, name: string, body: string, length: number, headers: Headers = {}) {
  const request = site.open('PUT', `/upload/${name}`, { 'Content-Length': length, ...headers })
  request.write(body)
  await vi.waitFor(async () => expect(await shown(site, name)).toMatch(new RegExp(`^${body.length}/`)))
  request.cut()
}
async function count(site: Site): Promise<number> {
  let all = 0
  for await (const _ of site.server.engine.bytes.walk()) all++
  return all
}

describe('a PUT', () => {
  it('makes an upload that is found by its name, and by its URL', async () => {
    const site = await start()
    const answer = await put(site, 'a.txt', 'hello', { 'Content-Type': 'text/plain; charset=x' })
    expect(answer.status).toBe(201)
    const { pathname } = new URL(answer.headers.location!)
    expect(JSON.parse(answer.text)).toEqual({
      id: pathname.split('/').at(-1),
      name: 'a.txt',
      url: answer.headers.location,
      size: 5,
      offset: 5,
      type: 'text/plain',
    })
    expect(await site.shown(pathname)).toBe('5/5')
    const got = await site.send('GET', '/upload/a.txt')
    expect([got.status, got.text, got.headers['content-type']]).toEqual([
      200,
      'hello',
      'text/plain; charset=utf-8',
    ])
    expect(got.headers['content-disposition']).toContain('filename="a.txt"')
    expect(await shown(site, 'a.txt')).toBe('5/5')
    expect((await site.head('/upload/a.txt')).headers['content-length']).toBe('5')
    expect((await site.send('GET', '/upload/a.txt', { Range: 'bytes=1-3' })).text).toBe('ell')
  })

  it('may be empty, and of unknown length', async () => {
    const site = await start()
    expect((await put(site, 'empty', '')).status).toBe(201)
    expect(await shown(site, 'empty')).toBe('0/0')
    const request = site.open('PUT', '/upload/chunked', { 'Transfer-Encoding': 'chunked' })
    request.chunk('hel')
    request.chunk('lo')
    request.lastChunk()
    expect((await request.answer).status).toBe(201)
    expect(await get(site, 'chunked')).toBe('hello')
    const empty = site.open('PUT', '/upload/none', { 'Transfer-Encoding': 'chunked' })
    empty.lastChunk()
    expect((await empty.answer).status).toBe(201)
    expect(await get(site, 'none')).toBe('')
  })

  it('takes names of any letters, written either way', async () => {
    const site = await start()
    expect((await put(site, encodeURIComponent('größe 🐋'.normalize('NFC')), 'x')).status).toBe(201)
    expect(await get(site, encodeURIComponent('größe 🐋'.normalize('NFD')))).toBe('x')
    expect((await put(site, '%252e%252e', 'y')).status).toBe(201)
    expect(await get(site, '%252e%252e')).toBe('y')
  })

  it.each(['..', '%2e%2e', '%2e%2e%2fx', 'a/b', 'a%5cb', 'a%00', '%', '', 'x'.repeat(300)])(
    'is refused for the name %s, and keeps nothing',
    async (name) => {
      const site = await start()
      const waiting = { 'Content-Length': 10, Expect: '100-continue' }
      const answer = await site.open('PUT', `/upload/${name}`, waiting).answer
      expect([answer.status, answer.text]).toEqual([400, expect.stringContaining('a file name must have')])
      expect(await count(site)).toBe(0)
    },
  )

  it('is refused before its body when it is too large, and afterwards when it said nothing', async () => {
    const site = await start({ maxSize: 1000 })
    const waiting = { 'Content-Length': 1001, Expect: '100-continue' }
    expect((await site.open('PUT', '/upload/a', waiting).answer).status).toBe(413)
    const request = site.open('PUT', '/upload/a', { 'Transfer-Encoding': 'chunked' })
    request.chunk('x'.repeat(1001))
    request.lastChunk()
    expect((await request.answer).status).toBe(413)
    expect((await putRange(site, 'a', 'x', '0-0/1001')).status).toBe(413)
    expect([await count(site), await shown(site, 'a')]).toEqual([0, 404])
  })

  it('is told to be sent by us, when nothing refuses it', async () => {
    const site = await start()
    const request = site.open('PUT', '/upload/a', { 'Content-Length': 5, Expect: '100-continue' })
    await request.continued
    request.write('hello')
    expect((await request.answer).status).toBe(201)
  })

  it('does not hide the one before until it is finished, and overwrites nothing', async () => {
    const site = await start()
    const first = await put(site, 'a', 'first')
    await begin(site, 'a', 'sec', 6)
    expect(await get(site, 'a')).toBe('first')
    const head = await site.head('/upload/a')
    expect([statusOf(head), head.headers['content-length']]).toEqual(['3/6', '5'])
    expect((await putRange(site, 'a', 'ond', '3-5/6')).status).toBe(200)
    expect(await get(site, 'a')).toBe('second')
    expect((await site.send('GET', new URL(first.headers.location!).pathname)).text).toBe('first')
  })

  it('means what was finished last, when several come at once', async () => {
    const site = await start()
    const requests = Array.from({ length: 8 }, () => site.open('PUT', '/upload/a', { 'Content-Length': 3 }))
    for (const [i, request] of requests.entries()) request.write(`${i}-`)
    for (const [i, request] of requests.entries()) {
      request.write('x')
      expect([200, 201]).toContain((await request.answer).status)
      expect(await get(site, 'a')).toBe(`${i}-x`)
      // So that no two are finished in the same millisecond.
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    expect(await shown(site, 'a')).toBe('3/3')
    expect(await count(site)).toBe(8)
  })
})

describe('a PUT that goes on', () => {
  it('sends only the rest', async () => {
    const site = await start()
    await begin(site, 'a', 'hel', 5)
    expect(await get(site, 'a')).toBe(404)
    const answer = await putRange(site, 'a', 'lo', '3-4/5')
    expect([answer.status, await get(site, 'a'), await count(site)]).toEqual([201, 'hello', 1])
  })

  it('may come in many ranges, and say the size with the last', async () => {
    const site = await start()
    const answers = [
      await putRange(site, 'a', 'he', '0-1/*'),
      await putRange(site, 'a', 'l', '2-2/*'),
      await putRange(site, 'a', 'lo', '3-4/5'),
    ]
    expect(answers.map(({ status, headers }) => [status, headers['upload-offset']])).toEqual([
      [202, '2'],
      [202, '3'],
      [201, '5'],
    ])
    expect(await get(site, 'a')).toBe('hello')
  })

  it('has nothing to send when all is there', async () => {
    const site = await start()
    await put(site, 'a', 'hello')
    expect((await put(site, 'a', '', { 'Content-Range': 'bytes 5-4/5' })).status).toBe(200)
    expect([await get(site, 'a'), await count(site)]).toEqual(['hello', 1])
  })

  it('is told where to go on when its range does not fit', async () => {
    const site = await start()
    const offsetOf = async (body: string, range: string) => {
      const { status, headers } = await putRange(site, 'a', body, range)
      return [status, headers['upload-offset']]
    }
    expect(await offsetOf('lo', '3-4/5')).toEqual([409, '0'])
    await begin(site, 'a', 'hel', 5)
    expect(await offsetOf('o', '4-4/5')).toEqual([409, '3'])
    expect(await offsetOf('llo', '2-4/5')).toEqual([409, '3'])
    expect(await offsetOf('lo!', '3-5/6')).toEqual([409, '3'])
    expect(await shown(site, 'a')).toBe('3/5')
    await putRange(site, 'a', 'lo', '3-4/5')
    expect(await offsetOf('lo', '3-4/5')).toEqual([409, '5'])
    expect([await get(site, 'a'), await count(site)]).toEqual(['hello', 1])
  })

  it('is refused when its body is not as long as its range says', async () => {
    const site = await start()
    await begin(site, 'a', 'hel', 9)
    expect((await putRange(site, 'a', 'lo', '3-5/9')).status).toBe(400)
    const longer = site.open('PUT', '/upload/a', {
      'Transfer-Encoding': 'chunked',
      'Content-Range': 'bytes 3-4/9',
    })
    longer.chunk('lo, and more')
    longer.lastChunk()
    const answer = await longer.answer
    expect([answer.status, answer.headers['upload-offset']]).toEqual([400, '5'])
    const shorter = site.open('PUT', '/upload/a', {
      'Transfer-Encoding': 'chunked',
      'Content-Range': 'bytes 5-8/9',
    })
    shorter.chunk('..')
    shorter.lastChunk()
    expect([(await shorter.answer).status, await shown(site, 'a')]).toEqual([400, '7/9'])
    expect((await putRange(site, 'a', '!!', '7-8/9')).status).toBe(201)
    expect(await get(site, 'a')).toBe('hello..!!')
  })

  it.each(['bytes 3-2/5', 'bytes 0-4', 'bytes 0-5/5', 'lines 0-4/5', 'bytes a-b/c', 'bytes 0-4/5, 0-4/5'])(
    'is refused for the range %s',
    async (range) => {
      const site = await start()
      expect((await put(site, 'a', 'hello', { 'Content-Range': range })).status).toBe(400)
      expect(await count(site)).toBe(0)
    },
  )

  it('takes the upload over from a connection that died unnoticed', async () => {
    const site = await start()
    const content = randomBytes('put', 4 * MiB)
    const silent = site.open('PUT', '/upload/a', { 'Content-Length': content.length })
    silent.write(content.subarray(0, MiB))
    const at = await vi.waitFor(async () => {
      const { headers } = await site.head('/upload/a')
      expect(Number(headers['upload-offset'])).toBeGreaterThan(0)
      return Number(headers['upload-offset'])
    })
    const range = { 'Content-Range': `bytes ${at}-${content.length - 1}/${content.length}` }
    expect((await put(site, 'a', content.subarray(at), range)).status).toBe(201)
    const { status, headers } = await silent.answer
    expect([status, headers['upload-offset']]).toEqual([423, String(at)])
    const record = await site.server.engine.bytes.look(await idOf(site, 'a'))
    const bytes = await (await site.server.engine.bytes.read(record!, 0, content.length)).toArray()
    expect(hashOf(Buffer.concat(bytes))).toBe(hashOf(content))
  })

  it('does not go on with one that was begun before the one that is finished', async () => {
    const site = await start()
    await begin(site, 'a', 'old', 6)
    await new Promise((resolve) => setTimeout(resolve, 2))
    await put(site, 'a', 'new')
    expect(await shown(site, 'a')).toBe('3/3')
    expect((await putRange(site, 'a', 'er!', '3-5/6')).status).toBe(409)
    expect(await get(site, 'a')).toBe('new')
  })

  it('begins anew when what was begun has expired, or was deleted by its URL', async () => {
    let now = 1_000_000_000_000
    const clock = () => now
    const datastore = new FileStore({ directory: await temporaryFolder(), durability: 'none', now: clock })
    const site = await start({ datastore, expiry: { afterMs: 1000, mode: 'sliding' }, now: clock })
    await begin(site, 'a', 'hel', 5)
    now += 2_000
    expect(await shown(site, 'a')).toBe(404)
    expect(statusOf(await putRange(site, 'a', 'lo', '3-4/5'))).toBe(409)
    await begin(site, 'b', 'hel', 5)
    await site.send('DELETE', `/files/${await idOf(site, 'b')}`)
    expect(await shown(site, 'b')).toBe(404)
    expect((await put(site, 'b', 'hello')).status).toBe(201)
  })
})

describe('a DELETE', () => {
  it('takes away what the name means, and what was begun', async () => {
    const site = await start()
    await put(site, 'a', 'first')
    await put(site, 'a', 'second')
    await begin(site, 'a', 'thi', 5)
    expect((await site.send('DELETE', '/upload/a')).status).toBe(204)
    expect([await get(site, 'a'), await shown(site, 'a')]).toEqual([404, 404])
    expect((await site.send('DELETE', '/upload/a')).status).toBe(404)
    // The first one was not what the name meant; it has its URL.
    expect(await count(site)).toBe(1)
  })

  it('is refused where uploads can not be deleted', async () => {
    const site = await start({ disableTermination: true })
    await put(site, 'a', 'hello')
    expect((await site.send('DELETE', '/upload/a')).status).toBe(403)
    expect(await get(site, 'a')).toBe('hello')
  })
})

it('refuses other methods in words that fit', async () => {
  const site = await start()
  for (const method of ['PATCH', 'LOCK', 'POST']) {
    const answer = await site.send(method, '/upload/a')
    expect([answer.status, answer.headers.allow]).toEqual([405, 'OPTIONS, POST, PUT, HEAD, GET, DELETE'])
  }
  const preflight = await site.send('OPTIONS', '/upload/a', { Origin: 'http://x' })
  expect(preflight.headers['access-control-allow-methods']).toContain('PUT')
  expect(preflight.headers['access-control-allow-headers']).toContain('Content-Range')
})

it('refuses downloads where they are switched off, and still says how far an upload is', async () => {
  const site = await start({ disableDownload: true })
  await put(site, 'a', 'hello')
  expect([await get(site, 'a'), await shown(site, 'a')]).toEqual([403, '5/5'])
})

it('answers HEAD with 423 for what passes', async () => {
  const site = await start()
  await put(site, 'a', 'hello')
  const { names } = site.server.engine.bytes
  const list = names!.list
  names!.list = () => Promise.reject(new Error('the disk does not answer'))
  const { status, headers } = await site.head('/upload/a')
  names!.list = list
  expect([status, headers['retry-after'], await shown(site, 'a')]).toEqual([423, '1', '5/5'])
})

it('asks hooks as for every upload', async () => {
  const asked: string[] = []
  const site = await start({
    onIncomingRequest: async (_, id) => void asked.push(id),
    onUploadCreate: async (_, { metadata }) => {
      if (metadata?.filename === 'no') throw { status_code: 422, body: 'no' }
      return {}
    },
    onUploadFinish: async () => ({ headers: { 'X-Done': 'yes' } }),
  })
  const refused = await put(site, 'no', 'hello')
  expect([refused.status, refused.text]).toEqual([422, 'no'])
  const answer = await put(site, 'a', 'hello')
  expect(answer.headers['x-done']).toBe('yes')
  asked.length = 0
  await get(site, 'a')
  await shown(site, 'a')
  await site.send('DELETE', '/upload/a')
  const { id } = JSON.parse(answer.text) as { id: string }
  expect(asked).toEqual([id, id, id])
})

async function idOf(site: Site, name: string): Promise<string> {
  for await (const { head } of site.server.engine.bytes.walk())
    if (head.metadata === `filename ${Buffer.from(name).toString('base64')}`) return head.id
  throw new Error('there is none')
}
