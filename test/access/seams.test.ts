// Where people sign in, and much else is asked for: every door, every hook and every count holds to the same rules.

import { expect, it } from 'vitest'
import { LmdbLedger } from '../../stores/local/lmdb-ledger.ts'
import { Receiver } from '../hooks/receiver.ts'
import { form, formType, part, partHead } from '../plain/form.ts'
import { bytesType, type Headers, startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { as, beginAppend, startTokenSite } from './support.ts'

const typeOf = (type: string): Headers => ({
  'Upload-Metadata': `filetype ${Buffer.from(type).toString('base64')}`,
})

it('counts a network address at the plain doors, too', async () => {
  const ledger = new LmdbLedger({ directory: await temporaryFolder() })
  const plan = { ledger, owner: {}, address: { totalBytes: 10 }, perIdentity: false }
  const site = await startSite({ plainPath: '/upload', quotas: plan })
  expect((await site.send('PUT', '/upload/a', {}, '0123456789')).status).toBe(201)
  expect((await site.send('PUT', '/upload/b', {}, 'x')).status).toBe(429)
  expect((await site.send('POST', '/upload', formType, form(part('f', 'x', 'x')))).status).toBe(429)
  expect((await site.send('POST', '/files', { 'Upload-Length': 1 })).status).toBe(429)
})

it('lets a hook give nobody an upload that is there already, by no door, and disturbs nobody by it', async () => {
  const receiver = await Receiver.start()
  const hooks = { http: { url: receiver.url }, enabled: ['pre-create'] } as const
  const { site, ann, bob } = await startTokenSite({ plainPath: '/upload', hooks })
  const url = await site.create(6, as(ann))
  const whole = await site.createFinished('of Ann', as(ann, { 'Upload-Metadata': 'filename YQ==' }))
  const sending = await beginAppend(site, url, ann, 6)
  sending.write('abc')
  for (const taken of [url, whole]) {
    receiver.answers = { 'pre-create': { ChangeFileInfo: { ID: taken.split('/').at(-1) } } }
    const answers = [
      await site.send('POST', '/files', as(bob, { 'Upload-Length': 6, ...bytesType }), 'of Bob'),
      await site.send('PUT', '/upload/a', as(bob), 'of Bob'),
      await site.send('PUT', '/upload/mine', as(ann), 'newer!'),
      await site.send('POST', '/upload', as(bob, formType), form(part('f', 'of Bob', 'a'))),
      await site.send('POST', '/upload', as(bob, formType), form(part('f', 'x'.repeat(70_000), 'a'))),
    ]
    expect(answers.map(({ status }) => status)).toEqual([409, 409, 409, 409, 409])
    for (const token of [bob, ann])
      for (const name of ['a', 'mine']) {
        const asked = await site.send('HEAD', `/upload/${name}`, as(token))
        expect([name, asked.status, asked.headers['content-length']]).toEqual([name, 404, undefined])
        expect((await site.send('GET', `/upload/${name}`, as(token))).status).toBe(404)
        expect((await site.send('DELETE', `/upload/${name}`, as(token))).status).toBe(404)
      }
    const beyond = as(bob, { 'Content-Range': 'bytes 3-5/6' })
    const goesOn = await site.send('PUT', '/upload/a', beyond, 'Bob')
    expect([goesOn.status, goesOn.headers['upload-offset']]).toEqual([409, '0'])
  }
  sending.write('def')
  expect((await sending.answer).status).toBe(204)
  expect((await site.send('GET', url, as(ann))).text).toBe('abcdef')
  expect((await site.send('GET', whole, as(ann))).text).toBe('of Ann')
})

it('holds whoever comes through a plain door to the limits of their token', async () => {
  const { site, file } = await startTokenSite({ plainPath: '/upload' })
  const small = await file.add({ owner: 'ann', maxSize: 4 })
  const images = await file.add({ owner: 'ann', types: ['image/*'] })
  const reader = await file.add({ owner: 'ann', readOnly: true })
  const soon = await file.add({ owner: 'ann', expireAfter: '1h' })
  const put = async (token: string, headers: Headers, body = 'hello') =>
    (await site.send('PUT', '/upload/a', as(token, headers), body)).status
  const post = async (token: string, more = '', body = 'hello') =>
    (await site.send('POST', '/upload', as(token, formType), form(part('f', body, 'x', more)))).status
  expect([await put(small, {}), await put(small, {}, 'abcd')]).toEqual([413, 201])
  expect([
    await post(small),
    await post(small, '', 'abcd'),
    await post(small, '', 'x'.repeat(70_000)),
  ]).toEqual([413, 201, 413])
  const image = 'Content-Type: image/png\r\n'
  expect([await put(images, {}), await put(images, { 'Content-Type': 'image/png' })]).toEqual([415, 200])
  expect([await post(images), await post(images, image)]).toEqual([415, 201])
  expect([await put(reader, {}), await post(reader)]).toEqual([403, 403])
  const begun = await site.send('PUT', '/upload/b', as(soon, { 'Content-Range': 'bytes 0-1/9' }), 'he')
  const { pathname } = new URL(begun.headers.location!)
  expect((await site.send('HEAD', pathname, as(soon))).headers).toHaveProperty('upload-expires')
})

it('holds finals and instant uploads to the limits of a token', async () => {
  const { site, file, ann } = await startTokenSite()
  const images = await file.add({ owner: 'ann', types: ['image/*'], maxSize: 4 })
  const parts: string[] = []
  for (let n = 0; n < 2; n++)
    parts.push(await site.create(3, as(ann, { 'Upload-Concat': 'partial', ...bytesType }), 'abc'))
  const concat = { 'Upload-Concat': `final;${parts.join(' ')}` }
  expect((await site.send('POST', '/files', as(images, { ...concat, ...typeOf('image/png') }))).status).toBe(
    413,
  )
  const one = { 'Upload-Concat': `final;${parts[0]}` }
  expect((await site.send('POST', '/files', as(images, { ...one, ...typeOf('text/html') }))).status).toBe(415)
  expect((await site.send('POST', '/files', as(images, { ...one, ...typeOf('image/png') }))).status).toBe(201)
})

it('takes no other method at a plain door than the one that was sent', async () => {
  const { site, file, ann } = await startTokenSite({ plainPath: '/upload' })
  const maker = await file.add({ owner: 'ann', scopes: ['create', 'append'] })
  const asker = await file.add({ owner: 'ann', scopes: ['ask'] })
  await site.send('PUT', '/upload/a', as(ann), 'hello')
  for (const method of ['DELETE', 'GET', 'HEAD', 'OPTIONS']) {
    const override = { 'X-HTTP-Method-Override': method }
    expect((await site.send('PUT', '/upload/b', as(maker, override), 'x')).status).toBeLessThan(202)
    expect((await site.send('GET', '/upload/a', as(asker, override))).status).toBe(403)
    expect((await site.send('DELETE', '/upload/a', as(asker, override))).status).toBe(403)
    expect((await site.send('GET', '/upload/a', override)).status).toBe(401)
  }
  expect((await site.send('GET', '/upload/a', as(ann))).text).toBe('hello')
})

it('tells of a finished upload by a HEAD without tus only whom it would tell with it', async () => {
  const { site, file, ann, bob } = await startTokenSite({ digest: 'always' })
  const url = await site.createFinished('hello', as(ann))
  const asker = await file.add({ owner: 'ann', scopes: ['ask'] })
  const maker = await file.add({ owner: 'ann', scopes: ['create', 'append', 'read'] })
  const head = async (headers: Headers) => {
    const answer = await site.send('HEAD', url, { 'Tus-Resumable': undefined, ...headers })
    return [
      String(answer.status),
      answer.headers['repr-digest'] !== undefined,
      answer.headers.etag !== undefined,
    ]
  }
  expect(await head({})).toEqual(['401', false, false])
  expect(await head(as(maker))).toEqual(['403', false, false])
  // As of an upload that never was: a HEAD without the word is then taken for one of tus.
  expect(await head(as(bob))).toEqual(['412', false, false])
  expect(await head(as(asker))).toEqual(['200', true, true])
})

it('ends a PUT and a form whose token is taken back while they come, with 401', async () => {
  const { site, file, ann } = await startTokenSite({ plainPath: '/upload', lookAgainMs: 0 })
  const more = as(ann, { 'Content-Length': 10_000_000, Expect: '100-continue' })
  const put = site.open('PUT', '/upload/a', more)
  const post = site.open('POST', '/upload', { ...more, ...formType })
  await Promise.all([put.continued, post.continued])
  put.write('x'.repeat(1000))
  post.write(`${partHead('f', 'x')}${'x'.repeat(100_000)}`)
  await file.revoke(ann)
  let isOver = false
  const ends = Promise.all([put.answer, post.answer]).finally(() => {
    isOver = true
  })
  while (!isOver) {
    put.write('x')
    post.write('x')
    await Promise.race([ends, new Promise((resume) => setTimeout(resume, 100))])
  }
  const answers = await ends
  expect(answers.map(({ status }) => status)).toEqual([401, 401])
  for (const { headers } of answers) expect(headers['www-authenticate']).toContain('invalid_token')
  const again = await file.add({ owner: 'ann' })
  const { headers } = await site.send('HEAD', '/upload/a', as(again))
  expect(Number(headers['upload-offset'])).toBeGreaterThan(0)
})

it('finishes no small file of a form or a PUT whose token was taken back meanwhile', async () => {
  const { site, file, ann } = await startTokenSite({ plainPath: '/upload' })
  const more = as(ann, { Expect: '100-continue' })
  const put = site.open('PUT', '/upload/a', { ...more, 'Content-Length': 3 })
  const body = form(part('f', 'abc', 'x'))
  const post = site.open('POST', '/upload', { ...more, ...formType, 'Content-Length': body.length })
  await Promise.all([put.continued, post.continued])
  await file.revoke(ann)
  put.write('abc')
  post.write(body)
  expect([(await put.answer).status, (await post.answer).status]).toEqual([401, 401])
  const again = await file.add({ owner: 'ann' })
  expect((await site.send('GET', '/upload/a', as(again))).status).toBe(404)
  const { headers } = await site.send('HEAD', '/upload/a', as(again))
  expect(headers['upload-offset'], 'all but the last byte, at which it would be finished').toBe('2')
})
