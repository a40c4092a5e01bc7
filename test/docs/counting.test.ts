// What docs/counting.md shows is run as it stands there: curl, against a server that people run, with and without sign-in.

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished, vi } from 'vitest'
import { tokenFile } from '../access/support.ts'
import { type Child, startChild, stopChild } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startServer } from '../support/server-process.ts'

const document = await readFile(fileURLToPath(new URL('../../docs/counting.md', import.meta.url)), 'utf8')
const tus = { 'Tus-Resumable': '1.0.0' }

it('one upload, with all the fields that are shown', async () => {
  const { run, create } = await site()
  const ID = await create(4 * 1024 * 1024)
  const [shown] = [...document.matchAll(/^```json\n(.*?)^```$/gms)].map(
    ([, json]) => JSON.parse(json!) as object,
  )
  const answer = JSON.parse(await run('/uploads/$ID\n', { ID })) as object
  expect(Object.keys(answer)).toEqual(Object.keys(shown!))
  expect(answer).toMatchObject({ id: ID, state: 'open', offset: 0, length: 4 * 1024 * 1024, percent: 0 })
})

it('parts that are named, and their sum', async () => {
  const { run, create } = await site()
  const partial = { 'Upload-Concat': 'partial' }
  const [PART_1, PART_2] = [await create(3, 'abc', partial), await create(5, 'd', partial)]
  expect(JSON.parse(await run('id=$PART_1', { PART_1, PART_2 }))).toMatchObject({
    offset: 4,
    length: 8,
    uploads: [{ id: PART_1 }, { id: PART_2 }],
  })
})

it('the list of whoever asks, and what happens to it', async () => {
  const { run, start, create, tokens } = await site({ signIn: true })
  const TOKEN = tokens!.ann
  const id = await create(3, 'ab', {}, TOKEN)
  await create(3, 'abc', {}, TOKEN)
  await create(3, 'a', {}, tokens!.bob)
  const list = async (token: string) => JSON.parse(await run('state=open', { TOKEN: token }))
  expect(await list(TOKEN)).toMatchObject({ uploads: [{ id, name: null }], next: null })
  expect((await list(tokens!.admin)).uploads).toHaveLength(2)
  const stream = start('/uploads/events\n', { TOKEN })
  await vi.waitFor(() => expect(stream.stdout()).toContain('event: snapshot'))
  const created = await create(1, undefined, {}, TOKEN)
  await vi.waitFor(() => expect(stream.stdout()).toMatch(new RegExp(`event: created\ndata: .*${created}`)))
  expect(stream.stdout().match(/"id":"\w+"/g)).toHaveLength(3)
})

it('only to those who may ask, and only of what they may see', async () => {
  const { url, create, tokens } = await site({ signIn: true })
  const { ann, bob, blind } = tokens!
  const id = await create(3, undefined, {}, ann)
  const ask = async (path: string, token?: string) => {
    const answer = await fetch(url + path, { headers: token ? { Authorization: `Bearer ${token}` } : {} })
    await answer.body?.cancel()
    return [answer.status, answer.headers.has('www-authenticate')]
  }
  for (const path of [`/uploads/${id}`, `/uploads/${id}/events`, '/uploads', '/uploads/events']) {
    expect(await ask(path)).toEqual([401, true])
    expect(await ask(path, 'nobody')).toEqual([401, true])
    expect(await ask(path, blind)).toEqual([403, true])
    expect(await ask(path, ann)).toEqual([200, false])
  }
  expect(await ask(`/uploads/${id}`, bob)).toEqual([404, false])
  expect(await ask('/uploads?owner=ann', bob)).toEqual([403, false])
})

it('what happens to one upload', async () => {
  const { start, create, append } = await site()
  const ID = await create(3)
  const stream = start('/uploads/$ID/events', { ID })
  await vi.waitFor(() => expect(stream.stdout()).toContain('event: snapshot'))
  await append(ID, 'abc')
  await vi.waitFor(() => expect(stream.stdout()).toMatch(/event: finished\ndata: .*"percent":100/))
})

/** The one block of the document that holds this, as a command for `sh`. */
function block(holds: string): string {
  const blocks = [...document.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, code]) => code!)
  const found = blocks.filter((code) => code.includes(holds))
  expect(found, `blocks with ${holds}`).toHaveLength(1)
  return found[0]!
}

async function site({ signIn = false } = {}) {
  const tokens = signIn ? await twoTokens() : undefined
  const args = tokens ? ['--auth', 'tokens', '--auth-tokens-file', tokens.path] : []
  const server = await startServer({ dir: await temporaryFolder(), args })
  onTestFinished(async () => void (await server.stop()))
  const start = (holds: string, env: Record<string, string>): Child => {
    const command = block(holds).replaceAll('http://localhost:1080', server.url)
    const child = startChild('sh', ['-c', `exec ${command}`], { env: { PATH: process.env.PATH, ...env } })
    onTestFinished(async () => void (await stopChild(child)))
    return child
  }
  const by = (token: string | undefined): Record<string, string> =>
    token ? { Authorization: `Bearer ${token}` } : {}
  const bytes = (offset: number): Record<string, string> => ({
    'Content-Type': 'application/offset+octet-stream',
    ...(offset >= 0 && { 'Upload-Offset': String(offset) }),
  })
  return {
    tokens,
    url: server.url,
    start,
    async run(holds: string, env: Record<string, string>): Promise<string> {
      const child = start(holds, env)
      expect(await child.exited).toEqual({ code: 0, signal: null })
      return child.stdout()
    },
    async create(length: number, body?: string, headers: Record<string, string> = {}, token?: string) {
      const answer = await fetch(`${server.url}/files/`, {
        method: 'POST',
        headers: {
          ...tus,
          ...by(token),
          ...headers,
          'Upload-Length': String(length),
          ...(body && bytes(-1)),
        },
        body: body ?? null,
      })
      expect(answer.status).toBe(201)
      return answer.headers.get('location')!.split('/').at(-1)!
    },
    async append(id: string, body: string) {
      const url = `${server.url}/files/${id}`
      const answer = await fetch(url, { method: 'PATCH', headers: { ...tus, ...bytes(0) }, body })
      expect(answer.status).toBe(204)
    },
  }
}

async function twoTokens() {
  const file = await tokenFile()
  const scopes = ['ask', 'admin'] as const
  return {
    path: file.path,
    ann: await file.add({ owner: 'ann' }),
    bob: await file.add({ owner: 'bob' }),
    admin: await file.add({ owner: 'root', scopes }),
    blind: await file.add({ owner: 'ann', scopes: ['create', 'append'] }),
  }
}
