// Tokens and claims may bring quotas of their own, lower or higher than those of the server.

import { once } from 'node:events'
import { request } from 'node:http'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { parseLimits } from '../../server/access/identity.ts'
import { loadConfig } from '../../server/config.ts'
import { quotaPlanOf } from '../../server/entry-options.ts'
import { LmdbLedger } from '../../stores/local/lmdb-ledger.ts'
import { pathOf } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startServer } from '../support/server-process.ts'
import { as, signedWith, startTokenSite, tokenFile } from './support.ts'

const patience = { timeout: 60_000 }
const secret = 'a secret of more than 32 bytes, for tests'

async function serve(args: string[], env: Record<string, string> = {}) {
  const server = await startServer({ dir: join(await temporaryFolder(), 'uploads'), args, env })
  onTestFinished(async () => void (await server.stop()))
  const create = async (token: string, length: number) => {
    const headers = {
      Authorization: `Bearer ${token}`,
      'Tus-Resumable': '1.0.0',
      'Upload-Length': `${length}`,
    }
    const { status } = await fetch(`${server.url}/files/`, { method: 'POST', headers })
    return status
  }
  return { server, create }
}

it('are those of a token in place of the usual ones, on every worker', patience, async () => {
  const file = await tokenFile()
  const usual = await file.add({ owner: 'ann' })
  const low = await file.add({ owner: 'bob', openUploads: 1 })
  const high = await file.add({ owner: 'eve', openUploads: 4 })
  const none = await file.add({ owner: 'zoe', openUploads: 0 })
  const { create } = await serve(['--auth', 'tokens', '--quota-open-uploads', '2', '--workers', '2'], {
    TIDEMARK_AUTH_TOKENS_FILE: file.path,
  })
  const many = async (token: string) => {
    const statuses: number[] = []
    for (let n = 0; n < 6; n++) statuses.push(await create(token, 3))
    return statuses.filter((status) => status === 201).length
  }
  expect([await many(usual), await many(low), await many(high), await many(none)]).toEqual([2, 1, 4, 6])
})

it('hold where the server has none, and are those of claims too', patience, async () => {
  const { create, server } = await serve(['--auth', 'jwt'], { TIDEMARK_JWT_SECRET: secret })
  const token = await signedWith(secret, { tidemark: { totalBytes: '10B', creationsPerMinute: 3 } })
  expect([await create(token, 11), await create(token, 6), await create(token, 6)]).toEqual([413, 201, 429])
  expect([await create(token, 2), await create(token, 2), await create(token, 1)]).toEqual([201, 201, 429])
  const free = await signedWith(secret, { sub: 'bob' })
  for (let n = 0; n < 5; n++) expect(await create(free, 1_000_000)).toBe(201)
  const wrong = await signedWith(secret, { tidemark: { openUpload: 1 } })
  expect(await create(wrong, 1), 'a limit that is misspelt lifts none').toBe(401)
  const headers = { Authorization: `Bearer ${token}` }
  const who = (await (await fetch(`${server.url}/access/identity`, { headers })).json()) as object
  expect(who).toMatchObject({ quotas: { totalBytes: 10, creationsPerMinute: 3 } })
})

it('hold at every door, and for requests that run', patience, async () => {
  const file = await tokenFile()
  const token = await file.add({ owner: 'ann', runningRequests: 1, unfinishedBytes: 10 })
  const { server } = await serve(['--auth', 'tokens'], { TIDEMARK_AUTH_TOKENS_FILE: file.path })
  const signed = { Authorization: `Bearer ${token}` }
  const put = async (name: string, body: string) => {
    const options = { method: 'PUT', headers: signed, body }
    return (await fetch(`${server.url}/upload/${name}`, options)).status
  }
  const post = async (body: string) => {
    const form = new FormData()
    form.append('f', new Blob([body]), 'x')
    return (await fetch(`${server.url}/upload`, { method: 'POST', headers: signed, body: form })).status
  }
  expect([await put('a', '0123456789'), await put('b', '0123456789x')]).toEqual([201, 413])
  expect([await post('0123456789'), await post('0123456789x')]).toEqual([201, 413])
  const running = request(`${server.url}/upload/c`, {
    method: 'PUT',
    headers: { ...signed, 'Content-Length': 2, Expect: '100-continue' },
  })
  running.flushHeaders()
  await once(running, 'continue')
  expect(await put('d', 'x')).toBe(429)
  running.end('ab')
  await once(running, 'response')
  expect(await put('d', 'x')).toBe(201)
})

it('of bytes are not got round by parts whose length is said later', async () => {
  const ledger = new LmdbLedger({ directory: await temporaryFolder() })
  const quotas = { ledger, owner: {}, address: {}, perIdentity: true }
  const { site, file, ann } = await startTokenSite({ quotas })
  const low = await file.add({ owner: 'ann', totalBytes: 10 })
  const partial = { 'Upload-Concat': 'partial' }
  const part = pathOf(await site.send('POST', '/files', as(low, { ...partial, 'Upload-Defer-Length': 1 })))
  const final = (token: string) =>
    site.send('POST', '/files', as(token, { 'Upload-Concat': `final;${part}` }))
  expect((await final(low)).status).toBe(413)
  expect((await site.append(part, 0, '0123456', as(low, { 'Upload-Length': 7 }))).status).toBe(204)
  expect((await final(low)).status, 'parts and final are more than ten').toBe(429)
  expect((await final(ann)).status).toBe(201)
})

it('are written like the settings', () => {
  const given = {
    openUploads: 3,
    creationsPerMinute: '7',
    unfinishedBytes: '10MiB',
    totalBytes: 5,
    runningRequests: 0,
  }
  expect(parseLimits(given).limits.quotas).toEqual({
    ...{
      openUploads: 3,
      creationsPerMinute: 7,
      unfinishedBytes: 10_485_760,
      totalBytes: 5,
      runningRequests: 0,
    },
  })
  for (const wrong of [
    { openUploads: -1 },
    { totalBytes: 'much' },
    { runningRequests: 1.5 },
    { openUploads: null },
  ])
    expect(() => parseLimits(wrong)).toThrow(/has a (openUploads|totalBytes|runningRequests) that/)
})

it('make that everybody is counted where people sign in, and nobody elsewhere', () => {
  expect(quotaPlanOf(loadConfig([], {}))).toBeUndefined()
  const args = ['--auth', 'jwt', '--jwt-secret', secret]
  expect(quotaPlanOf(loadConfig(args, {}))).toMatchObject({ perIdentity: true })
})
