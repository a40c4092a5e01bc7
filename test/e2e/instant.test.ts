// Clients as they are, uploading what is there already: they end well, soon, and with bytes that are right, whatever they
// know of instant uploads.

import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, inject, it, onTestFinished, vi } from 'vitest'
import { launchChromium } from '../support/chromium.ts'
import { startClientPage } from '../support/client-page.ts'
import { finishJournal } from '../support/finishes.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { type ServerOptions, type ServerProcess, startServer } from '../support/server-process.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { startUpload } from '../support/tus-client.ts'

const MiB = 1024 * 1024
const content = randomBytes('instant', 24 * MiB)
const hash = await sha256(content)
const patience = { timeout: 90_000 }
const clientFile = fileURLToPath(new URL('./instant.page.ts', import.meta.url))

for (const uploadDataDuringCreation of [false, true])
  it(`tus-js-client in Node, ${wayOf(uploadDataDuringCreation)}`, patience, async () => {
    const { server, wire } = await setUp()
    const url = await uploadFirst(server)
    const { done, exchanges } = startUpload(content, {
      ...{ endpoint: `${wire.url}/files/`, uploadDataDuringCreation, metadata: { sha256: hash } },
    })
    const again = await done
    expect(basename(again)).not.toBe(basename(url))
    await expectContent(again)
    expect(exchanges[0]).toMatchObject({ method: 'POST', status: 201, answeredOffset: content.length })
    // The answer to a PATCH from the beginning may be lost over what is sent; then the question behind it is the same.
    const others = exchanges.filter(({ method }) => method !== 'PATCH')
    expect(others.map(({ method, status }) => `${method} ${status}`)).toEqual(
      uploadDataDuringCreation ? ['POST 201'] : ['POST 201', 'HEAD 200'],
    )
    if (!uploadDataDuringCreation) expect(wire.sentBytes).toBeLessThan(content.length / 2)
    expect(server.logs().filter(({ method }) => method === 'POST')).toHaveLength(2)
  })

it('tus-js-client and Uppy in Chromium, with and without data in the creation', patience, async () => {
  const { server, wire } = await setUp()
  await uploadFirst(server)
  const site = await startClientPage(clientFile, { '/content': content })
  const browser = await launchChromium({ profileDir: await temporaryFolder() })
  onTestFinished(browser.close)
  const page = browser.context.pages()[0] ?? (await browser.context.newPage())
  const urls = new Set<string>()
  for (const client of ['withTus', 'withUppy'])
    for (const uploadDataDuringCreation of [false, true]) {
      await page.goto(site)
      await page.evaluate('localStorage.clear()')
      const before = wire.sentBytes
      const wish = { endpoint: `${wire.url}/files/`, sha256: hash, uploadDataDuringCreation }
      const url = await page.evaluate<string>(`${client}(${JSON.stringify(wish)})`)
      await expectContent(url)
      urls.add(url)
      const sent = wire.sentBytes - before
      if (!uploadDataDuringCreation) expect(sent).toBeLessThan(content.length / 2)
      else expect(sent).toBeLessThan(content.length + MiB)
    }
  expect(urls.size).toBe(4)
})

for (const [name, more, count] of [
  ['workers', { args: ['--workers', '2'] }, 1],
  ['two servers that share a Redis', { redisUrl: 'shared' }, 2],
] as const)
  it(
    `${name} find each other's uploads, and a kill in the middle leaves nothing wrong`,
    patience,
    async () => {
      const dir = await temporaryFolder()
      const journal = finishJournal(await temporaryFolder())
      const { nodeArgs, env } = journal
      const redisUrl = 'redisUrl' in more ? inject('redisUrl') : undefined
      const args = 'args' in more ? [...more.args] : []
      const options = { args, dir, nodeArgs, env, ...(redisUrl && { redisUrl }) }
      const servers: ServerProcess[] = []
      for (let n = 0; n < count; n++) servers.push((await setUp(options)).server)
      await uploadFirst(servers[0]!)
      const other = servers.at(-1)!
      const offsets = await Promise.all(
        Array.from({ length: 6 }, () => create(other).then(({ offset }) => offset)),
      )
      expect(offsets).toEqual(Array(6).fill(String(content.length)))

      const dying = Array.from({ length: 20 }, () => create(other).catch(() => undefined))
      await Promise.race(dying)
      await other.kill('SIGKILL')
      const answered = (await Promise.all(dying)).filter((answer) => answer !== undefined)
      await other.restart()
      for (const { url } of answered.slice(0, 3))
        await expectContent(url.replace(/^http:\/\/[^/]+/, other.url))
      // Who was answered is told of, each under one event.
      await vi.waitFor(
        async () => {
          const told = new Set((await journal.read()).map(({ upload }) => upload))
          for (const { url } of answered) expect(told).toContain(basename(url))
        },
        { timeout: 20_000 },
      )
    },
  )

async function setUp(options: Partial<ServerOptions> = {}) {
  const dir = options.dir ?? (await temporaryFolder())
  const args = [...(options.args ?? []), '--instant-upload', 'global']
  const server = await startServer({ ...options, dir, args })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startTcpProxy(server.port)
  onTestFinished(() => wire.close())
  return { server, wire }
}

/** The upload that is there already. */
async function uploadFirst(server: ServerProcess): Promise<string> {
  const { done } = startUpload(content, { endpoint: `${server.url}/files/`, metadata: { sha256: hash } })
  return done
}

async function create(server: ServerProcess): Promise<{ url: string; offset: string | null }> {
  const response = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: {
      'Tus-Resumable': '1.0.0',
      'Upload-Length': String(content.length),
      'Repr-Digest': `sha-256=:${Buffer.from(hash, 'hex').toString('base64')}:`,
      Connection: 'close',
    },
  })
  expect(response.status).toBe(201)
  return { url: response.headers.get('location')!, offset: response.headers.get('upload-offset') }
}

async function expectContent(url: string): Promise<void> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  expect(await sha256(Buffer.from(await response.arrayBuffer()))).toBe(hash)
}

function wayOf(uploadDataDuringCreation: boolean): string {
  return uploadDataDuringCreation ? 'data in the creation' : 'data after the creation'
}
