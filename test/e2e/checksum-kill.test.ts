import { createHash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { request } from 'node:http'
import path from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes } from '../support/random-file.ts'
import { startServer } from '../support/server-process.ts'

const MiB = 1024 * 1024
const version = { 'Tus-Resumable': '1.0.0' }

it('leaves the offset where it was when it is killed under a body with a checksum', async () => {
  const dir = await temporaryFolder()
  const server = await startServer({ dir })
  onTestFinished(async () => void (await server.stop()))
  const content = randomBytes('checksum', 20 * MiB)
  const created = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: { ...version, 'Upload-Length': String(content.length) },
  })
  const url = new URL(created.headers.get('location')!, server.url)
  const headers = {
    ...version,
    'Upload-Offset': '0',
    'Content-Type': 'application/offset+octet-stream',
    'Content-Length': String(content.length),
    'Upload-Checksum': `sha256 ${createHash('sha256').update(content).digest('base64')}`,
  }

  const patch = request(url, { method: 'PATCH', headers })
  patch.on('error', () => undefined)
  patch.write(content.subarray(0, 19 * MiB))
  // More than two checkpoints of bytes are on the disk, and none of them may count.
  const file = path.join(dir, path.basename(url.pathname))
  await vi.waitFor(async () => expect((await stat(file)).size).toBeGreaterThan(17 * MiB), { timeout: 10_000 })
  await server.kill('SIGKILL')
  await server.restart()

  const head = await fetch(url, { method: 'HEAD', headers: version })
  expect(head.headers.get('upload-offset')).toBe('0')
  const again = await fetch(url, { method: 'PATCH', headers, body: new Uint8Array(content) })
  expect(again.status).toBe(204)
  expect(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(content)).toBe(true)
  expect((await readdir(dir)).filter((name) => name.endsWith('.data'))).toEqual([])
})
