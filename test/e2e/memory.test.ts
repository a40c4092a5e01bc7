import { stat } from 'node:fs/promises'
import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, it, onTestFinished, vi } from 'vitest'
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

it('receives a form of 2 GiB, and a part of it again, in under 150 MiB of memory', {
  timeout: 240_000,
}, async () => {
  const server = await startServer({ dir: await temporaryFolder() })
  onTestFinished(async () => void (await server.stop()))
  const head = '--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
  const headers = { 'Content-Type': 'multipart/form-data; boundary=x', 'Upload-Key': 'memory' }
  const post = (length: number, breakAfter?: number) =>
    new Promise<string>((resolve, reject) => {
      const form = request(`${server.url}/upload`, { method: 'POST', headers }, async (answer) => {
        resolve(await text(answer))
      })
      form.on('error', reject)
      form.write(head)
      const bytes = randomStream('form', breakAfter ?? length)
      bytes.pipe(form, { end: false })
      bytes.on('end', () => (breakAfter ? form.destroy(new Error('broken')) : form.end('\r\n--x--\r\n')))
    })

  await expect(post(2 * GiB, GiB)).rejects.toThrow('broken')
  await vi.waitFor(() => expect(server.logs().some(({ method }) => method === 'POST')).toBe(true), {
    timeout: 20_000,
  })
  const { files } = JSON.parse(await post(2 * GiB)) as {
    files: { size: number; sha256: string; id: string }[]
  }

  expect(files).toMatchObject([{ size: 2 * GiB, sha256: await sha256(randomStream('form', 2 * GiB)) }])
  expect(server.logs().find(({ method }) => method === 'POST')).toMatchObject({ uploadId: files[0]!.id })
  expect(await server.peakRssBytes()).toBeLessThan(150 * MiB)
})

it('receives 1000 slow uploads at once in less than 200 MiB more than it needs when idle', {
  timeout: 180_000,
}, async () => {
  const dir = await temporaryFolder()
  const server = await startServer({ dir, args: ['--durability', 'none', '--log-level', 'warn'] })
  onTestFinished(async () => void (await server.stop()))
  const idle = await server.rssBytes()
  const sockets: Socket[] = []
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
  })
  const create = async () => {
    const headers = { 'Tus-Resumable': '1.0.0', 'Upload-Length': '100000' }
    const created = await fetch(`${server.url}/files/`, { method: 'POST', headers })
    return created.headers.get('location')!
  }
  const urls: string[] = []
  for (let i = 0; i < 1000; i += 50) urls.push(...(await Promise.all(Array.from({ length: 50 }, create))))

  for (const url of urls) {
    const socket = connect(server.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write(
      `PATCH ${url} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Length: 100000\r\n` +
        'Content-Type: application/offset+octet-stream\r\n\r\n',
    )
    sockets.push(socket)
  }
  for (let round = 0; round < 20; round++)
    for (const socket of sockets) socket.write(Buffer.alloc(1000, round))
  // All that was sent has come: every upload shows it to whoever asks, which ends its slow request.
  const last = new URL(urls.at(-1)!, server.url)
  await vi.waitFor(
    async () => expect((await stat(path.join(dir, path.basename(last.pathname)))).size).toBe(20_000),
    {
      timeout: 30_000,
    },
  )
  expect((await server.peakRssBytes()) - idle).toBeLessThan(200 * MiB)
  for (const url of urls.slice(0, 20)) {
    const head = await fetch(new URL(url, server.url), {
      method: 'HEAD',
      headers: { 'Tus-Resumable': '1.0.0' },
    })
    expect(head.headers.get('upload-offset')).toBe('20000')
  }
})
