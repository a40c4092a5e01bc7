// Whatever ends an upload, by whichever door it came, gives back what it had of a quota, at once.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { expect, it } from 'vitest'
import type { TidemarkServerOptions } from '../../server/host/server-options.ts'
import { LmdbLedger } from '../../stores/local/lmdb-ledger.ts'
import { LmdbRecords } from '../../stores/local/lmdb-records.ts'
import { Receiver } from '../hooks/receiver.ts'
import { form, formType, part } from '../plain/form.ts'
import { bytesAt, bytesType, pathOf, startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'

const digestOf = (text: string) => ({
  'Repr-Digest': `sha-256=:${createHash('sha256').update(text).digest('base64')}:`,
})
const idOf = (url: string) => url.split('/').at(-1)!
const nothing = [0, 0, 0]

async function startCounted(options: Partial<TidemarkServerOptions> = {}) {
  const directory = await temporaryFolder()
  const ledger = new LmdbLedger({ directory })
  const limits = { openUploads: 9, unfinishedBytes: 1_000_000, totalBytes: 1_000_000 }
  const site = await startSite({
    plainPath: '/upload',
    records: new LmdbRecords({ directory }),
    instantUpload: 'global',
    quotas: { ledger, owner: limits, address: {}, perIdentity: false },
    ...options,
  })
  const used = async () => {
    const { openUploads, unfinishedBytes, totalBytes } = await ledger.usage('owner:', Date.now())
    return [openUploads, unfinishedBytes, totalBytes]
  }
  return { site, used }
}

it('an upload whose digest is another one has nothing any more', async () => {
  const { site, used } = await startCounted()
  const url = await site.create(5, digestOf('other'))
  expect(await used()).toEqual([1, 5, 5])
  expect((await site.append(url, 0, 'hello')).status).toBe(460)
  expect(await used()).toEqual(nothing)
  const whole = { ...bytesType, ...digestOf('other'), 'Upload-Length': 5 }
  expect((await site.send('POST', '/files', whole, 'hello')).status).toBe(460)
  expect(await used()).toEqual(nothing)
  expect((await site.send('PUT', '/upload/a', digestOf('other'), 'hello')).status).toBeLessThan(500)
  expect((await site.send('DELETE', '/upload/a')).status).toBeLessThan(500)
  expect(await used()).toEqual(nothing)
  // Who looks later says the same of what failed.
  const record = await site.server.engine.bytes.look(idOf(url))
  await site.server.engine.quotas!.note(record!)
  expect(await used()).toEqual(nothing)
})

it('a final whose digest is another one has nothing any more', async () => {
  const { site, used } = await startCounted()
  const one = await site.create(3, { 'Upload-Concat': 'partial', ...bytesType }, 'abc')
  const concat = { 'Upload-Concat': `final;${one}`, ...digestOf('other') }
  expect((await site.send('POST', '/files', concat)).status).toBe(460)
  expect(await used()).toEqual([0, 0, 3])
  expect((await site.send('DELETE', one)).status).toBe(204)
  expect(await used()).toEqual(nothing)
})

it('an upload that a hook stops has nothing any more, of known length or not', async () => {
  const receiver = await Receiver.start()
  receiver.answers = { 'post-receive': { StopUpload: true } }
  const hooks = { http: { url: receiver.url }, progressIntervalMs: 1 } as const
  const { site, used } = await startCounted({ hooks })
  for (const length of ['deferred', 100_000] as const) {
    const url = await site.create(length)
    const size = length === 'deferred' ? { 'Transfer-Encoding': 'chunked' } : { 'Content-Length': length }
    const sending = site.open('PATCH', url, bytesAt(0, { ...size, Expect: '100-continue' }))
    await sending.continued
    let isOver = false
    const end = sending.answer.finally(() => {
      isOver = true
    })
    while (!isOver) {
      sending.write(length === 'deferred' ? '1\r\nx\r\n' : 'x')
      await Promise.race([end, new Promise((resume) => setTimeout(resume, 100))])
    }
    expect((await end).status).toBe(400)
    expect(await site.shown(url)).toMatch(/404|410/)
    expect(await used()).toEqual(nothing)
  }
})

it('a creation of unknown length that is refused at its end has nothing any more', async () => {
  const { site, used } = await startCounted({ maxSize: 5 })
  const chunked = { ...bytesType, 'Upload-Defer-Length': 1, 'Transfer-Encoding': 'chunked' }
  const sending = site.open('POST', '/files', { ...chunked, Expect: '100-continue' })
  await sending.continued
  sending.write('6\r\nabcdef\r\n0\r\n\r\n')
  expect((await sending.answer).status).toBe(413)
  expect(await used()).toEqual(nothing)
  const put = site.open('PUT', '/upload/a', { 'Transfer-Encoding': 'chunked', Expect: '100-continue' })
  await put.continued
  put.write('6\r\nabcdef\r\n0\r\n\r\n')
  expect((await put.answer).status).toBe(413)
  expect(
    (await site.send('POST', '/upload', formType, form(part('f', 'x'.repeat(70_000), 'b')))).status,
  ).toBe(413)
  expect(await used()).toEqual(nothing)
})

it('what is made in one step, because nobody limits it, is not asked for and counts afterwards', async () => {
  class Asked extends LmdbLedger {
    times = 0
    override admit(...ask: Parameters<LmdbLedger['admit']>) {
      this.times++
      return super.admit(...ask)
    }
  }
  const ledger = new Asked({ directory: await temporaryFolder() })
  const { site } = await startCounted({ quotas: { ledger, owner: {}, address: {}, perIdentity: true } })
  const used = async () => (await ledger.usage('owner:', Date.now())).totalBytes
  const headers = { 'Tus-Resumable': '1.0.0', 'Upload-Length': 5, 'Content-Length': 5, ...bytesType }
  const where = { host: '127.0.0.1', port: site.port, path: '/files', agent: false }
  const request = httpRequest({ ...where, method: 'POST', headers }).end('hello')
  const [answer] = (await once(request, 'response')) as [IncomingMessage]
  answer.resume()
  expect(answer.headers['upload-offset']).toBe('5')
  expect([ledger.times, await used()]).toEqual([0, 5])
  expect((await site.send('DELETE', new URL(answer.headers.location!).pathname)).status).toBe(204)
  expect(await used()).toBe(0)
})

it('an instant upload counts as one that was sent, until it is deleted', async () => {
  const receiver = await Receiver.start()
  const hooks = { http: { url: receiver.url }, enabled: ['pre-finish'] } as const
  const { site, used } = await startCounted({ hooks })
  const first = await site.createFinished('hello', digestOf('hello'))
  const again = { 'Upload-Length': 5, ...digestOf('hello') }
  const second = await site.send('POST', '/files', again)
  expect(second.headers['upload-offset']).toBe('5')
  expect(await used()).toEqual([0, 0, 10])
  receiver.answers = { 'pre-finish': { RejectUpload: true } }
  expect((await site.send('POST', '/files', again)).status).toBe(400)
  expect(await used()).toEqual([0, 0, 10])
  for (const url of [first, pathOf(second)]) expect((await site.send('DELETE', url)).status).toBe(204)
  expect(await used()).toEqual(nothing)
})

it('files that came by name or in a form count until they are deleted', async () => {
  const { site, used } = await startCounted()
  await site.send('PUT', '/upload/a', {}, 'hello')
  const chunked = site.open('PUT', '/upload/b', { 'Transfer-Encoding': 'chunked' })
  chunked.write('5\r\nhello\r\n0\r\n\r\n')
  expect((await chunked.answer).status).toBe(201)
  const files = form(part('f', 'hello', 'c'), part('f', 'x'.repeat(70_000), 'd'))
  const posted = await site.send('POST', '/upload', formType, files)
  expect(await used()).toEqual([0, 0, 70_015])
  for (const name of ['a', 'b']) await site.send('DELETE', `/upload/${name}`)
  for (const { id } of (JSON.parse(posted.text) as { files: { id: string }[] }).files)
    await site.send('DELETE', `/files/${id}`)
  expect(await used()).toEqual(nothing)
})
