import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeFolder } from '../support/folder.ts'
import { randomBytes, randomStream, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startUpload } from '../support/tus-client.ts'

const MiB = 1024 * 1024

describe('tus-js-client in its ways', () => {
  let server: ServerProcess
  let removeFolder: () => Promise<void>

  beforeAll(async () => {
    const folder = await makeFolder()
    removeFolder = folder.remove
    server = await startServer({ dir: folder.path })
  })
  afterAll(async () => {
    await server?.stop()
    await removeFolder?.()
  })

  it('sends forty files at once', async () => {
    const files = Array.from({ length: 40 }, (_, index) =>
      randomBytes(`file ${index}`, 100_000 + index * 33_333),
    )
    const uploads = files.map((content) => startUpload(content, { endpoint: endpoint() }))
    const urls = await Promise.all(uploads.map(({ done }) => done))
    expect(new Set(urls).size).toBe(40)
    for (const [index, url] of urls.entries()) await expectContent(url, files[index]!)
  })

  it('says the length only at the end', async () => {
    const content = randomBytes('deferred', 5 * MiB + 7)
    const { done, exchanges } = startUpload(randomStream('deferred', content.length), {
      endpoint: endpoint(),
      uploadLengthDeferred: true,
      chunkSize: MiB,
    })
    await expectContent(await done, content)
    expect(exchanges.filter(({ method }) => method === 'PATCH').length).toBeGreaterThanOrEqual(6)
  })

  it('sends data with the creation', async () => {
    const content = randomBytes('with creation', 3 * MiB)
    const { done, exchanges } = startUpload(content, { endpoint: endpoint(), uploadDataDuringCreation: true })
    await expectContent(await done, content)
    expect(exchanges.map(({ method, status }) => [method, status])).toEqual([['POST', 201]])
  })

  it('sends data with the creation and the rest in chunks', async () => {
    const content = randomBytes('chunks with creation', 3 * MiB + 1)
    const { done, exchanges } = startUpload(content, {
      endpoint: endpoint(),
      uploadDataDuringCreation: true,
      chunkSize: MiB,
    })
    await expectContent(await done, content)
    expect(exchanges.map(({ answeredOffset }) => answeredOffset)).toEqual([
      MiB,
      2 * MiB,
      3 * MiB,
      3 * MiB + 1,
    ])
  })

  it('sends chunks of 1 MiB', async () => {
    const content = randomBytes('chunks', 10 * MiB + 123)
    const { done, exchanges } = startUpload(content, { endpoint: endpoint(), chunkSize: MiB })
    await expectContent(await done, content)
    expect(exchanges.filter(({ method, status }) => method === 'PATCH' && status === 204).length).toBe(11)
  })

  it('sends four parts at a time, with metadata of their own', async () => {
    const content = randomBytes('parallel', 9 * MiB + 5)
    const { done, exchanges } = startUpload(content, {
      endpoint: endpoint(),
      parallelUploads: 4,
      metadata: { filename: 'whole.bin' },
      metadataForPartialUploads: { filename: 'part.bin' },
    })
    const url = await done
    await expectContent(url, content)
    expect(exchanges.filter(({ method, status }) => method === 'POST' && status === 201).length).toBe(5)
    const head = await fetch(url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
    expect(head.headers.get('upload-metadata')).toBe(
      `filename ${Buffer.from('whole.bin').toString('base64')}`,
    )
    expect(head.headers.get('upload-length')).toBe(String(content.length))
  })

  it('sends an empty file', async () => {
    const { done } = startUpload(Buffer.alloc(0), { endpoint: endpoint() })
    await expectContent(await done, Buffer.alloc(0))
  })

  it('overrides the PATCH method for networks that know only POST', async () => {
    const content = randomBytes('override', 2 * MiB)
    const { done } = startUpload(content, { endpoint: endpoint(), overridePatchMethod: true })
    await expectContent(await done, content)
  })

  it('is paused, asks and goes on, and terminates', async () => {
    const content = randomBytes('paused', 20 * MiB)
    const running = startUpload(content, {
      endpoint: endpoint(),
      chunkSize: MiB,
      onProgress: (sent) => {
        if (sent < 8 * MiB || wasPaused) return
        wasPaused = true
        void running.upload.abort().then(() => running.upload.start())
      },
    })
    let wasPaused = false
    const url = await running.done
    await expectContent(url, content)
    await running.upload.abort(true)
    expect((await fetch(url)).status).toBe(404)
  })

  const endpoint = () => `${server.url}/files/`

  async function expectContent(url: string, content: Uint8Array): Promise<void> {
    const response = await fetch(url)
    expect(response.status).toBe(200)
    expect(await sha256(new Uint8Array(await response.arrayBuffer()))).toBe(await sha256(content))
  }
})
