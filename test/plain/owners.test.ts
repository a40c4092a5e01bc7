// Plain doors where people have to sign in: everybody has names of their own, and nobody finds what another one keeps.

import { expect, it, vi } from 'vitest'
import { as, startTokenSite } from '../access/support.ts'
import type { Answer } from '../protocol/exchange.ts'
import { form, formType, hashOf, part } from './form.ts'

const start = () => startTokenSite({ plainPath: '/upload' })
const filesOf = ({ text }: Answer) => (JSON.parse(text) as { files: { id: string; sha256: string }[] }).files

it('asks for a token before it tells or takes anything', async () => {
  const { site, ann } = await start()
  await site.send('PUT', '/upload/a', as(ann), 'hello')
  const waiting = { 'Content-Length': 5, Expect: '100-continue' }
  for (const method of ['HEAD', 'GET', 'DELETE'])
    for (const path of ['/upload/a', '/upload/none', '/upload/..', '/upload'])
      expect((await site.send(method, path)).status).toBe(401)
  for (const [method, path] of [
    ['PUT', '/upload/a'],
    ['PUT', '/upload/..'],
    ['POST', '/upload'],
  ] as const) {
    const answer = await site.open(method, path, { ...formType, ...waiting }).answer
    expect([answer.status, answer.headers['www-authenticate']]).toEqual([401, 'Bearer realm="Tidemark"'])
  }
  expect((await site.send('OPTIONS', '/upload/a')).status).toBe(204)
})

it('gives everybody names of their own', async () => {
  const { site, ann, bob } = await start()
  await site.send('PUT', '/upload/a', as(ann), 'of Ann')
  expect((await site.send('GET', '/upload/a', as(bob))).status).toBe(404)
  expect((await site.head('/upload/a')).status).toBe(401)
  expect((await site.send('PUT', '/upload/a', as(bob), 'of Bob')).status).toBe(201)
  expect((await site.send('GET', '/upload/a', as(ann))).text).toBe('of Ann')
  expect((await site.send('DELETE', '/upload/a', as(bob))).status).toBe(204)
  expect((await site.send('GET', '/upload/a', as(ann))).text).toBe('of Ann')
})

it('makes uploads that belong to who sends them', async () => {
  const { site, ann, bob } = await start()
  const put = await site.send('PUT', '/upload/a', as(ann), 'of Ann')
  const posted = await site.send('POST', '/upload', { ...as(ann), ...formType }, form(part('f', 'x', 'x')))
  for (const { headers } of [put, posted]) {
    const { pathname } = new URL(headers.location!)
    expect((await site.send('GET', pathname, as(ann))).status).toBe(200)
    expect((await site.send('GET', pathname, as(bob))).status).toBe(404)
  }
})

it('goes on with what its own sender left, whatever key another one says', async () => {
  const { site, ann, bob } = await start()
  const content = 'x'.repeat(200_000)
  const begin = form(part('f', content, 'a')).subarray(0, 150_000)
  const request = site.open('POST', '/upload', { ...as(ann), ...formType, 'Content-Length': 300_000 })
  request.write(begin)
  request.cut()
  const all = async () => {
    const found: { id: string; offset: number }[] = []
    for await (const { head, mark } of site.server.engine.bytes.walk())
      found.push({ id: head.id, offset: mark.offset })
    return found
  }
  await vi.waitFor(async () => expect((await all())[0]?.offset).toBeGreaterThan(100_000), { timeout: 10_000 })
  const [kept] = await all()
  await vi.waitFor(async () => expect(await site.server.engine.bytes.names!.isAtRest(kept!.id)).toBe(true))
  const send = (token: string) =>
    site.send('POST', '/upload', { ...as(token), ...formType }, form(part('f', content, 'a')))

  const [ofBob] = filesOf(await send(bob))
  expect(ofBob).toMatchObject({ sha256: hashOf(content) })
  expect(ofBob!.id).not.toBe(kept!.id)
  expect(filesOf(await send(ann))).toEqual([
    expect.objectContaining({ id: kept!.id, sha256: hashOf(content) }),
  ])
})

it('takes bytes only of who may create and append, and answers who may only ask', async () => {
  const { site, file, ann } = await start()
  await site.send('PUT', '/upload/a', as(ann), 'hello')
  const creates = await file.add({ owner: 'ann', scopes: ['create'] })
  const asks = await file.add({ owner: 'ann', scopes: ['ask', 'read'] })
  const statusOf = async (method: string, token: string, body?: string) =>
    (await site.send(method, '/upload/a', as(token), body)).status
  expect(await statusOf('PUT', creates, 'x')).toBe(403)
  expect(await statusOf('PUT', asks, 'x')).toBe(403)
  expect(await statusOf('DELETE', asks)).toBe(403)
  expect(await statusOf('HEAD', asks)).toBe(200)
  expect(await statusOf('GET', asks)).toBe(200)
})
