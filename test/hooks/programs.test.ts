// hooks-dir: programs that are named like the events.

import { existsSync } from 'node:fs'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import type { HookSettings } from '../../server/hooks/hooks.ts'
import { startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'

async function siteWith(programs: Record<string, string>, more: Partial<HookSettings> = {}) {
  const folder = await temporaryFolder()
  const directory = join(folder, 'hooks')
  await mkdir(directory)
  for (const [name, text] of Object.entries(programs)) {
    await writeFile(join(directory, name), `#!/bin/sh\n${text}\n`)
    await chmod(join(directory, name), 0o755)
  }
  const enabled = ['pre-create', 'post-create', 'post-finish', 'pre-terminate', 'post-terminate'] as const
  const site = await startSite({ hooks: { directory, enabled, retries: 0, ...more } })
  return { site, folder, read: (name: string) => readFile(join(folder, name), 'utf8') }
}

const create = { 'Upload-Length': 3 }

it('a program reads what happens and answers, and those that are not there are not missed', async () => {
  const { site } = await siteWith({
    'pre-create': `cat | grep -q '"Size":3' && echo '{"ChangeFileInfo":{"ID":"three"}}'`,
  })
  const answer = await site.send('POST', '/files', create)
  expect(answer).toMatchObject({ status: 201 })
  expect(answer.headers.location).toMatch(/\/files\/three$/)
})

it('a program without an answer has nothing against it', async () => {
  const { site } = await siteWith({ 'pre-create': 'exit 0' })
  expect((await site.send('POST', '/files', create)).status).toBe(201)
})

it('programs find id, size and offset in their environment, and none of our settings', async () => {
  vi.stubEnv('TIDEMARK_HOOKS_HTTP_SECRET', 'abc')
  vi.stubEnv('SOME_VARIABLE', 'seen')
  const { site, read } = await siteWith({
    'post-finish': `echo "$TUS_ID $TUS_SIZE $TUS_OFFSET $SOME_VARIABLE $TIDEMARK_HOOKS_HTTP_SECRET." > ../told.new; mv ../told.new ../told`,
  })
  vi.unstubAllEnvs()
  const url = await site.createFinished('abc')
  await vi.waitFor(async () => expect(await read('told')).toBe(`${url.slice('/files/'.length)} 3 3 seen .\n`))
})

it('a program that fails refuses, and what it says is reported', async () => {
  const { site } = await siteWith({ 'pre-create': 'echo "the disk is full" >&2; exit 13' })
  expect((await site.send('POST', '/files', create)).status).toBe(500)
  expect(site.reports).toContainEqual({ is: 'hook-said', hook: 'pre-create', text: 'the disk is full\n' })
  expect(site.reports).toContainEqual(
    expect.objectContaining({
      is: 'hook-failed',
      error: expect.objectContaining({ message: 'a hook ended with 13' }),
    }),
  )
})

it('a program that can not be run refuses', async () => {
  const { site, folder } = await siteWith({ 'pre-create': 'exit 0' })
  await chmod(join(folder, 'hooks', 'pre-create'), 0o644)
  expect((await site.send('POST', '/files', create)).status).toBe(500)
})

it('a program that does not end is ended with all that it started', async () => {
  const { site, read } = await siteWith(
    { 'pre-create': 'sleep 3600 & echo $! > ../child; wait' },
    { timeoutMs: 300 },
  )
  expect((await site.send('POST', '/files', create)).status).toBe(500)
  const pid = Number(await read('child'))
  await vi.waitFor(async () => {
    const state = existsSync(`/proc/${pid}/stat`) ? await readFile(`/proc/${pid}/stat`, 'utf8') : 'gone Z'
    expect(state).toMatch(/ Z/)
  })
})

it('a program that talks without end is ended', async () => {
  const { site } = await siteWith({ 'pre-create': 'yes' })
  expect((await site.send('POST', '/files', create)).status).toBe(500)
})

it('a program that refuses a termination keeps the upload', async () => {
  const { site } = await siteWith({
    'pre-terminate': `echo '{"RejectTermination":true,"HTTPResponse":{"StatusCode":403,"Body":"no"}}'`,
  })
  const url = await site.create(3)
  expect(await site.send('DELETE', url)).toMatchObject({ status: 403, text: 'no' })
})
