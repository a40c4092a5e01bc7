// The script of the documentation, as it stands there, against a server that people run: interrupted in the middle,
// it goes on where it stopped.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, readFile, symlink, truncate, utimes, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished, vi } from 'vitest'
import { programPath } from '../../scripts/test-programs.mjs'
import { temporaryFolder } from '../support/folder.ts'
import { randomFile, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'

const script = fileURLToPath(new URL('../../docs/curl-upload.sh', import.meta.url))
const MiB = 1024 * 1024
const size = 48 * MiB
/** What may be under way in the buffers of a system when a connection ends: sent, and not yet received. */
const onTheWire = 8 * MiB

it('uploads a file, whatever its name, and prints its URL', async () => {
  const { wire, folder } = await setUp()
  for (const [name, length] of [
    ['ein Wal, "groß".bin', 3 * MiB + 1],
    ['empty', 0],
  ] as const) {
    const file = await randomFile(join(folder, name), name, length)
    const { stdout, code } = await run(file.path, wire).ended
    expect(code).toBe(0)
    expect(await hashOf(stdout.trim())).toBe(file.sha256)
    const head = await fetch(stdout.trim(), { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
    expect(head.headers.get('upload-metadata')).toBe(`filename ${Buffer.from(name).toString('base64')}`)
    await expect(access(`${file.path}.tidemark-url`)).rejects.toThrow('ENOENT')
  }
})

it('goes on from the last kept byte when it was killed and is run again', async () => {
  const { wire, server, folder } = await setUp()
  const file = await randomFile(join(folder, 'file'), 'killed script', size)
  wire.bytesPerSecond = 20 * MiB
  const first = run(file.path, wire)
  await vi.waitFor(() => expect(wire.sentBytes).toBeGreaterThan(size / 2), { timeout: 20_000 })
  first.kill()
  await first.ended
  await vi.waitFor(() => expect(patches(server)).toHaveLength(1), { timeout: 20_000 })
  const sentBefore = wire.sentBytes

  wire.bytesPerSecond = 0
  const second = await run(file.path, wire).ended

  expect(second.code).toBe(0)
  const from = Number(/sending from byte (\d+)/.exec(second.stderr)?.[1])
  expect(from).toBeGreaterThan(size / 2 - onTheWire)
  expect(wire.sentBytes - sentBefore).toBeLessThan(size - from + MiB)
  expect(wire.sentBytes).toBeLessThan(size + onTheWire)
  expect(await hashOf(second.stdout.trim())).toBe(file.sha256)
})

it('goes on by itself when the server was killed and started again', async () => {
  const { wire, server, folder } = await setUp()
  const file = await randomFile(join(folder, 'file'), 'killed server', size)
  wire.bytesPerSecond = 20 * MiB
  const upload = run(file.path, wire)
  await vi.waitFor(() => expect(wire.sentBytes).toBeGreaterThan(size / 2), { timeout: 20_000 })
  await server.kill('SIGKILL')
  wire.bytesPerSecond = 0
  await server.restart()

  const { stdout, stderr, code } = await upload.ended

  expect([code, stderr]).toEqual([0, expect.stringContaining('got no further')])
  // A checkpoint is at most 8 MiB or a second old; the rest of what was sent is sent again.
  const from = Number(/sending from byte (\d+) of \d+\n$/.exec(stderr)?.[1])
  expect(from).toBeGreaterThan(0)
  expect(wire.sentBytes).toBeLessThan(2 * size - from)
  expect(await hashOf(stdout.trim())).toBe(file.sha256)
})

it('goes on when the script and the server were both killed', async () => {
  const { wire, server, folder } = await setUp()
  const file = await randomFile(join(folder, 'file'), 'killed both', size)
  wire.bytesPerSecond = 20 * MiB
  const first = run(file.path, wire)
  await vi.waitFor(() => expect(wire.sentBytes).toBeGreaterThan(size / 2), { timeout: 20_000 })
  await server.kill('SIGKILL')
  first.kill()
  await first.ended
  await server.restart()
  wire.bytesPerSecond = 0

  const { stdout, stderr, code } = await run(file.path, wire).ended

  expect(code).toBe(0)
  expect(Number(/sending from byte (\d+)/.exec(stderr)?.[1])).toBeGreaterThan(0)
  expect(await hashOf(stdout.trim())).toBe(file.sha256)
})

it('begins anew when the file was changed, or the upload is gone', async () => {
  const { wire, folder, server } = await setUp()
  const file = await randomFile(join(folder, 'file'), 'changed', 2 * MiB)
  const urlFile = `${file.path}.tidemark-url`
  const gone = `${server.url}/files/${'0'.repeat(32)}`

  await writeFile(urlFile, `${gone}\n`)
  const anew = await run(file.path, wire).ended
  expect(anew.code).toBe(0)
  expect(anew.stdout).not.toContain(gone)

  await writeFile(urlFile, anew.stdout)
  await truncate(file.path, MiB)
  await utimes(file.path, new Date(), new Date(Date.now() + 60_000))
  const changed = await run(file.path, wire).ended
  expect(changed.code).toBe(0)
  expect(changed.stdout).not.toBe(anew.stdout)
  expect(await hashOf(changed.stdout.trim())).toBe(await sha256(await readFile(file.path)))
})

it('ends with the words of the server when it is refused', async () => {
  const { wire, folder } = await setUp(['--max-size', '1000'])
  const file = await randomFile(join(folder, 'file'), 'large', 2000)
  const { code, stderr, stdout } = await run(file.path, wire).ended
  expect([code, stdout]).toEqual([1, ''])
  expect(stderr).toContain(
    'refused with status 413: too-large: this is more than the largest upload that is accepted here, 1000 bytes',
  )
})

async function setUp(args: string[] = []) {
  const server = await startServer({ dir: await temporaryFolder(), args })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startTcpProxy(server.port)
  onTestFinished(() => wire.close())
  return { server, wire, folder: await temporaryFolder() }
}

/** Runs the script in a process group of its own, so that its curl can be killed with it. */
function run(file: string, wire: TcpProxy) {
  let child: ChildProcess | undefined
  const ended = (async () => {
    const env = { ...process.env, HOME: '/', PATH: await pathWithCurl() }
    child = spawn('sh', [script, file, `${wire.url}/files/`], { env, detached: true })
    const killAtExit = () => kill('SIGKILL')
    process.once('exit', killAtExit)
    let stdout = ''
    let stderr = ''
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    const [code] = (await once(child, 'close')) as [number | null]
    process.off('exit', killAtExit)
    return { code, stdout, stderr }
  })()
  const kill = (signal: NodeJS.Signals) => void (child?.pid && process.kill(-child.pid, signal))
  return { ended, kill: () => kill('SIGKILL') }
}

/** The curl that the tests were told to use, under its usual name. */
async function pathWithCurl(): Promise<string> {
  const folder = await temporaryFolder()
  await symlink(programPath('curl'), join(folder, 'curl'))
  return `${folder}${delimiter}${process.env.PATH}`
}

async function hashOf(url: string): Promise<string> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  return sha256(Buffer.from(await response.arrayBuffer()))
}

const patches = (server: ServerProcess) => server.logs().filter(({ method }) => method === 'PATCH')
