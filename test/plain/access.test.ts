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
