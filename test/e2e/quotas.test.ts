/**
 * What people and clients see who are over a quota, and whether they go on by themselves when there is room again:
 * tus-js-client as it is, and the page in a real browser. docs/quotas.md tells what was seen here.
 */
import { join } from 'node:path'
import { DetailedError } from 'tus-js-client'
import { expect, it, onTestFinished } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes, randomFile } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startUpload } from '../support/tus-client.ts'
import { eventually, openUploadPage } from '../support/upload-page.ts'

const KiB = 1024
const version = { 'Tus-Resumable': '1.0.0' }

async function serve(...args: string[]): Promise<ServerProcess> {
  const server = await startServer({ dir: join(await temporaryFolder(), 'uploads'), args })
  onTestFinished(async () => void (await server.stop()))
  return server
}

async function occupy(server: ServerProcess, bytes = 1): Promise<() => Promise<void>> {
  const headers = { ...version, 'Upload-Length': String(bytes) }
  const url = (await fetch(`${server.url}/files/`, { method: 'POST', headers })).headers.get('location')!
  return async () => {
    expect((await fetch(url, { method: 'DELETE', headers: version })).status).toBe(204)
  }
}

it('tus-js-client gives up a creation that is refused with 429, and tells the sentence', async () => {
  const server = await serve('--quota-open-uploads', '1')
  await occupy(server)
  const { done, exchanges } = startUpload(randomBytes('a', 10), { endpoint: `${server.url}/files/` })
  const error = await done.then(
    () => undefined,
    (error: unknown) => error,
  )
  expect(error).toBeInstanceOf(DetailedError)
  expect((error as DetailedError).originalResponse?.getStatus()).toBe(429)
  expect(String(error)).toContain('1 unfinished upload is allowed at a time')
  expect(exchanges.map(({ status }) => status)).toEqual([429])
})

it('tus-js-client goes on by itself after 429 when onShouldRetry says so', async () => {
  const server = await serve('--quota-open-uploads', '1')
  const leave = await occupy(server)
  const { done, exchanges } = startUpload(randomBytes('b', 10), {
    endpoint: `${server.url}/files/`,
    onShouldRetry: (error) => error.originalResponse?.getStatus() === 429,
  })
  await expect.poll(() => exchanges.length, { timeout: 20_000 }).toBeGreaterThanOrEqual(2)
  await leave()
  await done
  expect(new Set(exchanges.map(({ method, status }) => `${method} ${status}`))).toEqual(
    new Set(['POST 429', 'POST 201', 'PATCH 204']),
  )
})

it('tus-js-client goes on by itself after an append that is refused with 423, without sending anything twice', async () => {
  const server = await serve('--quota-unfinished-bytes', '100KiB')
  const leave = await occupy(server, 60 * KiB)
  const { done, exchanges } = startUpload(randomBytes('c', 80 * KiB), {
    endpoint: `${server.url}/files/`,
    uploadLengthDeferred: true,
    chunkSize: 20 * KiB,
  })
  await expect
    .poll(() => exchanges.filter(({ status }) => status === 423).length, { timeout: 20_000 })
    .toBeGreaterThanOrEqual(2)
  await leave()
  await done
  const patches = exchanges.filter(({ method, status }) => method === 'PATCH' && status === 204)
  expect(patches.map(({ offset }) => offset! / KiB)).toEqual([0, 20, 40, 60])
  expect(exchanges.filter(({ method, status }) => method === 'HEAD' && status !== 200)).toEqual([])
})

it('the page waits, says why, and goes on by itself', { timeout: 90_000 }, async () => {
  const server = await serve('--quota-open-uploads', '1')
  const leave = await occupy(server)
  const folder = await temporaryFolder()
  const files = await Promise.all(
    ['one', 'two'].map((name) => randomFile(join(folder, `${name}.bin`), name, 100 * KiB)),
  )
  const seen = await openUploadPage(server.url, { profileDir: join(folder, 'browser') })
  onTestFinished(() => seen.close())
  await seen.choose(...files.map(({ path }) => path))
  await seen.start()
  const banner = seen.page.locator('#banner')
  const sentence =
    'Waiting: 1 unfinished upload is allowed at a time; try again when one is finished or deleted'
  await eventually(async () => expect(await banner.textContent()).toBe(sentence))
  await leave()
  // One after the other: there is room for one.
  await seen.finished(2)
  await eventually(async () => expect(await banner.textContent()).toBe(''))
  expect(seen.faults).toEqual([])
})
