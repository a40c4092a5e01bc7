// The tus client that Debian has for Python, against the built server: whole, with checksums, killed and started again, and through a
// death of the server.

import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { programPath } from '../../scripts/test-programs.mjs'
import { type Child, startChild, stopChild } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomFile, sha256 } from '../support/random-file.ts'
import { startServer } from '../support/server-process.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'

const MiB = 1024 * 1024
const sizeBytes = 48 * MiB
const script = fileURLToPath(new URL('./tuspy-upload.py', import.meta.url))

it('sends a file in one request, with metadata in Unicode', async () => {
  const { run, file } = await setUp()
  const url = urlOf(await run(1024 * MiB))
  const head = await fetch(url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
  const metadata = head.headers.get('upload-metadata')
  expect(metadata).toBe(`filename ${base64('mär chen.txt')},filetype ${base64('text/plain')},empty`)
  await expectContent(url, file.sha256)
})

it('sends a checksum with every request, and each is accepted', async () => {
  const { run, file, server } = await setUp()
  const url = urlOf(await run(8 * MiB, 'checksum'))
  await expectContent(url, file.sha256)
  const statuses = () => server.logs().flatMap(({ method, status }) => (method === 'PATCH' ? [status] : []))
  // A line is written when its response is closed, a moment after the client has it.
  await expect.poll(statuses).toEqual(Array(6).fill(204))
})

it('is killed in the middle of a request, and goes on from what had arrived', async () => {
  const { start, run, file, wire } = await setUp()
  wire.bytesPerSecond = 40 * MiB
  const first = start(16 * MiB)
  await expect.poll(() => wire.sentBytes, { timeout: 20_000 }).toBeGreaterThan(24 * MiB)
  first.kill('SIGKILL')
  await first.exited
  const before = wire.sentBytes
  wire.bytesPerSecond = 0
  const output = await run(16 * MiB)
  const offset = Number(/begins at (\d+)/.exec(output)![1])
  expect(offset).toBeGreaterThan(16 * MiB)
  expect(wire.sentBytes - before).toBeLessThan(sizeBytes - 16 * MiB)
  await expectContent(urlOf(output), file.sha256)
})

it('goes on when the server was killed and is there again', async () => {
  const { start, file, wire, server } = await setUp()
  wire.bytesPerSecond = 40 * MiB
  const client = start(8 * MiB)
  await expect.poll(() => wire.sentBytes, { timeout: 20_000 }).toBeGreaterThan(20 * MiB)
  await server.kill('SIGKILL')
  await server.restart()
  expect((await client.exited).code, client.output()).toBe(0)
  await expectContent(urlOf(client.stdout()), file.sha256)
})

async function setUp() {
  const folder = await temporaryFolder()
  const file = await randomFile(join(folder, 'file'), 'tuspy', sizeBytes)
  const server = await startServer({ dir: join(folder, 'uploads') })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startWire(server.port)
  const start = (chunkBytes: number, mode = 'plain'): Child => {
    const args = [
      script,
      `${wire.url}/files/`,
      file.path,
      join(folder, 'urls.json'),
      String(chunkBytes),
      mode,
    ]
    const child = startChild(programPath('tuspy'), args)
    onTestFinished(async () => void (await stopChild(child)))
    return child
  }
  const run = async (chunkBytes: number, mode = 'plain'): Promise<string> => {
    const child = start(chunkBytes, mode)
    expect((await child.exited).code, child.output()).toBe(0)
    return child.stdout()
  }
  return { file, server, wire, start, run }
}

async function startWire(port: number): Promise<TcpProxy> {
  const wire = await startTcpProxy(port)
  onTestFinished(() => wire.close())
  return wire
}

function urlOf(output: string): string {
  return output.trim().split('\n').at(-1)!
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}

async function expectContent(url: string, hash: string): Promise<void> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  expect(await sha256(new Uint8Array(await response.arrayBuffer()))).toBe(hash)
}
