// Two servers that share a folder and a Redis, behind the nginx that is shipped: what clients are promised holds there
// too. Between nginx and each server lies a wire that counts, so that a test knows which server has the upload.

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readdir, stat } from 'node:fs/promises'
import { request } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { errorTable } from '../../server/errors.ts'
import { readEvents } from '../support/event-reader.ts'
import { makeFolder } from '../support/folder.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { type Exchange, startUpload } from '../support/tus-client.ts'
import { startNginx } from './nginx.ts'

const MiB = 1024 * 1024
const size = 64 * MiB
/** Two servers, nginx, Redis and a client that all start and work on a busy machine. */
const patienceMs = 120_000
const tus = { 'Tus-Resumable': '1.0.0' }

type Site = {
  /** The folder of both. */
  dir: string
  url: string
  port: number
  servers: [ServerProcess, ServerProcess]
  /** Between nginx and the server of the same place. */
  wires: [TcpProxy, TcpProxy]
  close: () => Promise<void>
}

async function startSite(args: readonly string[] = []): Promise<Site> {
  const folder = await makeFolder()
  const shared = [
    '--behind-proxy',
    '--redis-url',
    inject('redisUrl'),
    '--redis-key-prefix',
    `${randomUUID()}:`,
  ]
  const start = () => startServer({ dir: folder.path, args: [...shared, ...args] })
  const servers = await Promise.all([start(), start()])
  const wires = await Promise.all([startTcpProxy(servers[0].port), startTcpProxy(servers[1].port)])
  const nginx = await startNginx(wires.map(({ port }) => port))
  return {
    dir: folder.path,
    url: nginx.url,
    port: nginx.port,
    servers,
    wires,
    async close() {
      await nginx.stop()
      await Promise.all(wires.map((wire) => wire.close()))
      await Promise.all(servers.map((server) => server.stop()))
      await folder.remove()
    },
  }
}

describe('while servers die', () => {
  it(
    'finishes 64 MiB on the other server when the one that receives it is killed',
    async () => {
      const site = await siteOfItsOwn()
      const content = randomBytes('killed behind nginx', size)
      const line = await slowLine(site)
      let killed: number | undefined

      const { done, exchanges } = startUpload(content, {
        endpoint: `${line.url}/files/`,
        onProgress: (sent) => {
          if (killed !== undefined || sent < size / 2) return
          killed = site.wires[0].sentBytes > site.wires[1].sentBytes ? 0 : 1
          kill(site, killed)
        },
      })
      const url = await done

      expect(killed).toBeDefined()
      expect(count(exchanges, 'POST')).toBe(1)
      expect(offsetsThatWentBack(exchanges)).toEqual([])
      expect(site.wires[1 - killed!]!.sentBytes).toBeGreaterThan(size / 4)
      expect(await sha256(await download(url))).toBe(await sha256(content))
    },
    patienceMs,
  )

  it(
    'never makes a client begin at byte 0 while no server is there',
    async () => {
      const site = await siteOfItsOwn()
      const content = randomBytes('nobody there', size)
      const line = await slowLine(site)
      let isDown = false
      let restarted: Promise<unknown> | undefined

      const { done, exchanges } = startUpload(content, {
        endpoint: `${line.url}/files/`,
        onProgress: (sent) => {
          if (isDown || sent < size / 2) return
          isDown = true
          kill(site, 0)
          kill(site, 1)
        },
        onAfterResponse: () => {
          if (restarted || exchanges.filter(({ method }) => method === 'HEAD').length < 4) return
          restarted = Promise.all(site.servers.map((server) => server.restart()))
        },
      })
      const url = await done
      await restarted

      const heads = exchanges.filter(({ method }) => method === 'HEAD').map(({ status }) => status)
      expect(heads.slice(0, 4)).toEqual([423, 423, 423, 423])
      expect(heads.at(-1)).toBe(200)
      expect(count(exchanges, 'POST')).toBe(1)
      expect(offsetsThatWentBack(exchanges)).toEqual([])
      expect(await sha256(await download(url))).toBe(await sha256(content))
    },
    patienceMs,
  )

  it(
    'gets an upload through a rolling restart',
    async () => {
      const site = await siteOfItsOwn()
      const content = randomBytes('rolling', size)
      const line = await slowLine(site)
      let rolled: Promise<(number | null)[]> | undefined

      const { done, exchanges } = startUpload(content, {
        endpoint: `${line.url}/files/`,
        onProgress: (sent) => {
          if (sent >= size / 4) rolled ??= roll(site.servers)
        },
      })
      const url = await done

      expect(await rolled).toEqual([0, 0])
      expect(count(exchanges, 'POST')).toBe(1)
      expect(offsetsThatWentBack(exchanges)).toEqual([])
      expect(await sha256(await download(url))).toBe(await sha256(content))
    },
    patienceMs,
  )

  it('passes over a server that is not there', async () => {
    const site = await siteOfItsOwn()
    // Without the wires: where nobody listens, a connection is refused.
    const nginx = await startNginx(site.servers.map(({ port }) => port))
    onTestFinished(() => nginx.stop())
    await site.servers[0].kill()

    const posts = Array.from({ length: 6 }, () =>
      fetch(`${nginx.url}/files/`, { method: 'POST', headers: { ...tus, 'Upload-Length': '1' } }),
    )
    expect((await Promise.all(posts)).map(({ status }) => status)).toEqual(Array(6).fill(201))
  })

  it('tells pages of any site that nobody is there, and HEAD of an upload that it should ask again', async () => {
    const site = await siteOfItsOwn()
    const location = await create(site, { 'Upload-Length': '10' })
    await Promise.all(site.servers.map((server) => server.kill()))

    const head = await fetch(location, { method: 'HEAD', headers: tus })
    expect(head.status).toBe(423)
    const patch = await fetch(location, {
      method: 'PATCH',
      headers: { ...tus, ...patchHeaders(0) },
      body: 'x',
    })
    expect(patch.status).toBe(503)
    expect(await patch.text()).toContain('try again')
    for (const { headers } of [head, patch]) {
      expect(headers.get('retry-after')).toMatch(/^\d+$/)
      expect(headers.get('access-control-allow-origin')).toBe('*')
      expect(headers.get('access-control-expose-headers')).toContain('Retry-After')
      expect(headers.get('cache-control')).toBe('no-store')
    }
    expect((await fetch(`${site.url}/`, { method: 'HEAD' })).status).toBe(502)
  })
})

describe('what passes through', () => {
  let site: Site
  beforeAll(async () => {
    site = await startSite(['--max-size', '100MiB'])
  })
  afterAll(() => site.close())

  it('lets a stream of progress through as it comes, and the counts of an upload', async () => {
    const location = await create(site, { 'Upload-Length': String(8 * MiB) })
    const path = new URL(location).pathname.replace('/files/', '/uploads/')
    const stream = await readEvents(`${site.url}${path}/events`)
    onTestFinished(() => stream.close())
    expect(stream.headers).toMatchObject({ 'content-type': 'text/event-stream; charset=utf-8' })
    await stream.until(({ kind }) => kind === 'snapshot')
    const socket = await openPatch(site, location, 8 * MiB)
    socket.write(randomBytes('watched', 3 * MiB))
    const { data } = await stream.until(({ kind, data }) => kind === 'progress' && data.offset === 3 * MiB)
    expect(data.url).toBe(location)
    expect(await (await fetch(`${site.url}${path}`)).json()).toMatchObject({ offset: 3 * MiB, percent: 37.5 })
    socket.destroy()
  })

  it('keeps what a client had sent when its connection was cut', async () => {
    const location = await create(site, { 'Upload-Length': String(8 * MiB) })
    const socket = await openPatch(site, location, 8 * MiB)
    socket.write(randomBytes('cut', 3 * MiB))
    // With a buffer in nginx nothing of it would ever be there while the client is still sending.
    const file = join(site.dir, new URL(location).pathname.split('/').at(-1)!)
    await vi.waitFor(async () => expect((await stat(file)).size).toBe(3 * MiB), { timeout: 20_000 })
    socket.destroy()

    const head = await fetch(location, { method: 'HEAD', headers: tus })
    expect(head.headers.get('upload-offset')).toBe(String(3 * MiB))
  })

  it('lets a client read, every time, why its upload is refused while it is still sending', async () => {
    const [tooLong, tooLarge] = (['body-too-long', 'too-large'] as const).map((code) => {
      const [status, sentence] = errorTable[code]
      return `${status} ${code}: ${sentence}`
    }) as [string, string]
    const answers: string[] = []
    for (let i = 0; i < 40; i++) {
      const path = i % 2 ? '/files/' : new URL(await create(site, { 'Upload-Length': '1000' })).pathname
      const headers = i % 2 ? { 'Upload-Length': String(200 * MiB), ...patchHeaders() } : patchHeaders(0)
      answers.push(await sendAllThenRead(site, i % 2 ? 'POST' : 'PATCH', path, headers))
    }
    const isClear = (answer: string, i: number) => answer.startsWith(i % 2 ? tooLarge : tooLong)
    expect(answers.filter((answer, i) => !isClear(answer, i))).toEqual([])
  })

  it('keeps what was put when its connection was cut, and goes on with it by name', async () => {
    const content = randomBytes('put behind nginx', 16 * MiB)
    const url = `${site.url}/upload/film.mp4`
    const put = request(url, { method: 'PUT', headers: { 'Content-Length': content.length } })
    put.on('error', () => undefined)
    put.write(content.subarray(0, 4 * MiB))
    await vi.waitFor(async () => expect(await largestFile(site.dir)).toBe(4 * MiB), { timeout: 20_000 })
    put.destroy()
    const head = await fetch(url, { method: 'HEAD' })
    const offset = Number(head.headers.get('upload-offset'))
    expect(offset).toBeGreaterThan(0)
    const rest = await fetch(url, {
      method: 'PUT',
      headers: { 'Content-Range': `bytes ${offset}-${content.length - 1}/${content.length}` },
      body: content.subarray(offset),
    })
    expect([rest.status, rest.headers.get('location')]).toEqual([
      201,
      expect.stringMatching(`^${site.url}/files/`),
    ])
    expect(await sha256(await download(url))).toBe(await sha256(content))
  })

  it('names uploads by the address that the client used', async () => {
    expect(await create(site, { 'Upload-Length': '1' })).toMatch(new RegExp(`^${site.url}/files/[^/]+$`))
    const secure = { 'Upload-Length': '1', 'X-Forwarded-Proto': 'https', Host: 'files.example.org:8443' }
    expect(await create(site, secure)).toMatch(/^https:\/\/files\.example\.org:8443\/files\/[^/]+$/)
  })

  it('lets nobody else say where uploads are', async () => {
    const pretended = { 'X-Forwarded-Host': 'evil.example', Forwarded: 'host=evil.example;proto=https' }
    const location = await create(site, { 'Upload-Length': '1', ...pretended })
    expect(location).toMatch(new RegExp(`^${site.url}/files/`))
  })

  it('takes 100 KiB of metadata, and gives them back', async () => {
    const metadata = `note ${Buffer.alloc(75 * 1024, 'x').toString('base64')}`
    expect(metadata.length).toBeGreaterThan(100 * 1024)
    const location = await create(site, { 'Upload-Length': '1', 'Upload-Metadata': metadata })
    expect(await headerOf(location, 'upload-metadata')).toBe(metadata)
  })

  it('shows the page with everything it needs', async () => {
    const page = await fetch(`${site.url}/`)
    expect(page.status).toBe(200)
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'")
    const assets = [...(await page.text()).matchAll(/(?:src|href)="(\.\/assets\/[^"]+)"/g)].map(
      ([, path]) => path!,
    )
    expect(assets.length).toBeGreaterThanOrEqual(2)
    for (const path of assets) {
      const [through, direct] = await Promise.all(
        [site.url, site.servers[0].url].map((base) => fetch(new URL(path, `${base}/`))),
      )
      expect(through!.status).toBe(200)
      expect(through!.headers.get('content-type')).toBe(direct!.headers.get('content-type'))
      expect(await through!.text()).toBe(await direct!.text())
    }
  })

  it('serves a part of an upload', async () => {
    const content = randomBytes('range', 2 * MiB)
    const url = await startUpload(content, { endpoint: `${site.url}/files/` }).done
    const part = await fetch(url, { headers: { Range: 'bytes=1000000-1500000' } })
    expect(part.status).toBe(206)
    expect(part.headers.get('content-range')).toBe(`bytes 1000000-1500000/${2 * MiB}`)
    expect(await sha256(Buffer.from(await part.arrayBuffer()))).toBe(
      await sha256(content.subarray(1_000_000, 1_500_001)),
    )
  })
})

async function siteOfItsOwn(): Promise<Site> {
  const site = await startSite()
  onTestFinished(() => site.close())
  return site
}

/** From the client to nginx: 60 MiB/s, so that there is a middle of the upload. */
async function slowLine(site: Site): Promise<TcpProxy> {
  const line = await startTcpProxy(site.port)
  line.bytesPerSecond = 60 * MiB
  onTestFinished(() => line.close())
  return line
}

/** As a machine goes: the process, and with it every connection. */
function kill(site: Site, index: number): void {
  void site.servers[index]!.kill('SIGKILL')
  site.wires[index]!.cut()
}

/** Resolves with the exit codes. */
async function roll(servers: readonly ServerProcess[]): Promise<(number | null)[]> {
  const codes: (number | null)[] = []
  for (const server of servers) {
    codes.push((await server.stop()).code)
    await server.restart()
  }
  return codes
}

async function largestFile(dir: string): Promise<number> {
  const names = await readdir(dir)
  const sizes = await Promise.all(names.map((name) => stat(join(dir, name)).then(({ size }) => size)))
  return Math.max(...sizes)
}

/** Over http.request, which lets a test say `Host`. Resolves with the Location. */
async function create(site: Site, headers: Record<string, string>): Promise<string> {
  const post = request(`${site.url}/files/`, {
    method: 'POST',
    headers: { ...tus, ...headers },
    agent: false,
  })
  post.end()
  const [answer] = await once(post, 'response')
  answer.resume()
  expect(answer.statusCode).toBe(201)
  return answer.headers.location
}

/** fetch refuses answers with more than 16 KiB of headers. */
async function headerOf(url: string, name: string): Promise<string> {
  const head = request(url, { method: 'HEAD', headers: tus, agent: false, maxHeaderSize: 256 * 1024 })
  head.end()
  const [answer] = await once(head, 'response')
  answer.resume()
  expect(answer.statusCode).toBe(200)
  return answer.headers[name]
}

function patchHeaders(offset?: number): Record<string, string> {
  const type = { 'Content-Type': 'application/offset+octet-stream' }
  return offset === undefined ? type : { ...type, 'Upload-Offset': String(offset) }
}

async function openPatch(site: Site, location: string, lengthBytes: number) {
  const headers = { ...patchHeaders(0), 'Content-Length': String(lengthBytes) }
  const socket = connect(site.port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.write(head(site, 'PATCH', new URL(location).pathname, headers))
  return socket
}

function head(site: Site, method: string, path: string, headers: Record<string, string>): string {
  const all = Object.entries({ Host: `127.0.0.1:${site.port}`, ...tus, ...headers })
  return `${method} ${path} HTTP/1.1\r\n${all.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
}

/** As browsers do it: the answer is looked at when everything is sent. Resolves with status and sentence, or the failure. */
async function sendAllThenRead(
  site: Site,
  method: string,
  path: string,
  headers: Record<string, string>,
): Promise<string> {
  const body = randomBytes('refused', 8 * MiB)
  const socket = connect(site.port, '127.0.0.1')
  let failure = ''
  let answer = ''
  socket.on('error', (error) => {
    failure = error.message
  })
  socket.pause()
  socket.write(
    head(site, method, path, { ...headers, 'Content-Length': String(body.length), Connection: 'close' }),
  )
  await new Promise<void>((resolve) => socket.write(body, () => resolve()))
  socket.setEncoding('utf8').on('data', (text) => {
    answer += text
  })
  socket.resume()
  if (!socket.closed) await once(socket, 'close').catch(() => undefined)
  const status = answer.match(/^HTTP\/1\.1 (\d{3})/)?.[1]
  return status ? `${status} ${answer.slice(answer.indexOf('\r\n\r\n')).trim()}` : failure || 'no answer'
}

function count(exchanges: readonly Exchange[], wanted: string): number {
  return exchanges.filter(({ method }) => method === wanted).length
}

/** Offsets that were answered after a higher one. */
function offsetsThatWentBack(exchanges: readonly Exchange[]): number[] {
  const offsets = exchanges.flatMap(({ answeredOffset }) => answeredOffset ?? [])
  return offsets.filter((offset, index) => offsets.slice(0, index).some((earlier) => earlier > offset))
}

async function download(url: string): Promise<Buffer> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  return Buffer.from(await response.arrayBuffer())
}
