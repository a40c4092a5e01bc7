// Who may look: lists, streams, metrics and links, on a server as people run it, whichever way an upload came.

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { readEvents } from '../support/event-reader.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startServer } from '../support/server-process.ts'
import { tokenFile } from './support.ts'

const patience = { timeout: 60_000 }

async function serve() {
  const file = await tokenFile()
  const ann = await file.add({ owner: 'ann' })
  const bob = await file.add({ owner: 'bob' })
  const admin = await file.add({ owner: 'root', scopes: ['admin', 'ask'] })
  const server = await startServer({
    dir: join(await temporaryFolder(), 'uploads'),
    args: ['--auth', 'tokens', '--digest', 'always', '--metrics-path', '/metrics'],
    env: { TIDEMARK_AUTH_TOKENS_FILE: file.path },
  })
  onTestFinished(async () => void (await server.stop()))
  const send = (
    method: string,
    path: string,
    token?: string,
    more: object = {},
    body?: string | FormData,
  ) => {
    const headers = { ...(token !== undefined && { Authorization: `Bearer ${token}` }), ...more }
    return fetch(`${server.url}${path}`, { method, headers, body: body ?? null })
  }
  const create = async (token: string, body: string, more: object = {}) => {
    const bytes = body === '' ? {} : { 'Content-Type': 'application/offset+octet-stream' }
    const headers = { 'Tus-Resumable': '1.0.0', 'Upload-Length': `${body.length}`, ...bytes, ...more }
    const answer = await send('POST', '/files/', token, headers, body)
    return new URL(answer.headers.get('location')!).pathname
  }
  return { server, file, ann, bob, admin, send, create }
}

it(
  'tells an owner, and nobody else, of uploads that were made in one request, instantly, by PUT and in a form',
  patience,
  async () => {
    const { server, ann, bob, send, create } = await serve()
    const stream = (token: string) =>
      readEvents(`${server.url}/uploads/events`, { Authorization: `Bearer ${token}` })
    const [hers, his] = [await stream(ann), await stream(bob)]
    for (const { until, close } of [hers, his]) {
      await until(({ kind }) => kind === 'snapshot')
      onTestFinished(close)
    }
    const whole = await create(ann, 'hello')
    const digest = createHash('sha256').update('hello').digest('base64')
    const instant = await create(ann, 'hello', { 'Repr-Digest': `sha-256=:${digest}:` })
    const put = new URL((await send('PUT', '/upload/a', ann, {}, 'hello')).headers.get('location')!).pathname
    const form = new FormData()
    form.append('f', new Blob(['hello']), 'x')
    const posted = new URL((await send('POST', '/upload', ann, {}, form)).headers.get('location')!).pathname
    for (const path of [whole, instant, put, posted]) {
      const id = path.split('/').at(-1)
      const event = await hers.until(({ kind, data }) => kind === 'finished' && data.id === id)
      expect(event.data).toMatchObject({ state: 'finished', offset: 5, length: 5 })
      expect((await send('GET', `/uploads/${id}`, bob)).status).toBe(404)
      expect((await send('GET', `/uploads/${id}/events`, bob)).status).toBe(404)
    }
    const list = (await (await send('GET', '/uploads', ann)).json()) as { uploads: unknown[] }
    expect(list.uploads).toHaveLength(4)
    expect(await (await send('GET', '/uploads', bob)).json()).toMatchObject({ uploads: [] })
    expect((await send('GET', '/uploads?owner=ann', bob)).status).toBe(403)
    await create(bob, 'his own')
    await his.until(({ kind }) => kind === 'finished')
    expect(JSON.stringify(his.events)).not.toContain(whole.split('/').at(-1))
  },
)

it('gives nobody the bytes of another owner because they know a digest', patience, async () => {
  const { ann, bob, admin, send, create } = await serve()
  const url = await create(ann, 'secret')
  const digest = (await send('HEAD', url, ann)).headers.get('repr-digest')
  expect(digest).toMatch(/^sha-256=/)
  for (const token of [bob, admin])
    expect((await send('GET', '/uploads', token)).headers.get('repr-digest')).toBeNull()
  expect((await send('HEAD', url, bob)).headers.get('repr-digest')).toBeNull()
  const headers = { 'Tus-Resumable': '1.0.0', 'Upload-Length': '6', 'Repr-Digest': digest! }
  const his = await send('POST', '/files/', bob, headers)
  expect([his.status, his.headers.get('upload-offset')]).toEqual([201, null])
  const hers = await send('POST', '/files/', ann, headers)
  expect([hers.status, hers.headers.get('upload-offset')]).toEqual([201, '6'])
})

it('shows metrics and the lists of all to admins alone', patience, async () => {
  const { ann, admin, send } = await serve()
  for (const method of ['GET', 'HEAD']) {
    const statuses: number[] = []
    for (const token of [undefined, ann, admin]) statuses.push((await send(method, '/metrics', token)).status)
    expect([method, ...statuses]).toEqual([method, 401, 403, 200])
  }
  const override = { 'X-HTTP-Method-Override': 'OPTIONS' }
  for (const path of ['/metrics', '/uploads', '/uploads/events', '/upload/a', '/access/identity'])
    expect([path, (await send('GET', path, undefined, override)).status]).toEqual([path, 401])
})

it('opens by a link for a download that one upload, and no other door', patience, async () => {
  const { ann, bob, send, create } = await serve()
  const url = await create(ann, 'hello')
  const id = url.split('/').at(-1)!
  const other = await create(ann, 'other')
  const linkOf = async (token: string) => {
    const answer = await send('POST', `/access/download?id=${id}`, token)
    return ((await answer.json()) as { query: string }).query
  }
  const link = await linkOf(ann)
  expect(await (await send('GET', `${url}?${link}`)).text()).toBe('hello')
  await send('PUT', `/upload/${id}`, ann, {}, 'hello')
  for (const [method, path] of [
    ['HEAD', url],
    ['DELETE', url],
    ['GET', other],
    ['GET', `/upload/${id}`],
    ['GET', `/uploads/${id}`],
    ['GET', `/uploads/${id}/events`],
    ['GET', '/uploads'],
    ['GET', '/metrics'],
    ['GET', '/access/identity'],
    ['POST', '/access/download'],
  ] as const)
    expect([method, path, (await send(method, `${path}?${link}`)).status]).toEqual([method, path, 401])
  const override = { 'X-HTTP-Method-Override': 'DELETE' }
  expect((await send('GET', `${url}?${link}`, undefined, override)).status).toBe(401)
  expect((await send('GET', `${url}?${await linkOf(bob)}`)).status).toBe(404)
})

it('ends a stream whose token is taken back', patience, async () => {
  const { server, file, ann } = await serve()
  const reader = await readEvents(`${server.url}/uploads/events`, { Authorization: `Bearer ${ann}` })
  await reader.until(({ kind }) => kind === 'snapshot')
  await file.revoke(ann)
  await reader.ended
})
