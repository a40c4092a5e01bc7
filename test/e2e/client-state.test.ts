// tus-js-client beyond the plain upload: what it is told and asks while it sends, what it sends along, and what it
// remembers from one process to the next.

import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import * as tus from 'tus-js-client'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { makeFolder, temporaryFolder } from '../support/folder.ts'
import { randomBytes, randomFile, randomStream, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { prepareUpload, startUpload } from '../support/tus-client.ts'

const MiB = 1024 * 1024

/** Exported in Node, though its types do not say so. */
const { FileUrlStorage } = tus as unknown as { FileUrlStorage: new (file: string) => tus.UrlStorage }

describe('tus-js-client', () => {
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

  it('sends headers of the application and a request id with every request', async () => {
    const content = randomBytes('headers', 2 * MiB)
    const ids = new Set<string | undefined>()
    const tokens = new Set<string | undefined>()
    const { done, exchanges } = startUpload(content, {
      endpoint: endpoint(),
      chunkSize: MiB,
      addRequestId: true,
      headers: { Authorization: 'Bearer of-the-application' },
      onAfterResponse: (request) => {
        ids.add(request.getHeader('X-Request-ID'))
        tokens.add(request.getHeader('Authorization'))
      },
    })
    await expectContent(await done, content)
    expect(exchanges.map(({ method }) => method)).toEqual(['POST', 'PATCH', 'PATCH'])
    expect([ids.size, ids.has(undefined), tokens.size]).toEqual([3, false, 1])
  })

  it('sends metadata in any script, and the download has its name', async () => {
    const content = randomBytes('names', 1000)
    const metadata = { filename: 'приливы 潮 🌊.bin', filetype: 'text/plain', empty: '' }
    const { done } = startUpload(content, { endpoint: endpoint(), metadata })
    const url = await done
    const head = await fetch(url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
    const sent = head.headers.get('upload-metadata')!.split(',')
    const pairs = sent.map((pair) => pair.split(' ') as [string, string?])
    const values = pairs.map(([key, value = '']) => [key, Buffer.from(value, 'base64').toString()])
    expect(Object.fromEntries(values)).toEqual(metadata)
    const { headers } = await fetch(url)
    expect(headers.get('content-disposition')).toContain(encodeURIComponent('приливы 潮 🌊.bin'))
  })

  it('is told of every chunk that was accepted', async () => {
    const content = randomBytes('chunks', 3 * MiB + 5)
    const chunks: number[][] = []
    const { done } = startUpload(content, {
      endpoint: endpoint(),
      chunkSize: MiB,
      onChunkComplete: (...sizes) => void chunks.push(sizes as number[]),
    })
    await expectContent(await done, content)
    const { length } = content
    expect(chunks).toEqual([
      [MiB, MiB, length],
      [MiB, 2 * MiB, length],
      [MiB, 3 * MiB, length],
      [5, length, length],
    ])
  })

  it('takes its size from an option where a stream does not know it', async () => {
    const size = 5 * MiB + 3
    const content = randomBytes('sized', size)
    const { done, exchanges } = startUpload(randomStream('sized', size), {
      endpoint: endpoint(),
      uploadSize: size,
      chunkSize: 2 * MiB,
    })
    await expectContent(await done, content)
    expect(exchanges.map(({ answeredOffset }) => answeredOffset)).toEqual([undefined, 2 * MiB, 4 * MiB, size])
  })

  it('asks onShouldRetry after a cut, and gives up when it says no', async () => {
    const wire = await startWire(20 * MiB)
    const asked: number[] = []
    const content = randomBytes('no retry', 8 * MiB)
    const { done, upload } = startUpload(content, {
      endpoint: `${wire.url}/files/`,
      onProgress: (sent) => void (sent > 2 * MiB && wire.cut()),
      onShouldRetry: (_, attempt) => {
        asked.push(attempt)
        return false
      },
    })
    await expect(done).rejects.toThrow('failed to upload chunk')
    expect(asked).toEqual([0])
    // What was given up can be taken up again: the server kept it.
    const again = startUpload(content, { endpoint: endpoint(), uploadUrl: directly(upload.url) })
    await expectContent(await again.done, content)
    expect(again.exchanges[0]).toMatchObject({ method: 'HEAD', status: 200 })
  })

  it('finds what was begun before by its fingerprint in a file, goes on there, and forgets it when it is done', async () => {
    const folder = await temporaryFolder()
    const file = await randomFile(join(folder, 'file'), 'remembered', 16 * MiB)
    const wire = await startWire(20 * MiB)
    const options = {
      endpoint: `${wire.url}/files/`,
      urlStorage: new FileUrlStorage(join(folder, 'urls.json')),
      removeFingerprintOnSuccess: true,
      chunkSize: 4 * MiB,
    }
    const first = prepareUpload(createReadStream(file.path), options)
    const hasBegun = new Promise<void>((resolve) => {
      first.upload.options.onChunkComplete = async (_, accepted) => {
        if (accepted < 8 * MiB) return
        await first.upload.abort()
        resolve()
      }
    })
    first.upload.start()
    await hasBegun

    wire.bytesPerSecond = 0
    const second = prepareUpload(createReadStream(file.path), options)
    const previous = await second.upload.findPreviousUploads()
    expect(previous).toMatchObject([{ size: 16 * MiB, uploadUrl: first.upload.url }])
    second.upload.resumeFromPreviousUpload(previous[0]!)
    second.upload.start()
    const url = await second.done
    expect(second.exchanges[0]).toMatchObject({ method: 'HEAD', status: 200 })
    expect(second.exchanges[0]!.answeredOffset).toBeGreaterThanOrEqual(8 * MiB)
    expect(second.exchanges.some(({ method }) => method === 'POST')).toBe(false)
    expect(await sha256(Buffer.from(await (await fetch(url)).arrayBuffer()))).toBe(file.sha256)
    const third = prepareUpload(createReadStream(file.path), options)
    expect(await third.upload.findPreviousUploads()).toEqual([])
  })

  it('begins anew where what it remembers is gone', async () => {
    const content = randomBytes('gone', MiB)
    const gone = startUpload(content, { endpoint: endpoint() })
    const url = await gone.done
    await gone.upload.abort(true)
    const again = startUpload(content, { endpoint: endpoint(), uploadUrl: url })
    await expectContent(await again.done, content)
    expect(again.exchanges.map(({ method, status }) => `${method} ${status}`)).toEqual([
      'HEAD 404',
      'POST 201',
      'PATCH 204',
    ])
  })

  it('is aborted in the middle and terminates the upload', async () => {
    const wire = await startWire(20 * MiB)
    const content = randomBytes('aborted', 16 * MiB)
    const aborted = new Promise<string>((resolve, reject) => {
      let isAborting = false
      const { upload } = startUpload(content, {
        endpoint: `${wire.url}/files/`,
        onProgress: (sent) => {
          if (isAborting || sent < 4 * MiB) return
          isAborting = true
          upload.abort(true).then(() => resolve(directly(upload.url)), reject)
        },
      })
    })
    const url = await aborted
    const head = await fetch(url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
    expect(head.status).toBe(404)
  })

  it.each(['overridePatchMethod', 'plain'])('resumes by URL alone, %s', async (way) => {
    const content = randomBytes(`resumed ${way}`, 4 * MiB)
    const created = await fetch(endpoint(), {
      method: 'POST',
      headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': String(content.length) },
    })
    const { done } = startUpload(content, {
      uploadUrl: new URL(created.headers.get('location')!, server.url).href,
      overridePatchMethod: way === 'overridePatchMethod',
      chunkSize: MiB,
    })
    await expectContent(await done, content)
  })

  const endpoint = () => `${server.url}/files/`

  async function startWire(bytesPerSecond: number) {
    const wire = await startTcpProxy(server.port)
    wire.bytesPerSecond = bytesPerSecond
    onTestFinished(() => wire.close())
    return wire
  }

  /** The same URL at the server itself. */
  function directly(url: string | null): string {
    return new URL(new URL(url!).pathname, server.url).href
  }

  async function expectContent(url: string, content: Uint8Array): Promise<void> {
    const response = await fetch(url)
    expect(response.status).toBe(200)
    expect(await sha256(new Uint8Array(await response.arrayBuffer()))).toBe(await sha256(content))
  }
})
