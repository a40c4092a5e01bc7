import { expect, it, onTestFinished, vi } from 'vitest'
import { type FinishJournal, finishJournal } from '../support/finishes.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes, randomStream, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { startUpload } from '../support/tus-client.ts'

const MiB = 1024 * 1024
const size = 200 * MiB
const tus = { 'Tus-Resumable': '1.0.0' }

it('tus-js-client with four parallel uploads finishes 200 MiB though the server is killed in the middle', async () => {
  const content = randomBytes('parallel', size)
  const { server, journal } = await startTellingServer()
  const wire = await startTcpProxy(server.port)
  wire.bytesPerSecond = 60 * MiB
  onTestFinished(() => wire.close())
  let restarted: Promise<void> | undefined

  const { done, exchanges } = startUpload(content, {
    endpoint: `${wire.url}/files/`,
    parallelUploads: 4,
    metadata: { filename: 'large.bin' },
    onProgress: (sent) => {
      if (restarted !== undefined || sent < size / 2) return
      restarted = server.kill('SIGKILL').then(() => server.restart())
    },
  })
  const url = await done
  await restarted

  expect(
    exchanges.filter(({ method, status }) => method === 'HEAD' && status === 200).length,
  ).toBeGreaterThan(0)
  expect(wire.sentBytes).toBeLessThan(2 * size)
  const response = await fetch(url)
  expect(response.headers.get('content-disposition')).toContain('large.bin')
  expect(await sha256(response.body as AsyncIterable<Uint8Array>)).toBe(await sha256(content))
  const id = new URL(url).pathname.split('/').at(-1)
  await vi.waitFor(async () => expect((await journal.read()).map(({ upload }) => upload)).toEqual([id]))
  expect(await server.peakRssBytes()).toBeLessThan(180 * MiB)
})

it('a final is made by the next start when the server was killed between its last byte and its finish', async () => {
  const { server, journal } = await startTellingServer()
  const bytes = 64 * MiB
  const parts = await Promise.all([0, 1, 2].map(() => create(server, { 'Upload-Length': `${bytes}` })))
  const final = await create(server, { 'Upload-Concat': `final;${parts.join(' ')}` })
  const patch = (part: number) =>
    fetch(parts[part]!, {
      method: 'PATCH',
      headers: { ...tus, 'Upload-Offset': '0', 'Content-Type': 'application/offset+octet-stream' },
      body: new Blob([randomBytes('cut', bytes, part * bytes)]),
    })
  for (const part of [0, 1, 2]) expect((await patch(part)).status).toBe(204)
  await server.kill('SIGKILL')
  await server.restart()

  await vi.waitFor(async () => expect((await fetch(final, { method: 'GET' })).status).toBe(200), {
    timeout: 20_000,
    interval: 100,
  })
  const { body } = await fetch(final)
  expect(await sha256(body as AsyncIterable<Uint8Array>)).toBe(await sha256(randomStream('cut', 3 * bytes)))
  await vi.waitFor(async () => expect(await journal.read()).toHaveLength(1))
  expect(await server.peakRssBytes()).toBeLessThan(150 * MiB)
})

async function startTellingServer(): Promise<{ server: ServerProcess; journal: FinishJournal }> {
  const journal = finishJournal(await temporaryFolder())
  const { nodeArgs, env } = journal
  const server = await startServer({ dir: await temporaryFolder(), nodeArgs, env })
  onTestFinished(async () => void (await server.stop()))
  return { server, journal }
}

async function create(server: ServerProcess, headers: Record<string, string>): Promise<string> {
  const partial = 'Upload-Length' in headers ? { 'Upload-Concat': 'partial' } : {}
  const answer = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: { ...tus, ...partial, ...headers },
  })
  expect(answer.status).toBe(201)
  return new URL(answer.headers.get('location')!, server.url).href
}
