// What belongs to somebody else is as absent as what never was, however one asks for it.
import { expect, it } from 'vitest'
import { type Answer, bytesAt, bytesType, type Headers, pathOf, type Site } from '../protocol/exchange.ts'
import { request as requestOfNobody } from '../support/engine.ts'
import { as, beginAppend, startTokenSite } from './support.ts'

/** Every way to ask for one upload. */
const ways: Readonly<Record<string, (site: Site, url: string, headers: Headers) => Promise<Answer>>> = {
  HEAD: (site, url, headers) => site.send('HEAD', url, headers),
  GET: (site, url, headers) => site.send('GET', url, headers),
  'GET of a range': (site, url, headers) => site.send('GET', url, { Range: 'bytes=0-1', ...headers }),
  'GET if it changed': (site, url, headers) => site.send('GET', url, { 'If-None-Match': '*', ...headers }),
  PATCH: (site, url, headers) => site.append(url, 2, 'cdef', headers),
  'PATCH at a wrong offset': (site, url, headers) => site.append(url, 1, 'x', headers),
  'PATCH of nothing': (site, url, headers) => site.append(url, 6, '', headers),
  'PATCH with a length': (site, url, headers) => site.append(url, 2, '', { 'Upload-Length': 2, ...headers }),
  'PATCH with a checksum': (site, url, headers) =>
    site.append(url, 2, 'cdef', { 'Upload-Checksum': 'sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=', ...headers }),
  DELETE: (site, url, headers) => site.send('DELETE', url, headers),
  'POST as PATCH': (site, url, headers) =>
    site.send('POST', url, bytesAt(2, { 'X-HTTP-Method-Override': 'PATCH', ...headers }), 'cdef'),
  'POST as DELETE': (site, url, headers) =>
    site.send('POST', url, { 'X-HTTP-Method-Override': 'delete', ...headers }),
  'GET as HEAD': (site, url, headers) =>
    site.send('GET', url, { 'X-HTTP-Method-Override': 'HEAD', ...headers }),
  'POST to an upload': (site, url, headers) => site.send('POST', url, { 'Upload-Length': 3, ...headers }),
}

const shown = ({ status, headers, text }: Answer) => {
  const { date: _date, ...rest } = headers
  return { status, headers: rest, text }
}

it('shows nobody what somebody else owns, in any method, and no trace of it', async () => {
  const { site, ann, bob } = await startTokenSite()
  const open = await site.create(6, as(ann, bytesType), 'ab')
  const deferred = await site.create('deferred', as(ann, bytesType), 'ab')
  const done = await site.createFinished('abcdef', as(ann))
  const part = await site.create(2, as(ann, { 'Upload-Concat': 'partial', ...bytesType }), 'ab')
  const final = pathOf(await site.send('POST', '/files', as(ann, { 'Upload-Concat': `final;${part}` })))
  const gone = await site.create(6, as(ann))
  expect((await site.send('DELETE', gone, as(ann))).status).toBe(204)
  const never = '/files/00000000000000000000000000000000'
  for (const [way, ask] of Object.entries(ways)) {
    const absent = shown(await ask(site, never, as(bob)))
    expect([way, absent.status]).toEqual([way, 404])
    for (const url of [open, deferred, done, part, final, gone])
      expect([way, shown(await ask(site, url, as(bob)))]).toEqual([way, absent])
  }
  expect((await site.send('HEAD', open, as(ann))).headers['upload-offset']).toBe('2')
  for (const url of [done, final]) expect((await site.send('GET', url, as(ann))).status).toBe(200)
})

it('is not taken in by other ways to write an id', async () => {
  const { site, ann, bob } = await startTokenSite()
  const url = await site.createFinished('abc', as(ann))
  const id = url.slice('/files/'.length)
  const encoded = [...id].map((c) => `%${c.charCodeAt(0).toString(16)}`).join('')
  const twice = encoded.replaceAll('%', '%25')
  const others = [
    encoded,
    twice,
    id.toUpperCase(),
    `${id}/`,
    `./${id}`,
    `../files/${id}`,
    `%2e%2e%2ffiles%2f${id}`,
    `${id}%00`,
    `${id}.`,
    `${id}?x=/${id}`,
    `${id}#x`,
    `${id};x`,
    `/${id}`,
  ]
  for (const path of others)
    for (const target of [`/files/${path}`, `http://${site.host}/files/${path}`])
      for (const method of ['GET', 'HEAD', 'DELETE'])
        expect([method, target, (await site.send(method, target, as(bob))).status]).toEqual([
          method,
          target,
          404,
        ])
  expect((await site.send('GET', `/files/${encoded}`, as(ann))).text).toBe('abc')
})

it('does not disturb who sends, when somebody else asks', async () => {
  const { site, ann, bob } = await startTokenSite()
  const url = await site.create(6, as(ann))
  const sending = await beginAppend(site, url, ann, 6)
  sending.write('abc')
  for (const ask of Object.values(ways)) expect((await ask(site, url, as(bob))).status).toBe(404)
  sending.write('def')
  expect((await sending.answer).status).toBe(204)
})

it('makes no final of what somebody else owns, and does not say that it is there', async () => {
  const { site, ann, bob, admin } = await startTokenSite()
  const partial = { 'Upload-Concat': 'partial', ...bytesType }
  const part = await site.create(2, as(ann, partial), 'ab')
  const whole = await site.createFinished('abc', as(ann))
  const own = await site.create(2, as(bob, partial), 'cd')
  const final = (token: string, ...parts: string[]) =>
    site.send('POST', '/files', as(token, { 'Upload-Concat': `final;${parts.join(' ')}` }))
  const absent = shown(await final(bob, own, '/files/none'))
  expect(absent.status).toBe(400)
  for (const url of [
    part,
    whole,
    `http://${site.host}${part}`,
    part.replace(/.$/, (c) => `%${c.charCodeAt(0).toString(16)}`),
  ])
    expect(shown(await final(bob, own, url))).toEqual(absent)

  // The same request of somebody else is another one: it is not answered with the final of the first.
  const made = await final(ann, part)
  expect(made.status).toBe(201)
  expect((await final(ann, part)).headers.location).toBe(made.headers.location)
  expect(shown(await final(bob, part))).toMatchObject({ status: 400 })
  const ofAdmin = await final(admin, part)
  expect(ofAdmin.status).toBe(201)
  expect(ofAdmin.headers.location).not.toBe(made.headers.location)
  expect((await site.send('GET', pathOf(made), as(ann))).text).toBe('ab')
})

it('shows all uploads to an admin, also those that nobody owns; and those to nobody else', async () => {
  const { site, ann, bob, admin } = await startTokenSite()
  const ofAnn = await site.createFinished('ann', as(ann))
  const ofBob = await site.createFinished('bob', as(bob))
  const outcome = await site.server.engine.create(
    {
      do: 'create',
      length: 0,
      metadata: undefined,
      isBytes: false,
      hasBody: false,
      contentLength: 0,
      checksum: undefined,
    },
    requestOfNobody(),
  )
  if (outcome.is !== 'created') throw new Error(outcome.is)
  const ofNobody = `/files/${outcome.record.head.id}`
  for (const url of [ofAnn, ofBob, ofNobody])
    expect((await site.send('GET', url, as(admin))).status).toBe(200)
  expect((await site.send('GET', ofNobody, as(ann))).status).toBe(404)
  expect((await site.send('GET', ofBob, as(ann))).status).toBe(404)
  expect((await site.send('DELETE', ofBob, as(admin))).status).toBe(204)
  expect((await site.send('GET', ofBob, as(bob))).status).toBe(404)
})
