// The plain doors inside somebody else's Fastify, beside its own routes and hooks.

import type { AddressInfo } from 'node:net'
import fastify from 'fastify'
import { expect, it, onTestFinished } from 'vitest'
import { tidemark } from '../../server/plugin.ts'
import { temporaryFolder } from '../support/folder.ts'
import { form, formType, hashOf, part } from './form.ts'

async function start(plainPath?: string) {
  const app = fastify()
  app.addHook('onRequest', async ({ headers }, reply) => {
    if (headers.authorization === undefined) await reply.code(401).send('who are you?')
  })
  app.put('/upload/own', async () => 'a route of the app')
  const directory = await temporaryFolder()
  await app.register(tidemark, {
    directory,
    durability: 'none',
    ...(plainPath !== undefined && { plainPath }),
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  onTestFinished(() => app.close())
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const send = (method: string, path: string, body?: Uint8Array<ArrayBuffer> | string, headers = {}) =>
    fetch(`${url}${path}`, {
      method,
      headers: { Authorization: 'somebody', ...headers },
      ...(body !== undefined && { body }),
    })
  return { url, send }
}

it('takes forms and files, behind the hooks of the app', async () => {
  const { url, send } = await start('/upload')
  expect((await fetch(`${url}/upload/a`, { method: 'PUT', body: 'x' })).status).toBe(401)
  expect((await send('PUT', '/upload/a', 'hello', { 'Content-Type': 'application/json' })).status).toBe(201)
  expect(await (await send('GET', '/upload/a')).text()).toBe('hello')
  const answer = await send('POST', '/upload', new Uint8Array(form(part('f', 'hello', 'b'))), formType)
  expect([answer.status, await answer.json()]).toEqual([
    201,
    { files: [expect.objectContaining({ name: 'b', sha256: hashOf('hello') })] },
  ])
})

it('takes none where nobody wants it', async () => {
  const { send } = await start()
  expect((await send('PUT', '/upload/a', 'hello', { 'Content-Type': 'text/plain' })).status).toBe(404)
  expect(await (await send('PUT', '/upload/own', 'x', { 'Content-Type': 'text/plain' })).text()).toBe(
    'a route of the app',
  )
})
