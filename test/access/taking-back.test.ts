// A token that is taken back, or ends, while its request runs: the bytes are kept, the upload is not finished by it.
import { writeFile } from 'node:fs/promises'
import { FileStore as TusFileStore } from '@tus/file-store'
import { expect, it } from 'vitest'
import type { Gate } from '../../server/access/gate.ts'
import { unauthorized } from '../../server/access/gate.ts'
import { TidemarkServer } from '../../server/host/tidemark-server.ts'
import { bytesAt, bytesType, startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { as, beginAppend, startTokenSite } from './support.ts'

it('does not let a token finish an upload that was revoked while its bytes came', async () => {
  const { site, file, ann } = await startTokenSite()
  const url = await site.create(6, as(ann))
  const sending = await beginAppend(site, url, ann, 6)
  sending.write('abc')
  await file.revoke(ann)
  sending.write('def')
  const { status, headers, text } = await sending.answer
  expect([status, headers['www-authenticate']]).toEqual([
    401,
    expect.stringContaining('error="invalid_token"'),
  ])
  expect(text).toContain('revoked')
  expect((await site.send('HEAD', url, as(ann))).status).toBe(401)

  const again = await file.add({ owner: 'ann' })
  const offset = Number((await site.send('HEAD', url, as(again))).headers['upload-offset'])
  expect(offset, 'all but the last byte, at which it would be finished').toBe(5)
  expect((await site.append(url, offset, 'f', as(again))).status).toBe(204)
  expect((await site.send('GET', url, as(again))).text).toBe('abcdef')
})

it('keeps nothing of a creation whose token was revoked before its last byte', async () => {
  const { site, file, ann } = await startTokenSite()
  const sending = site.open(
    'POST',
    '/files',
    as(ann, { 'Upload-Length': 3, 'Content-Length': 3, Expect: '100-continue', ...bytesType }),
  )
  await sending.continued
  sending.write('ab')
  await file.revoke(ann)
  sending.write('c')
  expect((await sending.answer).status).toBe(401)
})

it('ends a long body of a revoked token at its last byte', async () => {
  const { site, file, ann } = await startTokenSite()
  const url = await site.create(1000, as(ann))
  const sending = site.open('PATCH', url, as(ann, bytesAt(0, { 'Content-Length': 1000 })))
  const sent = setInterval(() => sending.write('x'), 50)
  try {
    await expect
      .poll(() => site.server.progress(url.slice('/files/'.length)).then((p) => p?.offset), { timeout: 5000 })
      .toBeGreaterThan(0)
    await file.revoke(ann)
    expect((await sending.answer).status).toBe(401)
  } finally {
    clearInterval(sent)
  }
  const again = await file.add({ owner: 'ann' })
  const { headers } = await site.send('HEAD', url, as(again))
  expect(Number(headers['upload-offset'])).toBeGreaterThan(0)
  expect((await sending.answer).headers['upload-offset']).toBe(headers['upload-offset'])
}, 20_000)

it('ends what a token that expires began, by the clock of the gate', async () => {
  let now = 1000
  const identify: Gate['identify'] = () => {
    if (now >= 2000) throw unauthorized('invalid_token', 'over')
    return { owner: 'ann', expiresAt: 2000 }
  }
  const site = await startSite({ gate: { identify }, now: () => now })
  const url = await site.create(3, as('x'))
  const sending = await beginAppend(site, url, 'x', 3)
  now = 2000
  sending.write('abc')
  expect((await sending.answer).status).toBe(401)
  now = 1000
  expect((await site.send('HEAD', url, as('x'))).headers['upload-offset']).toBe('2')
})

it('goes on with the tokens it knows while the file is broken or away, and says so once', async () => {
  const { site, file, ann, bob, events } = await startTokenSite({ lookAgainMs: 0 })
  const knock = async (token: string) =>
    (await site.send('POST', '/files', as(token, { 'Upload-Length': 1 }))).status
  expect(await knock(ann)).toBe(201)
  const { readFile, rm } = await import('node:fs/promises')
  const good = await readFile(file.path, 'utf8')
  for (const broken of [
    '{',
    '[]]',
    'null\n',
    good.replace('"owner"', '"onwer"'),
    `${good}${good}`,
    good.slice(0, -20),
  ]) {
    events.length = 0
    await writeFile(file.path, broken)
    await expect
      .poll(async () => [await knock(ann), events.map(({ is }) => is)])
      .toEqual([201, ['tokens-unreadable']])
    expect(await knock(bob)).toBe(201)
  }
  await rm(file.path)
  await expect.poll(async () => [await knock(ann), events.length]).toEqual([201, 2])
  await writeFile(
    file.path,
    good
      .split('\n')
      .filter((line) => !line.includes('"bob"'))
      .join('\n'),
  )
  await expect.poll(() => knock(bob)).toBe(401)
  expect(await knock(ann)).toBe(201)
}, 30_000)

it('asks a gate of the application, and takes what it throws for what it is', async () => {
  let answer: () => ReturnType<Gate['identify']> = () => ({ owner: 'ann' })
  const site = await startSite({ gate: { identify: () => answer() } })
  const url = await site.create(3)
  expect(await site.shown(url)).toBe('0/3')
  answer = () => ({ owner: 'bob' })
  expect(await site.shown(url)).toBe('404')
  answer = () => {
    throw new Error('the directory is away')
  }
  expect((await site.send('POST', '/files', { 'Upload-Length': 3 })).status).toBe(500)
  expect(await site.shown(url), 'a question is never told that the upload is lost').toBe('423')
})

it('is not put in front of a store that keeps no owners', async () => {
  const datastore = new TusFileStore({ directory: await temporaryFolder() })
  const gate: Gate = { identify: () => ({ owner: 'ann' }) }
  expect(() => new TidemarkServer({ path: '/files', datastore, gate })).toThrow('needs a store of Tidemark')
  expect(() => new TidemarkServer({ path: '/files', datastore })).not.toThrow()
})
