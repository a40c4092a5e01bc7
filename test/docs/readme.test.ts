// What the README and docs/library.md show as code is run as it stands there, as the program of a user who has
// installed the package: each block is a module of its own, in a folder of its own.

import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { type Child, startChild, stopChild, untilReady } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { freePort } from '../support/free-port.ts'
import { randomBytes, randomFile, sha256 } from '../support/random-file.ts'
import { startServer } from '../support/server-process.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { startUpload } from '../support/tus-client.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const MiB = 1024 * 1024
const content = randomBytes('readme', 3 * MiB)

/** Inside of the package, so that `tidemark` is the package itself, by its own `exports`. */
let modules: string

beforeAll(async () => {
  await mkdir(join(root, '.cache'), { recursive: true })
  modules = await mkdtemp(join(root, '.cache/documented-'))
})
afterAll(() => rm(modules, { recursive: true, force: true }))

it('a Fastify with uploads in it, in a dozen lines', async () => {
  const { child, url, folder } = await run(await block('README.md', 'await app.register(tidemark'))
  const uploaded = await upload(url)
  const id = uploaded.split('/').at(-1)!
  await vi.waitFor(() => expect(child.stdout()).toBe(`film.mp4 is at ${join(folder, 'uploads', id)}\n`))
})

it('a Fastify with sign-in and a hook', async () => {
  const code = await block('docs/library.md', 'onUploadCreate')
  const { child, url } = await run(code, { UPLOAD_TOKEN: 'secret' })
  const create = (headers: Record<string, string>) =>
    fetch(url, { method: 'POST', headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '3', ...headers } })
  expect((await create({})).status).toBe(401)
  const refused = await create({ Authorization: 'Bearer secret' })
  expect([refused.status, await refused.text()]).toEqual([400, 'Upload-Metadata has no filename\n'])
  await upload(url, { Authorization: 'Bearer secret' })
  expect(await stopChild(child)).toEqual({ code: 0, signal: null })
})

it('a receiver that is told until it says that it heard', async () => {
  const heard: { key: unknown; body: unknown }[] = []
  const receiver = createServer(async (request, response) => {
    const body: unknown = JSON.parse(await text(request))
    heard.push({ key: request.headers['idempotency-key'], body })
    response.writeHead(heard.length === 1 ? 503 : 204).end()
  })
  receiver.listen(0, '127.0.0.1')
  await once(receiver, 'listening')
  onTestFinished(() => void receiver.close())
  const { port } = receiver.address() as AddressInfo
  const code = await block('docs/library.md', 'onUploadEvent(')
  const { url } = await run(code, { TELL_URL: `http://127.0.0.1:${port}/` })
  const id = (await upload(url)).split('/').at(-1)
  await vi.waitFor(() => expect(heard).toHaveLength(2), { timeout: 20_000 })
  expect(heard[0]).toEqual({ key: expect.any(String), body: { upload: id, bytes: content.length } })
  expect(heard[1]).toEqual(heard[0])
})

it('a server that is used as @tus/server is', async () => {
  const code = await block('docs/library.md', 'new TidemarkServer(')
  const { child, url } = await run(code, { REDIS_URL: inject('redisUrl') })
  const id = (await upload(url)).split('/').at(-1)
  await vi.waitFor(() => expect(child.stdout()).toBe(`${id} has all of its ${content.length} bytes\n`))
  expect(await stopChild(child)).toEqual({ code: 0, signal: null })
})

it('the parts in a plain @tus/server: of two processes one is killed, and the other goes on', async () => {
  const code = await block('docs/library.md', "from '@tus/server'")
  const folder = await temporaryFolder()
  const env = { REDIS_URL: inject('redisUrl') }
  const [first, second] = [await run(code, env, folder), await run(code, env, folder)]
  const wire = await startTcpProxy(first.port)
  onTestFinished(() => wire.close())
  wire.bytesPerSecond = 8 * MiB
  const large = randomBytes('two processes', 16 * MiB)
  let isKilled = false
  const { done, exchanges } = startUpload(large, {
    endpoint: `${wire.url}/files`,
    onProgress: (sent) => {
      if (isKilled || sent < 6 * MiB) return
      isKilled = true
      wire.target = second.port
      first.child.kill('SIGKILL')
    },
  })
  await done
  expect(isKilled).toBe(true)
  expect(exchanges.filter(({ method }) => method === 'POST')).toHaveLength(1)
  expect(exchanges.at(-1)).toMatchObject({ method: 'PATCH', status: 204, answeredOffset: 16 * MiB })
  expect(exchanges.at(-1)!.offset).toBeGreaterThan(0)
  const id = exchanges.at(-1)!.url.split('/').at(-1)!
  expect(await sha256(await readFile(join(folder, 'uploads', id)))).toBe(await sha256(large))
  expect(await stopChild(second.child)).toEqual({ code: 0, signal: null })
})

it('tus-js-client, with a file', async () => {
  const server = await startServer({ dir: await temporaryFolder() })
  onTestFinished(async () => void (await server.stop()))
  const folder = await temporaryFolder()
  const file = await randomFile(join(folder, 'film.mp4'), 'film', 3 * MiB)
  const code = await block('README.md', "from 'tus-js-client'")
  const client = await start(code.replace('http://localhost:1080', server.url), folder, {})
  expect(await client.exited).toEqual({ code: 0, signal: null })
  const download = await fetch(client.stdout().trim())
  expect(download.headers.get('content-type')).toBe('video/mp4')
  expect(await sha256(Buffer.from(await download.arrayBuffer()))).toBe(file.sha256)
})

describe('all of them', () => {
  it('are TypeScript without an error, against the types of the package', { timeout: 120_000 }, async () => {
    const folder = await mkdtemp(join(modules, 'types-'))
    const blocks = [...(await blocksOf('README.md')), ...(await blocksOf('docs/library.md'))]
    expect(blocks.length).toBeGreaterThanOrEqual(5)
    await Promise.all(blocks.map((code, index) => writeFile(join(folder, `${index}.ts`), code)))
    const compilerOptions = {
      target: 'es2023',
      module: 'nodenext',
      strict: true,
      noEmit: true,
      types: ['node'],
    }
    // The types of other packages are not ours to judge.
    const tsconfig = { compilerOptions: { ...compilerOptions, skipLibCheck: true }, include: ['*.ts'] }
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(tsconfig))
    const tsc = startChild(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder])
    expect([await tsc.exited, tsc.output()]).toEqual([{ code: 0, signal: null }, ''])
  })
})

async function blocksOf(document: string): Promise<string[]> {
  const source = await readFile(join(root, document), 'utf8')
  return [...source.matchAll(/^```(?:ts|js)\n(.*?)^```$/gms)].map(([, code]) => code!)
}

async function block(document: string, holds: string): Promise<string> {
  const found = (await blocksOf(document)).filter((code) => code.includes(holds))
  expect(found, `blocks of ${document} with ${holds}`).toHaveLength(1)
  return found[0]!
}

async function run(code: string, env: Record<string, string> = {}, ownFolder?: string) {
  const folder = ownFolder ?? (await temporaryFolder())
  const port = await freePort()
  const child = await start(code, folder, { ...env, PORT: String(port) })
  const url = `http://127.0.0.1:${port}/files`
  const isReady = () => fetch(url, { method: 'OPTIONS' }).then(isOk, () => false)
  await untilReady(child, isReady, { name: 'The documented program', withinMs: 20_000 })
  return { child, url, folder, port }
}

async function start(code: string, folder: string, env: Record<string, string>): Promise<Child> {
  const file = join(await mkdtemp(join(modules, 'block-')), 'index.mjs')
  await writeFile(file, code)
  const child = startChild(process.execPath, [file], { cwd: folder, env: { PATH: process.env.PATH, ...env } })
  onTestFinished(async () => void (await stopChild(child)))
  return child
}

async function upload(endpoint: string, headers: Record<string, string> = {}): Promise<string> {
  const metadata = { filename: 'film.mp4' }
  const url = await startUpload(content, { endpoint, headers, metadata, chunkSize: MiB }).done
  const download = await fetch(url, { headers })
  expect(await sha256(Buffer.from(await download.arrayBuffer()))).toBe(await sha256(content))
  return url
}

const isOk = (response: Response) => response.ok
