// What receivers that were written for tusd are sent: the same fields with the same kinds of values, for every type.

import { join } from 'node:path'
import { expect, it } from 'vitest'
import { type HookType, hookTypes } from '../../server/hooks/hook-types.ts'
import { canonicalName, withoutSecrets } from '../../server/hooks/payload.ts'
import { bytesType, pathOf, startSite } from '../protocol/exchange.ts'
import { Receiver } from './receiver.ts'

const progress = { progressIntervalMs: 1 }

async function hookedSite(enabled: readonly HookType[] = hookTypes.filter((type) => type !== 'pre-access')) {
  const receiver = await Receiver.start()
  const site = await startSite({ hooks: { http: { url: receiver.url }, enabled, ...progress } })
  return { receiver, site }
}

const port = expect.stringMatching(/^127\.0\.0\.1:\d+$/)
const plain = { IsPartial: false, IsFinal: false, PartialUploads: null }

it('the life of an upload', async () => {
  const { receiver, site } = await hookedSite()
  const metadata = { 'Upload-Metadata': 'filename YS5wbmc=,empty' }
  const url = await site.create(6, metadata)
  const id = url.slice('/files/'.length)
  const patch = site.open('PATCH', url, { 'Upload-Offset': 0, ...bytesType, 'Content-Length': 6 })
  patch.write('abc')
  await receiver.until('post-receive')
  patch.write('def')
  expect((await patch.answer).status).toBe(204)
  await receiver.until('post-finish')
  expect((await site.send('DELETE', url)).status).toBe(204)
  await receiver.until('post-terminate')
  patch.cut()

  const MetaData = { filename: 'a.png', empty: '' }
  const Storage = {
    Type: 'filestore',
    Path: join(site.folder, id),
    InfoPath: join(site.folder, `.${id}.0.mark`),
  }
  const planned = { ID: '', Size: 6, SizeIsDeferred: false, Offset: 0, MetaData, ...plain, Storage: null }
  const there = { ...planned, ID: id, Storage }
  const common = { Host: [site.host], 'Tus-Resumable': ['1.0.0'] }
  const post = {
    Method: 'POST',
    URI: '/files',
    RemoteAddr: port,
    Header: { ...common, 'Upload-Length': ['6'], 'Upload-Metadata': [metadata['Upload-Metadata']] },
  }
  const bytes = {
    'Content-Type': [bytesType['Content-Type']],
    'Content-Length': ['6'],
    'Upload-Offset': ['0'],
  }
  const patched = { Method: 'PATCH', URI: url, RemoteAddr: port, Header: { ...common, ...bytes } }
  const deleted = { Method: 'DELETE', URI: url, RemoteAddr: port, Header: common }
  const whole = { ...there, Offset: 6 }
  const expected = [
    { Type: 'pre-create', Event: { Upload: planned, HTTPRequest: post } },
    { Type: 'post-create', Event: { Upload: there, HTTPRequest: post } },
    { Type: 'post-receive', Event: { Upload: { ...there, Offset: 3 }, HTTPRequest: patched } },
    { Type: 'pre-finish', Event: { Upload: whole, HTTPRequest: patched } },
    { Type: 'post-finish', Event: { Upload: whole, HTTPRequest: patched } },
    { Type: 'pre-terminate', Event: { Upload: whole, HTTPRequest: deleted } },
    { Type: 'post-terminate', Event: { Upload: whole, HTTPRequest: deleted } },
  ]
  for (const payload of expected) expect(receiver.of(payload.Type as never)[0]?.payload).toEqual(payload)
  const atTheEnd = { Type: 'post-receive', Event: { Upload: whole, HTTPRequest: patched } }
  expect(receiver.of('post-receive')[1]?.payload).toEqual(atTheEnd)
  expect(receiver.received).toHaveLength(expected.length + 1)
})

it('a length that comes later', async () => {
  const { receiver, site } = await hookedSite(['pre-create', 'post-create'])
  await site.create('deferred')
  await receiver.until('post-create')
  const deferred = { Size: 0, SizeIsDeferred: true, Offset: 0, MetaData: {}, ...plain }
  expect(receiver.received.map(({ payload }) => payload.Event.Upload)).toMatchObject([deferred, deferred])
})

it('parts, and the upload that is made of them', async () => {
  const { receiver, site } = await hookedSite()
  const parts: string[] = []
  for (const body of ['abc', 'def'])
    parts.push(await site.createFinished(body, { 'Upload-Concat': 'partial' }))
  const final = await site.send('POST', '/files', { 'Upload-Concat': `final;${parts.join(' ')}` })
  expect(final.status).toBe(201)
  await receiver.until('post-finish', 3)
  const ids = parts.map((url) => url.slice('/files/'.length))
  const partial = { Size: 3, IsPartial: true, IsFinal: false, PartialUploads: null }
  const whole = { Size: 6, IsPartial: false, IsFinal: true, PartialUploads: ids }
  for (const type of ['pre-create', 'post-create', 'pre-finish', 'post-finish'] as const)
    expect(receiver.of(type).map(({ payload }) => payload.Event.Upload)).toMatchObject([
      partial,
      partial,
      whole,
    ])
  expect(receiver.of('post-finish')[2]?.payload.Event.Upload.ID).toBe(pathOf(final).slice('/files/'.length))
})

it('what a request wants, before anything else is asked', async () => {
  const { receiver, site } = await hookedSite([...hookTypes])
  const url = await site.createFinished('abc')
  await site.head(url)
  await site.send('GET', url)
  await site.append(url, 3, '')
  await site.send('DELETE', url)
  await site.head(url)
  const asked = receiver.of('pre-access').map(({ payload: { Event } }) => Event)
  const id = url.slice('/files/'.length)
  const there = { ID: id, Size: 3, Offset: 3 }
  expect(asked).toMatchObject([
    { Access: { Action: 'create' }, Upload: { ID: '', Size: 3, Storage: null } },
    { Access: { Action: 'ask' }, Upload: there },
    { Access: { Action: 'read' }, Upload: there },
    { Access: { Action: 'append' }, Upload: there },
    { Access: { Action: 'terminate' }, Upload: there },
    { Access: { Action: 'ask' }, Upload: { ID: id, Size: 0, Offset: 0, Storage: null } },
  ])
  expect(receiver.types[0]).toBe('pre-access')
})

it('headers are named as Go names them', () => {
  const names = ['upload-length', 'X-REQUEST-ID', 'te', 'www-authenticate', 'x-http-method-override']
  expect(names.map(canonicalName)).toEqual([
    'Upload-Length',
    'X-Request-Id',
    'Te',
    'Www-Authenticate',
    'X-Http-Method-Override',
  ])
})

it('blocking hooks see all headers, and what is kept until it is delivered has no secrets', async () => {
  const { receiver, site } = await hookedSite(['pre-create', 'post-create'])
  const secret = { Authorization: 'Bearer abc', Cookie: 'a=b', 'X-Api-Key': 'abc', 'X-Tenant': 'blue' }
  await site.send('POST', '/files?access_token=abc&page=2', { 'Upload-Length': 3, ...secret })
  await receiver.until('post-create')
  const [pre, post] = receiver.received.map(({ payload }) => payload.Event.HTTPRequest)
  expect(pre).toMatchObject({
    URI: '/files?access_token=abc&page=2',
    Header: { Authorization: ['Bearer abc'], Cookie: ['a=b'] },
  })
  expect(post?.URI).toBe('/files?access_token=&page=2')
  expect(Object.keys(post!.Header).sort()).toEqual(['Host', 'Tus-Resumable', 'Upload-Length', 'X-Tenant'])
})

it('names that open doors are known in many spellings', () => {
  const headers = Object.fromEntries(
    ['authorization', 'proxy-authorization', 'cookie', 'x-auth-token', 'x-csrf-token', 'x-amz-signature'].map(
      (name) => [name, 'abc'],
    ),
  )
  const summary = { method: 'GET', uri: '/a?sig=abc&%74oken=abc', remoteAddress: '', headers }
  expect(withoutSecrets(summary)).toEqual({ ...summary, headers: {}, uri: '/a?sig=&%74oken=' })
})
