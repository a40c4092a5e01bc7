// Forms, byte by byte: what becomes of them, of those that break off, and of those that mean harm.

import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { type Answer, type Headers, type Site, startSite } from '../protocol/exchange.ts'
import { randomBytes } from '../support/random-file.ts'
import { boundary, form, formType, hashOf, part, partHead } from './form.ts'

const MiB = 1024 * 1024

interface FileWords {
  field: string
  name: string
  id: string
  url: string
  size: number
  sha256: string
  type?: string
}

const start = (options: Parameters<typeof startSite>[0] = {}) =>
  startSite({ plainPath: '/upload', networkTimeoutMs: 20_000, ...options })
const post = (site: Site, body: Uint8Array, headers: Headers = {}) =>
  site.send('POST', '/upload', { ...formType, ...headers }, body)
const filesOf = (answer: Answer) => (JSON.parse(answer.text) as { files: FileWords[] }).files
const contentOf = async (site: Site, { url }: FileWords) =>
  (await site.send('GET', new URL(url).pathname)).text
/** Sends the beginning of a form and goes away. */
async function sendAndLeave(site: Site, body: Uint8Array, length: number, headers: Headers = {}) {
  const request = site.open('POST', '/upload', { ...formType, 'Content-Length': length, ...headers })
  request.write(body)
  return request
}
/** The lengths of all uploads that are there, finished or not. */
async function sizesOf(site: Site): Promise<number[]> {
  const sizes: number[] = []
  for await (const { mark } of site.server.engine.bytes.walk()) sizes.push(mark.offset)
  return sizes.toSorted((a, b) => a - b)
}

describe('a form', () => {
  it('makes each of its files an upload, and says where', async () => {
    const site = await start()
    const large = randomBytes('large', 3 * MiB)
    const body = form(
      part('note', 'no file'),
      part('a', large, 'größe "q".bin'.replaceAll('"', '%22'), 'Content-Type: video/mp4\r\n'),
      part('b', '', 'empty.txt'),
      part('a', 'hello', 'small.txt', 'Content-Type: text/plain\r\n'),
    )
    const answer = await post(site, body)
    expect(answer.status).toBe(201)
    const files = filesOf(answer)
    expect(files.map(({ id: _, url: __, ...file }) => file)).toEqual([
      { field: 'a', name: 'größe %22q%22.bin', size: 3 * MiB, sha256: hashOf(large), type: 'video/mp4' },
      { field: 'b', name: 'empty.txt', size: 0, sha256: hashOf(''), type: 'text/plain' },
      { field: 'a', name: 'small.txt', size: 5, sha256: hashOf('hello'), type: 'text/plain' },
    ])
    expect(answer.headers.location).toBe(files[0]!.url)
    expect(await contentOf(site, files[2]!)).toBe('hello')
    expect(await site.shown(new URL(files[0]!.url).pathname)).toBe(`${3 * MiB}/${3 * MiB}`)
    const head = await site.head(new URL(files[2]!.url).pathname)
    expect(head.headers['upload-metadata']).toBe(
      `filename ${Buffer.from('small.txt').toString('base64')},filetype ${Buffer.from('text/plain').toString('base64')}`,
    )
    expect(await site.server.engine.bytes.look(files[2]!.id)).toMatchObject({ head: { dialect: 'form' } })
  })

  it('may have a hundred files, whatever pieces it comes in', async () => {
    const site = await start()
    const contents = Array.from({ length: 100 }, (_, i) => randomBytes(`file ${i}`, i * 37))
    const body = form(...contents.map((content, i) => part('f', content, `f${i}`)))
    const request = site.open('POST', '/upload', { ...formType, 'Content-Length': body.length })
    for (let at = 0; at < body.length; at += 1013) {
      request.write(body.subarray(at, at + 1013))
      await new Promise(setImmediate)
    }
    const answer = await request.answer
    expect(answer.status).toBe(201)
    expect(filesOf(answer).map(({ sha256 }) => sha256)).toEqual(contents.map(hashOf))
  })

  it('may come without a length', async () => {
    const site = await start()
    const request = site.open('POST', '/upload', { ...formType, 'Transfer-Encoding': 'chunked' })
    const body = form(part('f', 'hello', 'a.txt')).toString()
    request.chunk(body.slice(0, 50))
    request.chunk(body.slice(50))
    request.lastChunk()
    expect(filesOf(await request.answer)).toMatchObject([{ name: 'a.txt', size: 5 }])
  })

  it('is answered with a page where a browser sends it', async () => {
    const site = await start()
    const body = form(part('f', 'hello', '<b>&.txt'))
    const answer = await post(site, body, { Accept: 'text/html,*/*;q=0.8' })
    expect(answer.headers['content-type']).toBe('text/html; charset=utf-8')
    expect(answer.text).toContain('&lt;b&gt;&amp;.txt</a>, 5 bytes')
    expect(answer.headers['content-security-policy']).toContain("default-src 'none'")
  })

  it('passes over a field for files in which nothing was chosen', async () => {
    const site = await start()
    const nothing = part('f', '', '', 'Content-Type: application/octet-stream\r\n')
    expect(filesOf(await post(site, form(nothing, part('g', 'x', 'x'))))).toMatchObject([{ field: 'g' }])
    const answer = await post(site, form(nothing))
    expect([answer.status, JSON.parse(answer.text)]).toEqual([
      400,
      { error: { code: 'form-empty', message: 'there is no file in this form' }, files: [] },
    ])
  })

  it('keeps the last part of a path as a name, wherever a tool sends a path', async () => {
    const site = await start()
    const body = form(part('f', '1', '../../etc/passwd'), part('f', '2', 'C:\\fakepath\\x.txt'))
    expect(filesOf(await post(site, body)).map(({ name }) => name)).toEqual(['passwd', 'x.txt'])
  })

  it('is told to be sent only when it can be taken', async () => {
    const site = await start()
    const waiting = { 'Content-Length': 100, Expect: '100-continue' }
    const refused = site.open('POST', '/upload', { 'Content-Type': 'multipart/form-data', ...waiting })
    expect((await refused.answer).status).toBe(415)
    const body = form(part('f', 'hello', 'a.txt'))
    const taken = site.open('POST', '/upload', { ...formType, ...waiting, 'Content-Length': body.length })
    await taken.continued
    taken.write(body)
    expect((await taken.answer).status).toBe(201)
  })
})

describe('a form that broke off', () => {
  const content = randomBytes('long', 20 * MiB)
  const whole = form(part('f', 'first', 'first.txt'), part('f', content, 'long.bin'))

  it('goes on when it is sent again: what is kept is compared, and not written again', async () => {
    const site = await start()
    const request = await sendAndLeave(site, whole.subarray(0, 12 * MiB), whole.length)
    request.cut()
    await vi.waitFor(async () => expect((await sizesOf(site)).at(-1)).toBeGreaterThan(11 * MiB), {
      timeout: 10_000,
    })
    await vi.waitFor(async () => expect(await restingOf(site)).toBe(true))
    const kept = (await sizesOf(site)).at(-1)!
    const id = await idOfSize(site, kept)

    const answer = await post(site, whole)

    expect(answer.status).toBe(201)
    const files = filesOf(answer)
    expect(files[1]).toMatchObject({ id, size: content.length, sha256: hashOf(content) })
    expect(hashOf(await bytesOf(site, id))).toBe(hashOf(content))
    // The first file was whole before: it is there twice, and nothing of it was overwritten.
    expect((await sizesOf(site)).length).toBe(3)
  })

  it('is found by who sends it with the same key, from wherever', async () => {
    const site = await start()
    const begin = part('f', 'x'.repeat(100_000), 'a.bin').subarray(0, 70_000)
    const request = await sendAndLeave(site, begin, 200_000, { 'Upload-Key': 'mine' })
    request.cut()
    await vi.waitFor(async () => expect(await sizesOf(site)).toHaveLength(1), { timeout: 10_000 })
    await vi.waitFor(async () => expect(await restingOf(site)).toBe(true))
    const [kept] = await sizesOf(site)
    const file = part('f', 'x'.repeat(100_000), 'a.bin')

    const other = filesOf(await post(site, form(file)))
    expect(await sizesOf(site)).toEqual([kept, 100_000])
    const same = filesOf(await post(site, form(part('upload-key', 'mine'), file)))

    expect(await sizesOf(site)).toEqual([100_000, 100_000])
    expect(same[0]!.id).not.toBe(other[0]!.id)
  })

  it('leaves what it kept as it is when another file of the same name comes', async () => {
    const site = await start()
    const first = await sendAndLeave(site, part('f', content, 'a').subarray(0, 3 * MiB), whole.length)
    first.cut()
    await vi.waitFor(async () => expect((await sizesOf(site)).at(-1)).toBeGreaterThan(2 * MiB), {
      timeout: 10_000,
    })
    await vi.waitFor(async () => expect(await restingOf(site)).toBe(true))
    const kept = (await sizesOf(site)).at(-1)!
    const keptId = await idOfSize(site, kept)
    for (const at of [0, 1, 65_536, 1_500_001]) {
      const other = Buffer.from(content.subarray(0, 4 * MiB))
      other[at]! ^= 1
      const [file] = filesOf(await post(site, form(part('f', other, 'a'))))
      expect(file).toMatchObject({ size: other.length, sha256: hashOf(other) })
      expect(hashOf(await bytesOf(site, file!.id))).toBe(hashOf(other))
    }
    // A file that is no more than the beginning of what is kept is another file, too.
    const [short] = filesOf(await post(site, form(part('f', content.subarray(0, MiB), 'a'))))
    expect(hashOf(await bytesOf(site, short!.id))).toBe(hashOf(content.subarray(0, MiB)))
    expect(hashOf(await bytesOf(site, keptId))).toBe(hashOf(content.subarray(0, kept)))
    // And the one that it was still goes on.
    const [file] = filesOf(await post(site, form(part('f', content, 'a'))))
    expect(file).toMatchObject({ id: keptId, sha256: hashOf(content) })
  })

  it('goes on with that of several which has its beginning', async () => {
    const site = await start()
    const other = Buffer.concat([content.subarray(0, MiB), randomBytes('other', 4 * MiB)])
    for (const bytes of [content, other]) {
      const before = (await sizesOf(site)).length
      const request = await sendAndLeave(site, part('f', bytes, 'a').subarray(0, 2 * MiB), whole.length)
      request.cut()
      await vi.waitFor(async () => expect((await sizesOf(site)).length).toBe(before + 1), { timeout: 10_000 })
      await vi.waitFor(async () => expect(await restingOf(site)).toBe(true))
    }
    const answers = [
      await post(site, form(part('f', content, 'a'))),
      await post(site, form(part('f', other, 'a'))),
    ]
    expect(answers.map((answer) => filesOf(answer)[0]!.sha256)).toEqual([hashOf(content), hashOf(other)])
    expect(await sizesOf(site)).toEqual([other.length, content.length])
  })

  it('does not disturb one that still comes, be it under the same name', async () => {
    const site = await start()
    const bytes = part('f', content, 'a')
    const slow = await sendAndLeave(site, bytes.subarray(0, 2 * MiB), whole.length)
    await untilThere(site, 1)
    const [fast] = filesOf(await post(site, form(part('f', content, 'a'))))
    expect(fast).toMatchObject({ sha256: hashOf(content) })
    const rest = form(bytes).subarray(2 * MiB)
    slow.write(rest.subarray(0, 1))
    slow.write(rest.subarray(1))
    slow.write(Buffer.alloc(whole.length - form(bytes).length, '\n'))
    expect(filesOf(await slow.answer)).toMatchObject([{ sha256: hashOf(content) }])
  })

  it('is told so, with what is stored, when its last boundary is missing', async () => {
    const site = await start()
    const body = Buffer.concat([
      part('f', 'first', 'first.txt'),
      part('f', 'second', 'second.txt').subarray(0, -3),
    ])
    const answer = await post(site, body)
    expect(answer.status).toBe(400)
    expect(JSON.parse(answer.text)).toMatchObject({
      error: { code: 'form-cut' },
      files: [{ name: 'first.txt' }],
    })
    // What came of the second is kept; all but its end, which might have been that of a boundary.
    expect(await sizesOf(site)).toHaveLength(2)
    expect(filesOf(await post(site, form(part('f', 'second', 'second.txt'))))).toMatchObject([{ size: 6 }])
    expect(await sizesOf(site)).toEqual([5, 6])
  })

  async function untilThere(site: Site, count: number) {
    await vi.waitFor(async () => expect(await readdir(site.folder)).toHaveLength(count + 2), {
      timeout: 10_000,
    })
  }
  async function restingOf(site: Site): Promise<boolean> {
    for await (const { head, mark } of site.server.engine.bytes.walk())
      if (mark.state === 'open' && !(await site.server.engine.bytes.names!.isAtRest(head.id))) return false
    return true
  }
  async function idOfSize(site: Site, size: number): Promise<string> {
    for await (const { head, mark } of site.server.engine.bytes.walk())
      if (mark.offset === size) return head.id
    throw new Error('there is none')
  }
  async function bytesOf(site: Site, id: string): Promise<Buffer> {
    const record = await site.server.engine.bytes.look(id)
    const chunks = await (await site.server.engine.bytes.read(record!, 0, record!.mark.offset)).toArray()
    return Buffer.concat(chunks)
  }
})

describe('a form that can not be taken', () => {
  const refused = async (site: Site, body: Uint8Array, headers: Headers = {}) => {
    const answer = await post(site, body, headers)
    return [answer.status, (JSON.parse(answer.text) as { error: { code: string } }).error.code]
  }

  it('is refused for a name that can not be one', async () => {
    const site = await start()
    const names = ['a\u0001b', '..', 'n'.repeat(300)]
    for (const name of names)
      expect(await refused(site, form(part('f', 'x', name)))).toEqual([400, 'name-invalid'])
    expect(await sizesOf(site)).toEqual([])
  })

  it('is refused for a form in it, for too many fields and for too long ones', async () => {
    const site = await start()
    const nested = part(
      'f',
      `--y\r\n\r\nx\r\n--y--`,
      undefined,
      'Content-Type: multipart/mixed; boundary=y\r\n',
    )
    expect(await refused(site, form(nested))).toEqual([400, 'form-malformed'])
    const fields = Array.from({ length: 1001 }, (_, i) => part(`f${i}`, 'x'))
    expect(await refused(site, form(...fields))).toEqual([413, 'form-large'])
    expect(await refused(site, form(part('f', 'x'.repeat(70_000))))).toEqual([413, 'form-large'])
    const files = Array.from({ length: 1001 }, () => part('', '', ''))
    expect(await refused(site, form(...files))).toEqual([413, 'form-large'])
  })

  it('is refused when there is no form in the body', async () => {
    const site = await start()
    expect(await refused(site, Buffer.from('hello'))).toEqual([400, 'form-cut'])
    expect(await refused(site, Buffer.alloc(0))).toEqual([400, 'form-cut'])
    expect(await refused(site, Buffer.from(`--${boundary}--\r\n`))).toEqual([400, 'form-empty'])
    expect(await refused(site, Buffer.from(partHead('f', 'a')))).toEqual([400, 'form-cut'])
    expect(await refused(site, Buffer.from(`--other\r\n${part('f', 'x', 'x')}--other--`))).toEqual([
      400,
      'form-cut',
    ])
    expect(
      await refused(site, form(Buffer.from(`--${boundary}\r\n${'X: y\r\n'.repeat(30_000)}\r\nx\r\n`))),
    ).toEqual([400, 'form-empty'])
  })

  it('keeps the files before the one that is too large', async () => {
    const site = await start({ maxSize: 100_000 })
    const body = form(part('f', 'small', 'a'), part('f', Buffer.alloc(3 * MiB), 'b'), part('f', 'never', 'c'))
    const answer = await post(site, body)
    expect(answer.status).toBe(413)
    expect(JSON.parse(answer.text)).toMatchObject({
      error: { code: 'too-large' },
      files: [{ name: 'a', size: 5 }],
    })
    expect(await sizesOf(site)).toEqual([5])
    const just = await post(site, form(part('f', Buffer.alloc(100_001), 'b')))
    expect(just.status).toBe(413)
    expect((await post(site, form(part('f', Buffer.alloc(100_000), 'b')))).status).toBe(201)
  })

  it('is refused where a hook refuses one of its files', async () => {
    const site = await start({
      onUploadCreate: async (_, { metadata }) => {
        if (metadata?.filename === 'b') throw { status_code: 422, body: 'not this one' }
        return {}
      },
    })
    const answer = await post(site, form(part('f', '1', 'a'), part('f', '2', 'b'), part('f', '3', 'c')))
    expect(answer.status).toBe(422)
    expect(JSON.parse(answer.text)).toMatchObject({
      error: { message: 'not this one' },
      files: [{ name: 'a' }],
    })
    expect(await sizesOf(site)).toEqual([1])
  })

  it('is refused from a page of a site that may not upload', async () => {
    const site = await start({ allowedOrigins: ['https://good.example'] })
    const body = form(part('f', 'x', 'x'))
    for (const origin of ['https://bad.example', 'null'])
      expect(await refused(site, body, { Origin: origin })).toEqual([403, 'origin-refused'])
    for (const origin of ['https://good.example', `http://${site.host}`])
      expect((await post(site, body, { Origin: origin })).status).toBe(201)
  })

  it('is ended when nothing more of it comes', async () => {
    const site = await start({ networkTimeoutMs: 1500 })
    const silent = await sendAndLeave(site, Buffer.from(partHead('note')), 1000)
    expect((await silent.answer).status).toBe(408)
    const inFile = await sendAndLeave(
      site,
      part('f', Buffer.alloc(100_000), 'a').subarray(0, 90_000),
      200_000,
    )
    await inFile.closed
    expect((await sizesOf(site))[0]).toBeGreaterThan(80_000)
  })
})

it('tells hooks and listeners of each file, and lets the finish hook answer for one', async () => {
  const finished: string[] = []
  const site = await start({
    onUploadFinish: async (_, { metadata }) => ({
      headers: { 'X-Of': metadata?.filename ?? '' },
      status_code: 299,
    }),
    onUploadEvent: ({ kind, upload }) => void finished.push(`${kind} ${upload.metadata?.filename}`),
  })
  const one = await post(site, form(part('f', '1', 'a')))
  expect([one.status, one.headers['x-of']]).toEqual([299, 'a'])
  const two = await post(site, form(part('f', '1', 'b'), part('f', '2', 'c')))
  expect([two.status, two.headers['x-of']]).toEqual([201, 'c'])
  await vi.waitFor(() =>
    expect(finished.toSorted()).toEqual(
      ['a', 'b', 'c'].flatMap((name) => [`created ${name}`, `finished ${name}`]).toSorted(),
    ),
  )
})

it('is ended at once when the server is, wherever it stands', async () => {
  const site = await start()
  const inFields = await sendAndLeave(site, Buffer.from(partHead('note')), 1000)
  const inFile = await sendAndLeave(site, part('f', Buffer.alloc(200_000), 'a').subarray(0, 150_000), 300_000)
  await vi.waitFor(async () => expect(await sizesOf(site)).toHaveLength(1), { timeout: 10_000 })
  await site.server.drain()
  for (const request of [inFields, inFile]) {
    const { status, headers, text } = await request.answer
    expect([status, headers['retry-after'], text]).toEqual([503, '1', expect.stringContaining('unavailable')])
  }
  expect((await sizesOf(site))[0]).toBeGreaterThan(100_000)
})

it('shows people a form', async () => {
  const site = await start()
  const answer = await site.send('GET', '/upload')
  expect(answer.text).toContain('<form method="post" enctype="multipart/form-data" action="/upload/">')
})

it('leaves no name behind of what is finished', async () => {
  const site = await start()
  await post(site, form(part('f', '1', 'a'), part('f', Buffer.alloc(200_000), 'b')))
  const names = await readdir(join(site.folder, '.tidemark', 'names'), {
    recursive: true,
    withFileTypes: true,
  })
  expect(names.filter((entry) => !entry.isDirectory())).toEqual([])
})
