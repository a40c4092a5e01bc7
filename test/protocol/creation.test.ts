// tus 1.0.0, creation and its metadata. Row numbers are those of docs/protocol.md.

import { describe, expect, it } from 'vitest'
import { pathOf, startSite } from './exchange.ts'

const max = Number.MAX_SAFE_INTEGER

describe('creation', () => {
  it('row 18: POST with Upload-Length -> 201 with Location', async () => {
    const site = await startSite()
    const answer = await site.send('POST', '/files', { 'Upload-Length': 6 })
    expect(answer.status).toBe(201)
    expect(answer.headers.location).toMatch(new RegExp(`^http://${site.host}/files/[0-9a-f]{32}$`))
    expect(await site.shown(pathOf(answer))).toBe('0/6')
  })

  it('row 18: POST on the creation URL with a slash at its end, or with a query -> 201', async () => {
    const site = await startSite()
    expect(await site.send('POST', '/files/', { 'Upload-Length': 6 })).toMatchObject({ status: 201 })
    expect(await site.send('POST', '/files?a=1', { 'Upload-Length': 6 })).toMatchObject({ status: 201 })
  })

  it('row 18: POST -> 201 with a relative Location where that is asked for', async () => {
    const site = await startSite({ relativeLocation: true })
    const answer = await site.send('POST', '/files', { 'Upload-Length': 6 })
    expect(answer.headers.location).toMatch(/^\/files\/[0-9a-f]{32}$/)
  })

  const refused: [string, Record<string, string | number>][] = [
    ['no length', {}],
    ['both lengths', { 'Upload-Length': 6, 'Upload-Defer-Length': 1 }],
    ['a negative length', { 'Upload-Length': -1 }],
    ['a fractional length', { 'Upload-Length': 1.5 }],
    ['a length that is no number', { 'Upload-Length': 'six' }],
    ['a length in hex', { 'Upload-Length': '0x10' }],
    ['an empty length', { 'Upload-Length': '' }],
    ['a length above 2^53-1', { 'Upload-Length': '9007199254740992' }],
    ['Upload-Defer-Length: 0', { 'Upload-Defer-Length': 0 }],
    ['Upload-Defer-Length: true', { 'Upload-Defer-Length': 'true' }],
  ]
  for (const [what, headers] of refused)
    it(`row 19: POST with ${what} -> 400, nothing made`, async () => {
      let named = 0
      const site = await startSite({ namingFunction: () => `upload-${++named}` })
      expect(await site.send('POST', '/files', headers)).toMatchObject({ status: 400 })
      expect(named).toBe(0)
    })

  it('row 20: POST longer than the limit -> 413, nothing made', async () => {
    const site = await startSite({ maxSize: 6, namingFunction: () => 'upload' })
    const answer = await site.send('POST', '/files', { 'Upload-Length': 7 })
    expect(answer).toMatchObject({ status: 413 })
    expect(answer.text).toContain('6 bytes')
    expect(await site.shown('/files/upload')).toBe('404')
    expect(await site.send('POST', '/files', { 'Upload-Length': 6 })).toMatchObject({ status: 201 })
  })

  it('row 20: POST of the largest length there is -> 201 where there is no limit', async () => {
    const site = await startSite()
    expect(await site.shown(await site.create(max))).toBe(`0/${max}`)
  })

  it('row 21: POST with Upload-Length: 0 -> 201, finished without a PATCH, the finish hook fires', async () => {
    const finished: (number | undefined)[] = []
    const site = await startSite({
      onUploadFinish: async (_, upload) => {
        finished.push(upload.size)
        return {}
      },
    })
    const answer = await site.send('POST', '/files', { 'Upload-Length': 0 })
    expect(answer).toMatchObject({ status: 201, headers: { 'upload-offset': '0' } })
    expect(await site.shown(pathOf(answer))).toBe('0/0')
    expect(await site.send('GET', pathOf(answer))).toMatchObject({ status: 200, text: '' })
    expect(finished).toEqual([0])
  })

  it('row 29: POST anywhere below the creation URL -> 404', async () => {
    const site = await startSite()
    const url = await site.create(6)
    for (const target of [url, '/files/new', '/files/a/b', '/files//'])
      expect(await site.send('POST', target, { 'Upload-Length': 6 })).toMatchObject({ status: 404 })
    expect(await site.shown(url)).toBe('0/6')
  })
})

describe('metadata', () => {
  const kept: [string, string][] = [
    ['text', 'filename d29ybGQudHh0,filetype dGV4dC9wbGFpbg=='],
    ['bytes that are not UTF-8', 'blob /wD+gA=='],
    ['keys without a value', 'is_confidential,filename d29ybGQudHh0'],
    ['a key with a space and an empty value', 'empty ,filename d29ybGQudHh0'],
    ['spaces behind commas', 'a YQ==, b Yg=='],
    ['__proto__ and constructor as keys', '__proto__ YQ==,constructor Yg==,toString'],
    ['keys of every printable sign', '!#$%&\'*+-.^_`|~"(){}[]:;<=>?@/\\ YQ=='],
  ]
  for (const [what, header] of kept)
    it(`row 22: metadata (${what}) -> comes back on HEAD byte for byte`, async () => {
      const site = await startSite()
      const url = await site.create(3, { 'Upload-Metadata': header })
      expect((await site.head(url)).headers['upload-metadata']).toBe(header)
      await site.append(url, 0, 'abc')
      expect((await site.head(url)).headers['upload-metadata']).toBe(header)
    })

  for (const [what, header] of kept)
    it(`row 23: metadata (${what}) -> hooks and events can be told of it`, async () => {
      const site = await startSite({
        onUploadCreate: async (_, upload) => ({ metadata: upload.metadata }),
        onUploadFinish: async () => ({}),
      })
      let told = 0
      site.server.on('POST_CREATE', () => told++)
      const url = await site.create(3, { 'Upload-Metadata': header })
      expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
      expect((await site.head(url)).headers['upload-metadata']).toBe(
        header.replace(', ', ',').replace(' ,', ','),
      )
      expect(told).toBe(1)
    })

  const refused: [string, string][] = [
    ['an empty pair', 'a YQ==,,b Yg=='],
    ['a comma at the end', 'a YQ==,'],
    ['a key that comes twice', 'a YQ==,a Yg=='],
    ['a key that comes twice, one without value', 'a,a Yg=='],
    ['base64 with a sign that is none', 'a Y*=='],
    ['base64 without its padding', 'a YQ'],
    ['base64 with padding in the middle', 'a YQ==YQ=='],
    ['URL-safe base64', 'a _-8='],
    ['three words', 'a YQ== YQ=='],
    ['a key outside ASCII', 'naïve YQ=='],
    ['a no-break space before the key', '\u00a0a YQ=='],
  ]
  for (const [what, header] of refused)
    it(`row 23: metadata with ${what} -> 400, nothing made`, async () => {
      const site = await startSite({ namingFunction: () => 'upload' })
      const answer = await site.send('POST', '/files', { 'Upload-Length': 6, 'Upload-Metadata': header })
      expect(answer).toMatchObject({ status: 400 })
      expect(await site.shown('/files/upload')).toBe('404')
    })

  it('row 23: metadata longer than can come back -> 431, nothing made', async () => {
    const site = await startSite({ namingFunction: () => 'upload' })
    const create = (length: number) =>
      site.send('POST', '/files', { 'Upload-Length': 6, 'Upload-Metadata': `a ${'YWFh'.repeat(length / 4)}` })
    const answer = await create(112 * 1024)
    expect(answer).toMatchObject({ status: 431 })
    expect(answer.text).toBe(
      'metadata-too-large: Upload-Metadata is longer than the 112 KiB that are kept here\n',
    )
    expect(await site.shown('/files/upload')).toBe('404')
    expect(await create(112 * 1024 - 4)).toMatchObject({ status: 201 })
  })

  it('row 23: metadata from a hook, longer than can come back -> 500, nothing made', async () => {
    const site = await startSite({
      namingFunction: () => 'upload',
      onUploadCreate: async () => ({ metadata: { a: 'a'.repeat(112 * 1024) } }),
    })
    expect(await site.send('POST', '/files', { 'Upload-Length': 6 })).toMatchObject({ status: 500 })
    expect(await site.shown('/files/upload')).toBe('404')
  })

  it('row 23: an empty Upload-Metadata is no metadata', async () => {
    const site = await startSite()
    const url = await site.create(6, { 'Upload-Metadata': '' })
    expect((await site.head(url)).headers).not.toHaveProperty('upload-metadata')
  })

  const names = [
    'a"b.txt',
    'a\r\nSet-Cookie: x=1',
    'a\nb',
    '🌊 tide.txt',
    'Ünïcödé.txt',
    'a\\b;c=d',
    '\u202Efdp.exe',
    '',
    '../../etc/passwd',
    '%0d%0aX: y',
    'a\0b',
  ]
  for (const name of names)
    it(`row 24: a file name that is ${JSON.stringify(name)} -> nothing of it reaches a header unescaped`, async () => {
      const site = await startSite()
      const metadata = `filename ${Buffer.from(name).toString('base64')},filetype dGV4dC9odG1sDQpYOiB5`
      const url = await site.createFinished('abc', { 'Upload-Metadata': metadata })
      const { status, headers, text } = await site.send('GET', url)
      expect({ status, text }).toEqual({ status: 200, text: 'abc' })
      expect(headers['content-type']).toBe('application/octet-stream')
      expect(headers['content-disposition']).toMatch(
        /^attachment(?:; filename="(?:[^"\\]|\\.)*")?(?:; filename\*=UTF-8''[\w%.!#$&+^`|~-]+)?$/,
      )
      expect(headers).not.toHaveProperty('set-cookie')
      expect(headers).not.toHaveProperty('x')
    })
})
