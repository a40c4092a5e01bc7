import { request } from 'node:http'
import { expect, it, onTestFinished } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { randomStream, sha256 } from '../support/random-file.ts'
import { startServer } from '../support/server-process.ts'

const MiB = 1024 * 1024
const GiB = 1024 * MiB

it('receives 2 GiB in under 150 MiB of memory', { timeout: 180_000 }, async () => {
  const server = await startServer({ dir: await temporaryFolder() })
  onTestFinished(async () => void (await server.stop()))
  const created = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': String(2 * GiB) },
  })
  const url = new URL(created.headers.get('location')!, server.url)

  const status = await new Promise<number | undefined>((resolve, reject) => {
    const headers = {
      'Tus-Resumable': '1.0.0',
      'Upload-Offset': '0',
      'Content-Type': 'application/offset+octet-stream',
      'Content-Length': String(2 * GiB),
    }
    const patch = request(url, { method: 'PATCH', headers }, (answer) => {
      answer.resume()
      resolve(answer.statusCode)
    })
    patch.on('error', reject)
    randomStream('2 GiB', 2 * GiB).pipe(patch)
  })

  expect(status).toBe(204)
  expect(await server.peakRssBytes()).toBeLessThan(150 * MiB)
  const download = await fetch(url)
  expect(await sha256(download.body as AsyncIterable<Uint8Array>)).toBe(
    await sha256(randomStream('2 GiB', 2 * GiB)),
  )
  expect(await server.peakRssBytes()).toBeLessThan(150 * MiB)
})
