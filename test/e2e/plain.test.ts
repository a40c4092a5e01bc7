// The plain doors with the tools that people have: curl, HTTPie, wget and a browser without a script. Clients and servers
// are killed in the middle, and what was kept is not sent, or not written, again.

import { randomUUID } from 'node:crypto'
import { readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, inject, it, onTestFinished, vi } from 'vitest'
import { programPath } from '../../scripts/test-programs.mjs'
import { type Child, startChild } from '../support/child.ts'
import { launchChromium } from '../support/chromium.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomFile, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'

const MiB = 1024 * 1024
const size = 48 * MiB
const patience = { timeout: 90_000 }

interface FileWords {
  id: string
  url: string
  size: number
  sha256: string
}

it('takes a form from HTTPie', patience, async () => {
  const { server, folder } = await setUp()
  const file = await randomFile(join(folder, 'title, größe.png'), 'title', 3 * MiB)
  const url = `:${server.port}/upload`
  const said = await ended(run('httpie', ['--ignore-stdin', '-f', 'POST', url, `upload@${file.path}`]))
  const [stored] = filesIn(said)
  expect(stored).toMatchObject({
    field: 'upload',
    name: 'title, größe.png',
    type: 'image/png',
    ...hashAndSize(file, 3),
  })
  const download = join(folder, 'again.png')
  await ended(run('httpie', ['--ignore-stdin', '--download', '--output', download, 'GET', stored!.url]))
  expect(await sha256(await readFile(download))).toBe(file.sha256)
})

it('goes on with a form of curl that was killed', patience, async () => {
  const { server, wire, file } = await setUpFile()
  wire.bytesPerSecond = 20 * MiB
  const first = run('curl', ['-sS', '-F', `upload=@${file.path}`, `${wire.url}/upload`])
  await untilSent(wire, size / 2)
  first.kill('SIGKILL')
  await first.exited
  await untilEnded(server, 'POST', 1)
  const [kept] = await idsOf(server)

  wire.bytesPerSecond = 0
  const [stored] = filesIn(
    await ended(run('curl', ['-sS', '-F', `upload=@${file.path}`, `${wire.url}/upload`])),
  )

  expect(stored).toMatchObject({ id: kept, ...hashAndSize(file, 48) })
  expect(await idsOf(server)).toEqual([kept])
  expect(await hashAt(stored!.url)).toBe(file.sha256)
})

it('goes on with a form when the server was killed', patience, async () => {
  const { server, wire, file } = await setUpFile()
  wire.bytesPerSecond = 20 * MiB
  const first = run('curl', ['-sS', '-F', `upload=@${file.path}`, `${wire.url}/upload`])
  await untilSent(wire, size / 2)
  await server.kill('SIGKILL')
  await first.exited
  await server.restart()
  const [kept] = await idsOf(server)
  wire.bytesPerSecond = 0
  const [stored] = filesIn(
    await ended(run('curl', ['-sS', '-F', `upload=@${file.path}`, `${wire.url}/upload`])),
  )
  expect(stored).toMatchObject({ id: kept, ...hashAndSize(file, 48) })
  expect(await hashAt(stored!.url)).toBe(file.sha256)
})

it('sends only the rest by curl -C of what was put before curl was killed', patience, async () => {
  const { server, wire, file, folder } = await setUpFile()
  const url = `${wire.url}/upload/film.bin`
  wire.bytesPerSecond = 20 * MiB
  const first = run('curl', ['-sS', '-T', file.path, url])
  await untilSent(wire, size / 2)
  first.kill('SIGKILL')
  await first.exited
  await untilEnded(server, 'PUT', 1)
  wire.bytesPerSecond = 0

  const offset = await offsetBy(url)
  expect(offset).toBeGreaterThan(size / 4)
  const sentBefore = wire.sentBytes
  const said = await ended(run('curl', ['-sS', '-C', String(offset), '-T', file.path, url]))

  expect(JSON.parse(said)).toMatchObject({ name: 'film.bin', size, offset: size })
  expect(wire.sentBytes - sentBefore).toBeLessThan(size - offset + MiB)
  expect(await offsetBy(url)).toBe(size)
  expect(await hashAt(url)).toBe(file.sha256)
  // A script that asks and goes on once more does no harm.
  const again = run('curl', ['-sS', '-f', '-C', String(size), '-T', file.path, url])
  await again.exited
  expect(again.output()).toContain('File already completely uploaded')
  expect(await idsOf(server)).toHaveLength(1)

  const part = join(folder, 'part')
  await writeFile(part, await readFile(file.path))
  await truncate(part, 5 * MiB)
  const downloadedBefore = server.logs().length
  await ended(run('wget', ['-q', '-c', '-O', part, url]))
  expect(await sha256(await readFile(part))).toBe(file.sha256)
  await vi.waitFor(() => expect(server.logs().length).toBeGreaterThan(downloadedBefore))
  expect(server.logs().at(-1)).toMatchObject({ method: 'GET', status: 206 })
})

it('goes on with a PUT when the server was killed, and keeps serving the one before', patience, async () => {
  const { server, wire, file, folder } = await setUpFile()
  const url = `${wire.url}/upload/film.bin`
  const old = await randomFile(join(folder, 'old'), 'old', MiB)
  await ended(run('wget', ['-q', '-O-', '--method=PUT', `--body-file=${old.path}`, url]))
  expect(await hashAt(url)).toBe(old.sha256)
  wire.bytesPerSecond = 20 * MiB
  const first = run('curl', ['-sS', '-T', file.path, url])
  await untilSent(wire, size / 2)
  await server.kill('SIGKILL')
  await first.exited
  await server.restart()
  wire.bytesPerSecond = 0

  expect(await hashAt(url)).toBe(old.sha256)
  const offset = await offsetBy(url)
  expect(offset).toBeGreaterThan(0)
  await ended(run('curl', ['-sS', '-f', '-C', String(offset), '-T', file.path, url]))
  expect(await hashAt(url)).toBe(file.sha256)
})

it('goes on at another server of the same Redis', patience, async () => {
  const dir = await temporaryFolder()
  const args = ['--redis-key-prefix', `${randomUUID()}:`, '--lease', '1500ms']
  const both = await Promise.all([1, 2].map(() => startServer({ dir, redisUrl: inject('redisUrl'), args })))
  for (const server of both) onTestFinished(async () => void (await server.stop()))
  const [first, second] = both as [ServerProcess, ServerProcess]
  const folder = await temporaryFolder()
  const file = await randomFile(join(folder, 'film.bin'), 'two servers', size)
  const wire = await startTcpProxy(first.port)
  onTestFinished(() => wire.close())
  wire.bytesPerSecond = 20 * MiB

  const puts = run('curl', ['-sS', '-T', file.path, `${wire.url}/upload/film.bin`])
  await untilSent(wire, size / 2)
  // Still being received by the first: whoever asks the second takes it over.
  const offset = await offsetBy(`${second.url}/upload/film.bin`)
  expect(offset).toBeGreaterThan(0)
  await puts.exited
  await ended(
    run('curl', ['-sS', '-f', '-C', String(offset), '-T', file.path, `${second.url}/upload/film.bin`]),
  )
  expect(await hashAt(`${first.url}/upload/film.bin`)).toBe(file.sha256)

  const sent = wire.sentBytes
  const form = run('curl', ['-sS', '-F', `upload=@${file.path}`, `${wire.url}/upload`])
  await untilSent(wire, sent + size / 2)
  await first.kill('SIGKILL')
  await form.exited
  const open = await openIds(dir)
  expect(open).toHaveLength(1)
  const [stored] = filesIn(
    await ended(run('curl', ['-sS', '-F', `upload=@${file.path}`, `${second.url}/upload`])),
  )
  expect(stored).toMatchObject({ id: open[0], ...hashAndSize(file, 48) })
  expect(await hashAt(stored!.url)).toBe(file.sha256)
})

it('takes a form of a browser, and once more after its connection broke', patience, async () => {
  const { server, wire, file } = await setUpFile()
  const browser = await launchChromium({ profileDir: await temporaryFolder() })
  onTestFinished(() => browser.close())
  const page = await browser.context.newPage()
  const submit = async () => {
    await page.goto(`${wire.url}/upload`)
    await page.setInputFiles('input[type=file]', file.path)
    await page.click('button', { noWaitAfter: true })
  }
  await page.goto(`${wire.url}/upload`)
  wire.bytesPerSecond = 20 * MiB
  await submit()
  await untilSent(wire, size / 2)
  wire.cut()
  await vi.waitFor(async () => expect(await idsOf(server)).toHaveLength(1), { timeout: 20_000 })
  await untilEnded(server, 'POST', 1)
  const [kept] = await idsOf(server)
  wire.bytesPerSecond = 0
  await submit()
  await page.waitForSelector('code', { timeout: 30_000 })
  expect(await page.textContent('h1')).toBe('Uploaded')
  expect(await page.textContent('code')).toBe(`sha256 ${file.sha256}`)
  expect(await page.getAttribute('a', 'href')).toContain(kept)
})

it('keeps what came when it is told to end, and says so', patience, async () => {
  const { server, wire, file } = await setUpFile()
  const url = `${wire.url}/upload/film.bin`
  wire.bytesPerSecond = 10 * MiB
  const put = run('curl', ['-sS', '-w', '%{http_code}', '-T', file.path, url])
  await untilSent(wire, size / 4)
  server.signal('SIGTERM')
  await put.exited
  expect(put.output()).toContain('503')
  await server.exited
  await server.restart()
  wire.bytesPerSecond = 0
  const offset = await offsetBy(url)
  await ended(run('curl', ['-sS', '-f', '-C', String(offset), '-T', file.path, url]))
  expect(await hashAt(url)).toBe(file.sha256)
})

async function setUp() {
  const server = await startServer({ dir: await temporaryFolder() })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startTcpProxy(server.port)
  onTestFinished(() => wire.close())
  return { server, wire, folder: await temporaryFolder() }
}

async function setUpFile() {
  const house = await setUp()
  return { ...house, file: await randomFile(join(house.folder, 'film.bin'), 'film', size) }
}

function run(program: 'curl' | 'httpie' | 'wget', args: string[]): Child {
  return startChild(programPath(program), args, {
    env: { PATH: process.env.PATH, HOME: '/', LC_ALL: 'C.UTF-8' },
  })
}

/** What it printed, when it ended well. */
async function ended(child: Child): Promise<string> {
  const { code } = await child.exited
  if (code !== 0) throw new Error(`ended with ${code}: ${child.output()}`)
  return child.stdout()
}

const filesIn = (text: string) => (JSON.parse(text) as { files: FileWords[] }).files

const hashAndSize = (file: { sha256: string }, mebibytes: number) => ({
  sha256: file.sha256,
  size: mebibytes * MiB,
})

async function hashAt(url: string): Promise<string> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  return sha256(Buffer.from(await response.arrayBuffer()))
}

/** As docs/plain-uploads.md asks for it. */
async function offsetBy(url: string): Promise<number> {
  const head = await ended(run('curl', ['-sS', '-f', '-I', url]))
  return Number(/^upload-offset: (\d+)/im.exec(head)?.[1])
}

const untilSent = (wire: TcpProxy, bytes: number) =>
  vi.waitFor(() => expect(wire.sentBytes).toBeGreaterThan(bytes), { timeout: 20_000 })

const untilEnded = (server: ServerProcess, method: string, count: number) =>
  vi.waitFor(() => expect(server.logs().filter((line) => line.method === method)).toHaveLength(count), {
    timeout: 20_000,
  })

/** The uploads in the folder of a server: their data are the files with names that ids have. */
async function idsOf(server: ServerProcess): Promise<string[]> {
  // A server listens a moment before its log says so.
  const folder = await vi.waitFor(() => {
    const started = server.logs().find(({ uploadDir }) => uploadDir !== undefined)
    expect(started).toBeDefined()
    return String(started!.uploadDir)
  })
  return (await readdir(folder)).filter((name) => /^[0-9a-f]{32}$/.test(name))
}

/** The uploads that are not whole yet. */
async function openIds(dir: string): Promise<string[]> {
  const ids: string[] = []
  for (const name of await readdir(dir)) {
    if (!/^[0-9a-f]{32}$/.test(name)) continue
    if ((await readFile(join(dir, name))).length < size) ids.push(name)
  }
  return ids
}
