// Links for downloads: the one thing in a URL that lets somebody in.
import { readdir } from 'node:fs/promises'
import Fastify from 'fastify'
import { expect, it, onTestFinished } from 'vitest'
import { accessRoutes } from '../../server/access/routes.ts'
import { TicketGate, ticketKey } from '../../server/access/tickets.ts'
import { TokenGate } from '../../server/access/token-gate.ts'
import { bytesAt, startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { as, tokenFile } from './support.ts'

async function startTicketSite() {
  const file = await tokenFile()
  const ann = await file.add({ owner: 'ann' })
  const bob = await file.add({ owner: 'bob' })
  const admin = await file.add({ owner: 'root', scopes: ['read', 'admin'] })
  const writer = await file.add({ owner: 'ann', scopes: ['create', 'append'] })
  let nowMs = Date.now()
  const gate = new TicketGate({
    gate: await TokenGate.open({ path: file.path }),
    key: await ticketKey(await temporaryFolder()),
    path: '/files/',
    now: () => nowMs,
  })
  const site = await startSite({ gate })
  const app = Fastify()
  await app.register(accessRoutes, { gate })
  onTestFinished(() => app.close())
  const ask = (token: string | undefined, url: string) =>
    app.inject({
      method: 'POST',
      url: `/access/download?id=${url.slice('/files/'.length)}`,
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    })
  const linkTo = async (token: string, url: string) =>
    `${url}?${(await ask(token, url)).json<{ query: string }>().query}`
  const pass = (ms: number) => {
    nowMs += ms
  }
  return { site, app, ann, bob, admin, writer, ask, linkTo, pass }
}

it('gives who signed in a link that downloads one upload for a minute', async () => {
  const { site, ann, linkTo, pass } = await startTicketSite()
  const url = await site.createFinished('abc', as(ann))
  const link = await linkTo(ann, url)
  expect((await site.send('GET', link)).text).toBe('abc')
  expect((await site.send('GET', link, { Range: 'bytes=1-' })).text).toBe('bc')
  pass(59_000)
  expect((await site.send('GET', link)).status).toBe(200)
  pass(1000)
  expect((await site.send('GET', link)).status).toBe(401)
})

it('gives none to who may not download, and none for what is no upload', async () => {
  const { site, ann, writer, ask } = await startTicketSite()
  const url = await site.createFinished('abc', as(ann))
  expect((await ask(undefined, url)).statusCode).toBe(401)
  expect((await ask(writer, url)).statusCode).toBe(403)
  expect((await ask(ann, '')).statusCode).toBe(404)
})

it('shows by a link what its owner may see, and no more', async () => {
  const { site, ann, bob, admin, linkTo } = await startTicketSite()
  const url = await site.createFinished('abc', as(ann))
  expect((await site.send('GET', await linkTo(bob, url))).status).toBe(404)
  expect((await site.send('GET', await linkTo(bob, '/files/none'))).status).toBe(404)
  expect((await site.send('GET', await linkTo(admin, url))).text).toBe('abc')
})

it('is good for nothing else: no other upload, no other method, nothing beside it', async () => {
  const { site, ann, linkTo } = await startTicketSite()
  const url = await site.createFinished('abc', as(ann))
  const open = await site.create(3, as(ann))
  const other = await site.createFinished('xyz', as(ann))
  const query = (await linkTo(ann, url)).split('?')[1]!
  const [signature, body] = query.slice('ticket='.length).split('.') as [string, string]
  for (const target of [
    `${other}?${query}`,
    `/files?${query}`,
    `${url}?${query}&${query}`,
    `${url}?${query}&a=1`,
  ])
    expect([target, (await site.send('GET', target)).status]).toEqual([target, 401])
  for (const method of ['HEAD', 'DELETE', 'PATCH', 'POST'])
    expect([method, (await site.send(method, `${url}?${query}`)).status]).toEqual([method, 401])
  const override = { 'X-HTTP-Method-Override': 'DELETE' }
  expect((await site.send('GET', `${url}?${query}`, override)).status).toBe(401)
  const back = { 'X-HTTP-Method-Override': 'GET' }
  expect((await site.send('POST', `${url}?${query}`, back)).status).toBe(401)
  expect((await site.send('GET', `${url}?${query}`, { Authorization: 'Bearer x' })).status).toBe(401)
  expect((await site.send('PATCH', `${open}?${query}`, bytesAt(0), 'abc')).status).toBe(401)
  const forged = Buffer.from(JSON.stringify({ o: 'ann', e: 9e15, a: true })).toString('base64url')
  for (const ticket of [
    '',
    '.',
    'x',
    signature,
    `${signature}.`,
    `.${body}`,
    `${signature}.${forged}`,
    `${signature}.${body}x`,
    `${signature.slice(1)}.${body}`,
    `x${signature}.${body}`,
  ])
    expect([ticket, (await site.send('GET', `${url}?ticket=${ticket}`)).status]).toEqual([ticket, 401])
  expect((await site.send('GET', url, as(ann))).text).toBe('abc')
})

it('is signed with one key by all servers that share a folder', async () => {
  const folder = await temporaryFolder()
  const keys = await Promise.all(Array.from({ length: 8 }, () => ticketKey(folder)))
  for (const key of keys) expect(key.equals(keys[0]!)).toBe(true)
  expect(await readdir(folder)).toEqual(['ticket.key'])
})
