// Receivers that are broken, slow, huge or hostile: a blocking hook fails closed, and nothing of it gets through.

import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { Webhook } from 'standardwebhooks'
import { describe, expect, it, onTestFinished } from 'vitest'
import { merged, parseAnswer } from '../../server/hooks/answer.ts'
import { HookError } from '../../server/hooks/hook-types.ts'
import type { HookSettings } from '../../server/hooks/hooks.ts'
import { startSite } from '../protocol/exchange.ts'
import { answerJson, Receiver } from './receiver.ts'

async function hookedSite(more: Partial<HookSettings> = {}, http: Partial<HookSettings['http']> = {}) {
  const receiver = await Receiver.start()
  const hooks = { http: { url: receiver.url, ...http }, backoffMs: 1, ...more }
  return { receiver, site: await startSite({ hooks }) }
}

type Site = Awaited<ReturnType<typeof hookedSite>>['site']

const create = (site: Site) => site.send('POST', '/files', { 'Upload-Length': 3 })

async function expectRefused(site: Site): Promise<void> {
  const answer = await create(site)
  expect(answer).toMatchObject({
    status: 500,
    text: expect.stringMatching(/^hook-failed: the backend of this server/),
  })
  expect(await readdir(site.folder)).toEqual([])
  expect(site.reports).toContainEqual(expect.objectContaining({ is: 'hook-failed', hook: 'pre-create' }))
}

/** Ways to answer that nobody can use, and are not worth another try. */
const unusable: Record<string, (response: ServerResponse) => void> = {
  'no JSON': (res) => void res.writeHead(200, { 'Content-Type': 'application/json' }).end('{"RejectUpload":'),
  'no object': (res) => answerJson(res, []),
  'nothing said of its type': (res) => void res.writeHead(200).end('{}'),
  'another type': (res) => void res.writeHead(200, { 'Content-Type': 'text/html' }).end('{}'),
  'a redirection': (res) => void res.writeHead(307, { Location: '/elsewhere' }).end(),
  'a status of its own failing': (res) => answerJson(res, {}, 404),
  'more than is read': (res) => answerJson(res, { HTTPResponse: { Body: 'x'.repeat(6000) } }),
  'more and more': (res) => {
    res.writeHead(200, { 'Content-Type': 'application/json' })
    const timer = setInterval(() => res.write('x'.repeat(4096)), 1)
    res.on('close', () => clearInterval(timer))
  },
  'a flag that is a word': (res) => answerJson(res, { RejectUpload: 'false' }),
  'metadata that is a number': (res) => answerJson(res, { ChangeFileInfo: { MetaData: { a: 1 } } }),
  'metadata under a key that can not be': (res) =>
    answerJson(res, { ChangeFileInfo: { MetaData: { 'a b': '' } } }),
  'metadata under a key that is two': (res) =>
    answerJson(res, { ChangeFileInfo: { MetaData: { 'a,b': 'x' } } }),
  'metadata under no key': (res) => answerJson(res, { ChangeFileInfo: { MetaData: { '': 'x', a: 'y' } } }),
  'a header that splits the answer': (res) =>
    answerJson(res, { HTTPResponse: { Header: { 'X-A': 'b\r\nSet-Cookie: c=d' } } }),
  'a header with a bad name': (res) => answerJson(res, { HTTPResponse: { Header: { 'X A': 'b' } } }),
  'a header that frames the answer': (res) =>
    answerJson(res, { HTTPResponse: { Header: { 'Transfer-Encoding': 'chunked' } } }),
  'another offset': (res) => answerJson(res, { HTTPResponse: { Header: { 'Upload-Offset': '3' } } }),
  'a status that is none': (res) => answerJson(res, { HTTPResponse: { StatusCode: 101 } }),
}

describe('a creation is refused with 500 when the hook answers', () => {
  it.each(Object.entries(unusable))('%s', async (_, answer) => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-create': answer }
    await expectRefused(site)
    expect(receiver.of('pre-create')).toHaveLength(1)
  })

  const ids = [
    '..',
    '../a',
    'a/../b',
    '/a',
    'a/',
    'a//b',
    '.a',
    '.tidemark/outbox/x',
    'a/.b',
    'a\\b',
    'a b',
    'a\0b',
  ]
  it.each([...ids, 'ä', 'a?b', 'a#b', 'a\r\nb', 'x'.repeat(201), 'x/'.repeat(600)])(
    'the ID %j',
    async (ID) => {
      const { receiver, site } = await hookedSite()
      receiver.answers = { 'pre-create': { ChangeFileInfo: { ID } } }
      await expectRefused(site)
    },
  )

  const paths = ['..', '../a', 'a/../../b', '/etc/passwd', 'a/', '.tidemark/a', 'a/.hidden', 'a\\b', 'a\0b']
  it.each(paths)('the path %j', async (Path) => {
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-create': { ChangeFileInfo: { Storage: { Path } } } }
    await expectRefused(site)
  })
})

describe('a hook that does not answer', () => {
  it('is asked as often as was said, and then the creation is refused', async () => {
    const { receiver, site } = await hookedSite({ retries: 2 })
    receiver.answers = { 'pre-create': (res) => answerJson(res, {}, 503) }
    await expectRefused(site)
    expect(receiver.of('pre-create')).toHaveLength(3)
    const ids = receiver.received.map(({ headers }) => headers['webhook-id'])
    expect(new Set(ids).size).toBe(1)
  })

  it('may answer the next time', async () => {
    const { receiver, site } = await hookedSite()
    receiver.answers = {
      'pre-create': (res) => {
        receiver.answers = {}
        res.destroy()
      },
    }
    expect((await create(site)).status).toBe(201)
    expect(receiver.of('pre-create')).toHaveLength(2)
  })

  it('is not waited for longer than was said', async () => {
    const { receiver, site } = await hookedSite({ timeoutMs: 50, retries: 1 })
    receiver.answers = { 'pre-create': () => undefined }
    await expectRefused(site)
    expect(receiver.of('pre-create')).toHaveLength(2)
  })

  it('is not waited for when it answers byte by byte, without end', async () => {
    const { receiver, site } = await hookedSite({ timeoutMs: 100, retries: 0 })
    receiver.answers = {
      'pre-create': (res) => {
        res.writeHead(200, { 'Content-Type': 'application/json' })
        const timer = setInterval(() => res.write(' '), 10)
        res.on('close', () => clearInterval(timer))
      },
    }
    await expectRefused(site)
  })

  it('is not there at all', async () => {
    const { receiver, site } = await hookedSite({ retries: 1 })
    await receiver.down()
    await expectRefused(site)
  })

  it('speaks no HTTP', async () => {
    const server = createServer((socket) => void socket.end('hello\r\n\r\n')).listen(0, '127.0.0.1')
    onTestFinished(() => void server.close())
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    await expectRefused(await startSite({ hooks: { http: { url }, retries: 0 } }))
  })

  it('does not keep a server from ending', async () => {
    const { receiver, site } = await hookedSite({ timeoutMs: 3_600_000 })
    receiver.answers = { 'pre-create': () => undefined }
    const answer = create(site)
    await receiver.until('pre-create')
    await site.server.close()
    expect((await answer).status).toBe(500)
  })
})

describe('what is sent', () => {
  const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
  const newSecret = `whsec_${Buffer.alloc(32, 8).toString('base64')}`

  it('is signed by every secret, for hooks that are asked and for those that are told', async () => {
    const { receiver, site } = await hookedSite({}, { secrets: [secret, newSecret] })
    await site.createFinished('abc')
    await receiver.until('post-finish')
    await receiver.until('post-receive')
    expect(receiver.types.toSorted()).toEqual(['post-create', 'post-finish', 'post-receive', 'pre-create'])
    for (const { body, headers, payload } of receiver.received)
      for (const each of [secret, newSecret])
        expect(new Webhook(each).verify(body, headers as Record<string, string>)).toEqual(payload)
    const [first] = receiver.received
    const other = `whsec_${Buffer.alloc(32, 9).toString('base64')}`
    expect(() => new Webhook(other).verify(first!.body, first!.headers as never)).toThrow()
    expect(() => new Webhook(secret).verify(`${first!.body} `, first!.headers as never)).toThrow()
  })

  it('has the headers that were to be handed on, and the name and password of the URL', async () => {
    const receiver = await Receiver.start()
    const url = receiver.url.replace('http://', 'http://us%65r:p%40ss@')
    const http = { url, forwardHeaders: ['Authorization', 'X-Tenant'] }
    const site = await startSite({ hooks: { http, enabled: ['pre-create'] } })
    await site.send('POST', '/files', { 'Upload-Length': 3, 'X-Tenant': 'blue', 'X-Other': 'red' })
    const [{ headers }] = receiver.received as [(typeof receiver.received)[0]]
    expect(headers).toMatchObject({ 'x-tenant': 'blue', authorization: `Basic ${btoa('user:p@ss')}` })
    expect(headers['x-other']).toBeUndefined()
  })

  it('goes nowhere else than it was to', async () => {
    const elsewhere = await Receiver.start()
    const { receiver, site } = await hookedSite()
    receiver.answers = { 'pre-create': (res) => void res.writeHead(308, { Location: elsewhere.url }).end() }
    await expectRefused(site)
    expect(elsewhere.received).toEqual([])
  })
})

it('what comes later in an answer wins, header by header', () => {
  const first = parseAnswer(
    '{"HTTPResponse":{"StatusCode":200,"Body":"a","Header":{"A":"1","B":"1"}}}',
  ).response
  const second = parseAnswer('{"HTTPResponse":{"Body":"b","Header":{"B":"2"}},"RejectUpload":null}').response
  expect(merged(first, second)).toEqual({ status: 200, body: 'b', headers: { A: '1', B: '2' } })
})

it('an answer can not reach what objects have by nature', () => {
  const { change } = parseAnswer('{"ChangeFileInfo":{"MetaData":{"__proto__":"a","constructor":"b"}}}')
  expect(change.metadata).toBe('__proto__ YQ==,constructor Yg==')
  expect(() => parseAnswer('{"HTTPResponse":7}')).toThrow(HookError)
})
