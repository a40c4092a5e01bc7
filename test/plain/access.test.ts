// Hooks that are asked before anything is done are asked at the plain doors, too.

import { expect, it } from 'vitest'
import { Receiver } from '../hooks/receiver.ts'
import { startSite } from '../protocol/exchange.ts'
import { form, formType, part } from './form.ts'

it('asks pre-access for whatever comes by name or in a form', async () => {
  const receiver = await Receiver.start()
  const hooks = { http: { url: receiver.url }, enabled: ['pre-access'] } as const
  const site = await startSite({ plainPath: '/upload', hooks })
  expect((await site.send('PUT', '/upload/a', {}, 'hello')).status).toBe(201)
  receiver.answers = { 'pre-access': { RejectAccess: true } }
  const refused = [
    await site.send('PUT', '/upload/a', {}, 'x'),
    await site.send('PUT', '/upload/b', {}, 'x'),
    await site.send('POST', '/upload', formType, form(part('f', 'x', 'x'))),
    await site.send('GET', '/upload/a'),
    await site.head('/upload/a'),
    await site.send('DELETE', '/upload/a'),
  ]
  expect(refused.map(({ status }) => status)).toEqual([403, 403, 403, 403, 403, 403])
  receiver.answers = {}
  expect((await site.send('GET', '/upload/a')).text).toBe('hello')
})

it('tells tools what a hook says, before the body and behind it; asked again it may agree, and is told once', async () => {
  const receiver = await Receiver.start()
  const enabled = ['pre-create', 'pre-finish', 'post-finish'] as const
  const site = await startSite({ plainPath: '/upload', hooks: { http: { url: receiver.url }, enabled } })
  const HTTPResponse = { StatusCode: 451, Body: 'not here' }
  const refusal = { RejectUpload: true, HTTPResponse }
  receiver.answers = { 'pre-create': refusal }
  const waiting = { 'Content-Length': 5, Expect: '100-continue' }
  const unsent = await site.open('PUT', '/upload/a', waiting).answer
  expect([unsent.status, unsent.text]).toEqual([451, 'not here'])
  const one = form(part('f', 'hello', 'x'))
  const refused = await site.send('POST', '/upload', formType, one)
  expect([refused.status, refused.text]).toEqual([451, expect.stringContaining('not here')])

  receiver.answers = { 'pre-finish': refusal }
  const put = await site.send('PUT', '/upload/a', {}, 'hello')
  expect([put.status, put.text]).toEqual([451, 'not here'])
  expect((await site.send('GET', '/upload/a')).status).toBe(404)
  expect((await site.send('POST', '/upload', formType, one)).status).toBe(451)
  receiver.answers = {}
  const last = { 'Content-Range': 'bytes 4-4/5' }
  expect((await site.head('/upload/a')).headers['upload-offset']).toBe('4')
  expect((await site.send('PUT', '/upload/a', last, 'o')).status).toBe(201)
  expect((await site.send('GET', '/upload/a')).text).toBe('hello')
  expect((await site.send('POST', '/upload', formType, one)).status).toBe(201)
  await receiver.until('post-finish', 2)
  expect(receiver.received.filter(({ type }) => type === 'post-finish')).toHaveLength(2)
})
