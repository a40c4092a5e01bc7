// What a client says that its whole upload hashes to, and what becomes of it: verified before the upload is finished, and
// told to whoever downloads it.

import { createHash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { expect, it } from 'vitest'
import { bytesType, type Headers, pathOf, type Site, startSite } from './exchange.ts'

const content = '0123456789'
const hash = (algorithm: string, text = content) => createHash(algorithm).update(text).digest()
const sha256 = `sha-256=:${hash('sha256').toString('base64')}:`
const sha512 = `sha-512=:${hash('sha512').toString('base64')}:`
const wrong = `sha-256=:${hash('sha256', 'other').toString('base64')}:`
const inMetadata = (value: string): Headers => ({
  'Upload-Metadata': `sha256 ${Buffer.from(value).toString('base64')}`,
})

const ways: [name: string, headers: Headers, told: string][] = [
  ['Repr-Digest with sha-256', { 'Repr-Digest': sha256 }, sha256],
  ['Repr-Digest with sha-512', { 'Repr-Digest': sha512 }, sha512],
  ['Repr-Digest with both', { 'Repr-Digest': `${sha512}, ${sha256}` }, sha256],
  ['Repr-Digest with one that is not known beside it', { 'Repr-Digest': `md5=:AAAA:,${sha256};q=1` }, sha256],
  ['metadata sha256 in hex', inMetadata(hash('sha256').toString('hex')), sha256],
  ['metadata sha256 in upper case', inMetadata(hash('sha256').toString('hex').toUpperCase()), sha256],
  ['metadata sha256 in base64', inMetadata(hash('sha256').toString('base64')), sha256],
  ['metadata sha256 in base64url', inMetadata(hash('sha256').toString('base64url')), sha256],
]
for (const [name, headers, told] of ways)
  it(`row 80: ${name} -> verified, and told on GET and HEAD as Repr-Digest`, async () => {
    const site = await startSite()
    const url = await site.create(10, headers)
    await site.append(url, 0, content.slice(0, 4))
    expect((await site.head(url)).headers).not.toHaveProperty('repr-digest')
    expect(await site.append(url, 4, content.slice(4))).toMatchObject({ status: 204 })
    expect((await site.head(url)).headers['repr-digest']).toBe(told)
    for (const Range of [undefined, 'bytes=1-2'])
      expect((await site.send('GET', url, { Range })).headers['repr-digest']).toBe(told)
  })

it('row 80: an upload of no bytes, one of unknown length, and one in the creation -> verified', async () => {
  const site = await startSite()
  const none = { 'Repr-Digest': `sha-256=:${hash('sha256', '').toString('base64')}:` }
  expect(await site.shown(await site.create(0, none))).toBe('0/0')
  expect(await site.send('POST', '/files', { 'Upload-Length': 0, 'Repr-Digest': wrong })).toMatchObject({
    status: 460,
  })
  const deferred = await site.create('deferred', { 'Repr-Digest': sha256 })
  await site.append(deferred, 0, content)
  expect(await site.append(deferred, 10, '', { 'Upload-Length': 10 })).toMatchObject({ status: 204 })
  expect(await site.shown(await site.createFinished(content, { 'Repr-Digest': sha256 }))).toBe('10/10')
})

it('row 81: a PATCH whose last byte shows another digest -> 460, then 410, and no byte is kept', async () => {
  const site = await startSite()
  const url = await site.create(10, { 'Repr-Digest': wrong })
  await site.append(url, 0, content.slice(0, 9))
  expect(await site.append(url, 9, '9')).toMatchObject({ status: 460 })
  for (const method of ['HEAD', 'GET', 'DELETE'])
    expect(await site.send(method, url)).toMatchObject({ status: 410 })
  expect(await site.append(url, 9, '9')).toMatchObject({ status: 410 })
  expect((await stat(join(site.folder, basename(url)))).size).toBe(0)
})

it('row 81: a creation with all bytes that are others -> 460, no Location, and nothing is left', async () => {
  const site = await startSite()
  const headers = { 'Upload-Length': 10, 'Repr-Digest': wrong, ...bytesType }
  const answer = await site.send('POST', '/files', headers, content)
  expect(answer.status).toBe(460)
  expect(answer.headers).not.toHaveProperty('location')
  expect((await readdir(site.folder)).filter((name) => name !== '.tidemark')).toEqual([])
})

it('row 81: the finish hook is not asked, and nobody is told, of what failed', async () => {
  const told: string[] = []
  const site = await startSite({
    onUploadFinish: async () => {
      told.push('hook')
      return {}
    },
    onUploadEvent: ({ kind }) => void told.push(kind),
  })
  const url = await site.create(10, { 'Repr-Digest': wrong })
  await site.append(url, 0, content)
  await site.server.close()
  expect(told).toEqual(['created'])
})

it('row 81: a failed upload is swept after a day', async () => {
  let now = Date.now()
  const site = await startSite({ now: () => now })
  const url = await site.create(10, { 'Repr-Digest': wrong })
  await site.append(url, 0, content)
  await site.server.cleanUpExpiredUploads()
  expect(await site.shown(url)).toBe('410')
  now += 25 * 3_600_000
  await site.server.cleanUpExpiredUploads()
  expect(await site.shown(url)).toBe('404')
})

const malformed: [name: string, headers: Headers][] = [
  ['Repr-Digest: sha-256', { 'Repr-Digest': 'sha-256' }],
  ['Repr-Digest that is no list of bytes', { 'Repr-Digest': `sha-256=${hash('sha256').toString('base64')}` }],
  ['Repr-Digest with a digest that is too short', { 'Repr-Digest': 'sha-256=:AAAA:' }],
  ['Repr-Digest with bad base64', { 'Repr-Digest': sha256.replace('=:', '=:=') }],
  ['Repr-Digest that is malformed for what is not known', { 'Repr-Digest': `md5=x, ${sha256}` }],
  ['metadata sha256 that is too short', inMetadata('abcd')],
  ['metadata sha256 that says something else', { 'Repr-Digest': sha256, ...inMetadata('a'.repeat(64)) }],
]
for (const [name, headers] of malformed)
  it(`row 82: ${name} -> 400, nothing made`, async () => {
    const site = await startSite()
    const answer = await site.send('POST', '/files', { 'Upload-Length': 10, ...headers })
    expect(answer.status).toBe(400)
    expect((await readdir(site.folder)).filter((name) => name !== '.tidemark')).toEqual([])
  })

for (const value of ['', 'null', 'undefined'])
  it(`row 82: metadata sha256 "${value}" -> no digest, as a form sends what is not set`, async () => {
    const site = await startSite()
    const url = await site.createFinished(content, inMetadata(value))
    expect((await site.head(url)).headers).not.toHaveProperty('repr-digest')
  })

it('row 83: without a declared digest -> none, or SHA-256 where every upload is hashed', async () => {
  const declared = await startSite()
  const plain = await declared.createFinished(content)
  expect((await declared.head(plain)).headers).not.toHaveProperty('repr-digest')
  const always = await startSite({ digest: 'always' })
  const url = await always.create(10)
  await always.append(url, 0, content.slice(0, 3))
  await always.append(url, 3, content.slice(3))
  expect((await always.head(url)).headers['repr-digest']).toBe(sha256)
  const never = await startSite({ digest: 'never' })
  const ignored = await never.createFinished(content, { 'Repr-Digest': wrong })
  expect((await never.head(ignored)).headers).not.toHaveProperty('repr-digest')
})

it('row 83: OPTIONS -> Want-Repr-Digest where digests are verified', async () => {
  const wanted = async (site: Site) => (await site.send('OPTIONS', '/files')).headers['want-repr-digest']
  expect(await wanted(await startSite())).toBe('sha-256=10, sha-512=1')
  expect(await wanted(await startSite({ digest: 'never' }))).toBeUndefined()
})

it('row 84: a final with a digest -> verified when it is made of its parts', async () => {
  const site = await startSite()
  const parts = [await part(site, content.slice(0, 4)), await part(site, content.slice(4))]
  const final = (digest: string) =>
    site.send('POST', '/files', { 'Upload-Concat': `final;${parts.join(' ')}`, 'Repr-Digest': digest })
  const good = await final(sha256)
  expect(good.status).toBe(201)
  expect((await site.head(pathOf(good))).headers['repr-digest']).toBe(sha256)
  expect(await final(sha256)).toMatchObject({ headers: { location: good.headers.location } })
  expect(await final(wrong)).toMatchObject({ status: 460 })
  for (const url of parts) expect(await site.shown(url)).toMatch(/^(4|6)\//)
})

it('row 84: a part with a digest -> verified as any upload', async () => {
  const site = await startSite()
  const url = await site.create(10, { 'Upload-Concat': 'partial', 'Repr-Digest': wrong })
  expect(await site.append(url, 0, content)).toMatchObject({ status: 460 })
})

it('row 85: a checksum that fails on the way -> 460, and the digest is still that of what is sent again', async () => {
  const site = await startSite()
  const url = await site.create(10, { 'Repr-Digest': sha256 })
  await site.append(url, 0, content.slice(0, 3))
  const checksum = { 'Upload-Checksum': `sha256 ${hash('sha256', content.slice(3)).toString('base64')}` }
  expect(await site.append(url, 3, 'xxxxxxx', checksum)).toMatchObject({ status: 460 })
  expect(await site.append(url, 3, content.slice(3), checksum)).toMatchObject({ status: 204 })
  expect((await site.head(url)).headers['repr-digest']).toBe(sha256)
})

function part(site: Site, bytes: string): Promise<string> {
  return site.createFinished(bytes, { 'Upload-Concat': 'partial' })
}
