// Instant upload: a creation that declares what a finished upload has is answered with a finished upload, and no byte
// needs to be sent.

import { createHash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { expect, it } from 'vitest'
import type { TidemarkServerOptions } from '../../server/host/server-options.ts'
import { FileStore } from '../../stores/file/file-store.ts'
import { LmdbRecords } from '../../stores/local/lmdb-records.ts'
import { as, startTokenSite } from '../access/support.ts'
import { temporaryFolder } from '../support/folder.ts'
import { bytesAt, bytesType, type Headers, pathOf, type Site, startSite } from './exchange.ts'

const content = '0123456789'
const digestOf = (text: string) => `sha-256=:${createHash('sha256').update(text).digest('base64')}:`
const declared: Headers = { 'Upload-Length': 10, 'Repr-Digest': digestOf(content) }

async function withRecords(): Promise<Partial<TidemarkServerOptions>> {
  return { records: new LmdbRecords({ directory: await temporaryFolder() }), instantUpload: 'global' }
}

/** A site with a finished upload. */
async function siteWithFile(options: Partial<TidemarkServerOptions> = {}) {
  const site = await startSite({ ...(await withRecords()), ...options })
  const url = await site.createFinished(content, { 'Repr-Digest': digestOf(content) })
  return { site, url }
}

it('row 90: a creation that declares what is there -> 201 with Upload-Offset = Upload-Length, finished', async () => {
  const { site, url } = await siteWithFile()
  const answer = await site.send('POST', '/files', { ...declared, 'Upload-Metadata': 'filename YQ==' })
  expect(answer).toMatchObject({ status: 201, headers: { 'upload-offset': '10' } })
  const again = pathOf(answer)
  expect(again).not.toBe(url)
  expect(await site.shown(again)).toBe('10/10')
  expect((await site.head(again)).headers).toMatchObject({
    'repr-digest': digestOf(content),
    'upload-metadata': 'filename YQ==',
  })
  const download = await site.send('GET', again)
  expect(download).toMatchObject({ status: 200, text: content })
  expect(download.headers['content-disposition']).toContain('filename="a"')
})

it('row 90: what was given so can be given on, also when the first one is gone', async () => {
  const { site, url } = await siteWithFile()
  const second = pathOf(await site.send('POST', '/files', declared))
  await site.send('DELETE', url)
  const third = pathOf(await site.send('POST', '/files', declared))
  await site.send('DELETE', second)
  expect(await site.send('GET', third)).toMatchObject({ status: 200, text: content })
  await site.send('DELETE', third)
  const fourth = await site.send('POST', '/files', declared)
  expect(fourth.headers).not.toHaveProperty('upload-offset')
  expect((await readdir(site.folder)).filter((name) => !name.includes(basename(pathOf(fourth))))).toEqual([])
})

it('row 90: a body that comes with it is heard out, and kept once', async () => {
  const { site } = await siteWithFile()
  const post = site.open('POST', '/files', { ...declared, ...bytesType, 'Content-Length': 10 })
  post.write('01234')
  await new Promise((resolve) => setTimeout(resolve, 50))
  post.write('56789')
  expect(await post.answer).toMatchObject({ status: 201, headers: { 'upload-offset': '10' } })
})

it('row 90: who waits for 100 Continue is answered, and sends nothing', async () => {
  const { site } = await siteWithFile()
  const post = site.open('POST', '/files', {
    ...{ ...declared, ...bytesType, 'Content-Length': 10, Expect: '100-continue' },
  })
  let isContinued = false
  void post.continued.then(() => {
    isContinued = true
  })
  expect(await post.answer).toMatchObject({ status: 201, headers: { 'upload-offset': '10' } })
  expect(isContinued).toBe(false)
})

it('row 90: a PATCH from its beginning, by a client that does not look -> 409 at once, with the offset', async () => {
  const { site } = await siteWithFile()
  const url = pathOf(await site.send('POST', '/files', declared))
  const patch = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10 }))
  expect(await patch.answer).toMatchObject({
    status: 409,
    headers: { 'upload-offset': '10', connection: 'close' },
  })
})

it('row 90: hooks and events are told as of any upload, each once', async () => {
  const told: string[] = []
  const { site } = await siteWithFile({
    onUploadCreate: async () => {
      told.push('create hook')
      return {}
    },
    onUploadFinish: async (_, { offset, size }) => {
      told.push(`finish hook ${offset}/${size}`)
      return { headers: { 'X-Mine': 'yes' } }
    },
    onUploadEvent: ({ kind }) => void told.push(kind),
  })
  site.server.on('POST_FINISH', () => told.push('POST_FINISH'))
  told.length = 0
  const answer = await site.send('POST', '/files', declared)
  expect(answer.headers).toMatchObject({ 'x-mine': 'yes', 'upload-offset': '10' })
  await site.server.close()
  expect(told.sort()).toEqual(['POST_FINISH', 'create hook', 'created', 'finish hook 10/10', 'finished'])
})

it('row 90: a finish hook that refuses it -> refused, and nothing is left', async () => {
  let refuses = false
  const { site } = await siteWithFile({
    onUploadFinish: async () => {
      if (refuses) throw { status_code: 418, body: 'no' }
      return {}
    },
  })
  const before = await readdir(site.folder)
  refuses = true
  expect(await site.send('POST', '/files', declared)).toMatchObject({ status: 418 })
  expect(await readdir(site.folder)).toEqual(before)
})

const others: [name: string, headers: Headers][] = [
  ['another digest', { ...declared, 'Repr-Digest': digestOf('other') }],
  ['another length', { ...declared, 'Upload-Length': 11 }],
  ['a length to come', { ...declared, 'Upload-Length': undefined, 'Upload-Defer-Length': 1 }],
  ['no digest', { 'Upload-Length': 10 }],
  ['a part', { ...declared, 'Upload-Concat': 'partial' }],
]
for (const [name, headers] of others)
  it(`row 91: ${name} -> an upload like any other`, async () => {
    const { site } = await siteWithFile()
    const answer = await site.send('POST', '/files', headers)
    expect(answer.status).toBe(201)
    expect(answer.headers).not.toHaveProperty('upload-offset')
    expect(await site.shown(pathOf(answer))).toMatch(/^0\//)
  })

it('row 91: what is a part, or unfinished, or has failed, or was not hashed -> is given to nobody', async () => {
  const site = await startSite(await withRecords())
  const digest = { 'Repr-Digest': digestOf(content) }
  await site.createFinished(content, { ...digest, 'Upload-Concat': 'partial' })
  await site.create(10, { ...digest, ...bytesType }, '012345678')
  await site.createFinished(content)
  const failed = await site.create(10, { 'Repr-Digest': digestOf('other') })
  await site.append(failed, 0, content)
  for (const text of [content, 'other'])
    expect(
      (await site.send('POST', '/files', { 'Upload-Length': 10, 'Repr-Digest': digestOf(text) })).headers,
    ).not.toHaveProperty('upload-offset')
})

it('row 91: a final that was made of parts -> is given on, as any upload', async () => {
  const site = await startSite(await withRecords())
  const parts = await Promise.all(
    ['01234', '56789'].map((bytes) => site.createFinished(bytes, { 'Upload-Concat': 'partial' })),
  )
  const concat = { 'Upload-Concat': `final;${parts.join(' ')}`, 'Repr-Digest': digestOf(content) }
  expect((await site.send('POST', '/files', concat)).status).toBe(201)
  expect((await site.send('POST', '/files', declared)).headers['upload-offset']).toBe('10')
})

it('row 92: by default only what the same owner has, and nothing where nobody says who they are', async () => {
  const { site, ann, bob, admin } = await startTokenSite({
    records: new LmdbRecords({ directory: await temporaryFolder() }),
  })
  await site.createFinished(content, as(ann, { 'Repr-Digest': digestOf(content) }))
  const offsetFor = async (token: string) =>
    (await site.send('POST', '/files', as(token, declared))).headers['upload-offset']
  expect(await offsetFor(bob)).toBeUndefined()
  expect(await offsetFor(admin)).toBeUndefined()
  expect(await offsetFor(ann)).toBe('10')
  const open = await siteWithFile({ instantUpload: 'owner' })
  expect((await open.site.send('POST', '/files', declared)).headers).not.toHaveProperty('upload-offset')
})

it('row 92: global -> what anybody has; off -> nothing', async () => {
  const records = () => temporaryFolder().then((directory) => new LmdbRecords({ directory }))
  const offsetFor = async (instantUpload: 'global' | 'off') => {
    const { site, ann, bob } = await startTokenSite({ records: await records(), instantUpload })
    await site.createFinished(content, as(ann, { 'Repr-Digest': digestOf(content) }))
    const answer = await site.send('POST', '/files', as(bob, declared))
    const url = pathOf(answer)
    expect((await site.send('HEAD', url, as(ann))).status).toBe(404)
    return answer.headers['upload-offset']
  }
  expect(await offsetFor('global')).toBe('10')
  expect(await offsetFor('off')).toBeUndefined()
})

it('row 93: on disk it is the same file, which goes with its last upload', async () => {
  const { site, url } = await siteWithFile()
  const record = async (of: string) => (await site.server.engine.bytes.look(basename(of)))!
  const again = pathOf(await site.send('POST', '/files', declared))
  const path = (await record(again)).storage!.path
  expect(await stat(path)).toMatchObject({
    nlink: 2,
    ino: (await stat(join(site.folder, basename(url)))).ino,
  })
  await site.send('DELETE', url)
  expect((await stat(path)).nlink).toBe(1)
})

it('row 93: a link that can not be made, and an index that names what is gone -> the bytes are sent as ever', async () => {
  const store = new FileStore({ directory: await temporaryFolder(), durability: 'none' })
  const { site } = await siteWithFile({ datastore: store })
  const { linkFrom } = store.byteStore
  store.byteStore.linkFrom = async () => undefined
  await expectSent(site)
  store.byteStore.linkFrom = linkFrom
  // Two are there by now; they go behind the back of the records.
  for await (const { head } of store.byteStore.walk()) await store.byteStore.remove(head.id)
  await expectSent(site)
})

it('row 94: two creations of the same content at once -> both are right, whoever is first', async () => {
  const site = await startSite(await withRecords())
  const headers = { ...declared, ...bytesType }
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => site.send('POST', '/files', headers, content)),
  )
  const urls = new Set(answers.map(pathOf))
  expect(urls.size).toBe(8)
  for (const url of urls) expect((await site.send('GET', url)).text).toBe(content)
})

async function expectSent(site: Site): Promise<void> {
  const answer = await site.send('POST', '/files', declared)
  expect(answer.status).toBe(201)
  expect(answer.headers).not.toHaveProperty('upload-offset')
  expect(await site.append(pathOf(answer), 0, content)).toMatchObject({ status: 204 })
  expect((await site.send('GET', pathOf(answer))).text).toBe(content)
}
