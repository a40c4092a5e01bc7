// Clients in a real browser: tus-js-client in a network that lets only GET and POST through, and react-uploady, whose
// tus client is no relative of any other here. Both are cut off in the middle.

import { once } from 'node:events'
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Browser, launchChromium } from '../support/chromium.ts'
import { makeFolder } from '../support/folder.ts'
import { bundlePage } from '../support/page-bundle.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'

const MiB = 1024 * 1024
const content = randomBytes('browser', 12 * MiB)
const clientFile = fileURLToPath(new URL('./browser-clients.page.ts', import.meta.url))

describe('in Chromium', () => {
  let server: ServerProcess
  let network: Network
  let browser: Browser
  let removeFolder: () => Promise<void>

  beforeAll(async () => {
    const folder = await makeFolder()
    removeFolder = folder.remove
    server = await startServer({ dir: `${folder.path}/uploads` })
    network = await startNetwork(server.port, (await bundlePage(clientFile)).script)
    browser = await launchChromium({ profileDir: `${folder.path}/profile` })
  })
  afterAll(async () => {
    await browser?.close()
    await network?.close()
    await server?.stop()
    await removeFolder?.()
  })

  it('tus-js-client uploads through a proxy that knows only GET and POST, though it is cut off in the middle', async () => {
    const page = await openPage({ methods: ['GET', 'POST'], cutAfterBytes: 5 * MiB })
    const url = await page.evaluate<string>('uploadWithTus({ onlyPost: true })')
    expect(await sha256(await download(url))).toBe(await sha256(content))
    expect(network.seen.length).toBeGreaterThan(7)
    expect(new Set(network.seen.map(({ method }) => method))).toEqual(new Set(['POST']))
    const meant = network.seen.map(({ override = 'POST' }) => override)
    expect(meant.filter((method) => method === 'POST')).toHaveLength(1)
    expect(meant).toContain('HEAD')
    expect(network.cuts).toBe(1)
    await page.close()
  })

  it('tus-js-client terminates an upload there, too', async () => {
    const page = await openPage({ methods: ['GET', 'POST'] })
    const url = await page.evaluate<string>('uploadWithTus({ onlyPost: true, terminates: true })')
    expect(network.seen.map(({ override }) => override)).toContain('DELETE')
    expect((await fetch(atServer(url))).status).toBe(404)
    await page.close()
  })

  it('the proxy is what it says: a PATCH as such does not get through', async () => {
    await openPage({ methods: ['GET', 'POST'] }).then((page) => page.close())
    expect((await fetch(`${network.url}/files/none`, { method: 'PATCH' })).status).toBe(405)
  })

  it.each([
    ['as it comes', '{}'],
    ['data with the creation', '{ sendDataOnCreate: true }'],
    ['with method override', '{ overrideMethod: true }'],
    ['with the length told at the end', '{ deferLength: true }'],
  ])('react-uploady uploads, %s', async (_, options) => {
    const page = await openPage({})
    expect(await page.evaluate(`uploadWithUploady({ ...${options}, resume: false })`)).toBe('finished')
    expect(network.seen[0]).toMatchObject({ method: 'OPTIONS' })
    expect(await sha256(await download(lastLocation()))).toBe(await sha256(content))
    await page.close()
  })

  it('react-uploady goes on after a cut, when the page was loaded again', async () => {
    const page = await openPage({ cutAfterBytes: 5 * MiB })
    expect(await page.evaluate('uploadWithUploady({})')).toBe('error')
    const url = lastLocation()
    await page.reload()
    network.forget()
    expect(await page.evaluate('uploadWithUploady({})')).toBe('finished')
    expect(network.seen.map(({ method }) => method)).not.toContain('POST')
    const sentAgain = network.seen.filter(({ method }) => method === 'PATCH')
    expect(sentAgain.length).toBeLessThan(6)
    expect(await sha256(await download(url))).toBe(await sha256(content))
    await page.close()
  })

  async function openPage(rules: Partial<Rules>): Promise<Page> {
    network.forget()
    network.rules = { methods: undefined, cutAfterBytes: undefined, ...rules }
    const page = await browser.context.newPage()
    await page.goto(`${network.url}/page`)
    return page
  }

  function lastLocation(): string {
    return network.seen.findLast(({ location }) => location !== undefined)!.location!
  }

  async function download(url: string): Promise<Buffer> {
    return Buffer.from(await (await fetch(atServer(url))).arrayBuffer())
  }

  function atServer(url: string): URL {
    return new URL(new URL(url, server.url).pathname, server.url)
  }
})

interface Rules {
  /** What gets through; everything when undefined. */
  methods: string[] | undefined
  /** Bytes of bodies after which a connection is cut, once. */
  cutAfterBytes: number | undefined
}

interface Seen {
  readonly method: string
  readonly override: string | undefined
  location?: string | undefined
}

interface Network {
  readonly url: string
  rules: Rules
  /** Requests to the server behind, in order. */
  readonly seen: Seen[]
  readonly cuts: number
  forget(): void
  close(): Promise<void>
}

/** A page, what it uploads, and the way to the server behind. */
async function startNetwork(target: number, script: string): Promise<Network> {
  const network = {
    url: '',
    rules: { methods: undefined, cutAfterBytes: undefined } as Rules,
    seen: [] as Seen[],
    cuts: 0,
  }
  let bodyBytes = 0
  const pages: Record<string, [type: string, body: string | Buffer]> = {
    '/page': ['text/html', '<!doctype html><script src="/client.js"></script>'],
    '/client.js': ['text/javascript', script],
    '/content': ['application/octet-stream', content],
  }
  const forward = (req: IncomingMessage, res: ServerResponse) => {
    const { method = '', headers, url: path } = req
    const seen: Seen = { method, override: headers['x-http-method-override'] as string | undefined }
    if (path!.startsWith('/files')) network.seen.push(seen)
    const upstream = httpRequest({ host: '127.0.0.1', port: target, method, path, headers, agent: false })
    upstream.on('response', (answer) => {
      seen.location = answer.headers.location
      const { connection: _, 'keep-alive': __, ...headers } = answer.headers
      res.writeHead(answer.statusCode!, headers)
      answer.pipe(res)
    })
    upstream.on('error', () => res.destroy())
    res.on('close', () => upstream.destroy())
    req.on('data', (chunk: Buffer) => {
      bodyBytes += chunk.length
      const { cutAfterBytes } = network.rules
      if (cutAfterBytes === undefined || bodyBytes < cutAfterBytes) return
      network.rules.cutAfterBytes = undefined
      network.cuts++
      res.destroy()
    })
    req.pipe(upstream)
  }
  const sockets = new Set<Socket>()
  const http = createServer((req, res) => {
    // On a connection that served before, Chromium sends again by itself what was cut off.
    res.shouldKeepAlive = false
    const page = pages[req.url!]
    if (page) res.writeHead(200, { 'Content-Type': page[0] }).end(page[1])
    else if (network.rules.methods?.includes(req.method!) === false) res.writeHead(405).end()
    else forward(req, res)
  })
  http.on('connection', (socket) => sockets.add(socket))
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  network.url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`
  return Object.assign(network, {
    forget() {
      network.seen.length = 0
      network.cuts = 0
      bodyBytes = 0
    },
    async close() {
      http.close()
      for (const socket of sockets) socket.destroy()
      await once(http, 'close')
    },
  })
}
