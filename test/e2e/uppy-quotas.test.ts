/**
 * What people see in Uppy's dashboard who are over a quota, and whether it goes on by itself: Uppy as other people's pages
 * have it, and the page. docs/quotas.md tells what was seen here.
 */
import { once } from 'node:events'
import { rm, writeFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Page } from 'playwright-core'
import { describe, expect, it, onTestFinished } from 'vitest'
import { launchChromium } from '../support/chromium.ts'
import { startClientPage } from '../support/client-page.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomFile, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { mayMount, mounted } from '../support/small-disk.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { eventually, openUploadPage } from '../support/upload-page.ts'

const MiB = 1024 * 1024
const patience = { timeout: 90_000 }
/** So slow that nothing finishes. */
const trickle = 64 * 1024
const clientFile = fileURLToPath(new URL('./uppy-quotas.page.ts', import.meta.url))
const oneAtATime = '1 request may send data at a time; try again when one has ended'

describe('four files, while somebody else has the one request that may run', () => {
  it('all finish by themselves in Uppy, which shows nothing of it', patience, async () => {
    const { server, wire, files } = await house(['--quota-running-requests', '1'], small)
    const release = await holdTheSlot(server)
    const uppy = await openUppy(wire.url)
    await uppy.choose(files)
    await uppy.start()
    // They have waited as long as the server lets them, and come back.
    await eventually(() => expect(refusals(server, 423)).toBeGreaterThanOrEqual(4))
    expect(await uppy.shown()).toEqual({ files: Array(4).fill('in progress'), status: 'Uploading', said: '' })
    release()
    await eventually(async () => expect((await uppy.shown()).files).toEqual(Array(4).fill('complete')))
    await expectContents(files, await uppy.urls())
    expect(answers(server, 'POST')).toEqual(Array(5).fill(201))
  })

  it(
    'fail in Uppy when its retryDelays are over, with the sentence; Retry finishes them',
    patience,
    async () => {
      const { server, wire, files } = await house(['--quota-running-requests', '1'], small)
      const release = await holdTheSlot(server)
      const uppy = await openUppy(wire.url, { retryDelays: [100] })
      await uppy.choose(files)
      await uppy.start()
      await eventually(async () => expect((await uppy.shown()).files).toEqual(Array(4).fill('failed')))
      expect(await uppy.shown()).toMatchObject({
        status: 'Upload failed',
        said: expect.stringMatching(/^Failed to upload \d\.bin/),
      })
      expect(await uppy.reasons()).toEqual(Array(4).fill(expect.stringContaining(oneAtATime)))
      release()
      for (let unfinished = 4; unfinished > 0; unfinished--) {
        await uppy.retry()
        await eventually(async () => expect((await uppy.shown()).files).not.toContain('in progress'))
        if (!(await uppy.shown()).files.includes('failed')) break
      }
      expect((await uppy.shown()).files).toEqual(Array(4).fill('complete'))
      await expectContents(files, await uppy.urls())
    },
  )

  it(
    'wait on the page, which says for what and counts right, and all finish by themselves',
    patience,
    async () => {
      const { server, wire, folder, files } = await house(['--quota-running-requests', '1'], small)
      const release = await holdTheSlot(server)
      const seen = await openUploadPage(wire.url, { profileDir: join(folder, 'browser') })
      onTestFinished(seen.close)
      await seen.choose(...files.map(({ path }) => path))
      await seen.start()
      const states = seen.page.locator('#uploads-list .upload-state')
      await eventually(async () =>
        expect(await states.allTextContents()).toEqual(Array(4).fill('Waiting, 0%')),
      )
      await eventually(() => expect(refusals(server, 423)).toBeGreaterThanOrEqual(8))
      expect(await seen.page.locator('#banner').textContent()).toBe(`Waiting: ${oneAtATime}`)
      release()
      await seen.finished(4)
      await eventually(async () => expect(await seen.page.locator('#banner').textContent()).toBe(''))
      await expectContents(files, await seen.page.evaluate(linksShown))
      expect(answers(server, 'POST')).toEqual(Array(5).fill(201))
      expect(seen.faults).toEqual([])
    },
  )
})

it('Uppy goes on by itself after creations that are refused with 429', patience, async () => {
  const { server, wire, files } = await house(['--quota-open-uploads', '1'])
  const uppy = await openUppy(wire.url)
  await uppy.choose(files)
  wire.bytesPerSecond = trickle
  await uppy.start()
  await eventually(() => expect(refusals(server, 429)).toBeGreaterThanOrEqual(3))
  expect(await uppy.shown()).toEqual({ files: Array(4).fill('in progress'), status: 'Uploading', said: '' })
  wire.bytesPerSecond = 0
  await eventually(async () => expect((await uppy.shown()).files).toEqual(Array(4).fill('complete')))
  await expectContents(files, await uppy.urls())
})

describe.runIf(mayMount())('a disk without room', () => {
  it(
    'is told in Uppy after its retryDelays; Retry finishes the file once there is room',
    patience,
    async () => {
      const { server, wire, files, ballast } = await fullHouse()
      const uppy = await openUppy(wire.url, { retryDelays: [0, 100] })
      await uppy.choose(files)
      await uppy.start()
      await eventually(async () => expect((await uppy.shown()).files).toEqual(['failed']))
      expect(refusals(server, 507)).toBe(3)
      expect(await uppy.shown()).toMatchObject({ status: 'Upload failed', said: 'Failed to upload 0.bin' })
      expect(await uppy.reasons()).toEqual([expect.stringContaining('there is no room for this on the disk')])
      await rm(ballast)
      await uppy.retry()
      await eventually(async () => expect((await uppy.shown()).files).toEqual(['complete']))
      await expectContents(files, await uppy.urls())
    },
  )

  it(
    'is told on the page, which does not try again; Retry goes on where it was once there is room',
    patience,
    async () => {
      const { server, wire, folder, files, ballast } = await fullHouse()
      await rm(ballast)
      const seen = await openUploadPage(wire.url, { profileDir: join(folder, 'browser') })
      onTestFinished(seen.close)
      await seen.choose(...files.map(({ path }) => path))
      wire.bytesPerSecond = MiB
      await seen.start()
      await eventually(() => expect(wire.sentBytes).toBeGreaterThan(2 * MiB))
      await writeFile(ballast, Buffer.alloc(6 * MiB))
      wire.cut()
      wire.bytesPerSecond = 0
      const sentence = '0.bin: there is no room for this on the disk; what came before is kept'
      await seen.page.locator('#dashboard .uppy-Informer', { hasText: sentence }).first().waitFor()
      expect(await seen.page.locator('#banner').textContent()).toBe('')
      await eventually(() => expect(refusals(server, 507)).toBe(1))
      await rm(ballast)
      await seen.page.locator('#dashboard .uppy-StatusBar-actionBtn--retry').click()
      await seen.finished(1)
      await expectContents(files, await seen.page.evaluate(linksShown))
      expect(seen.tusRequests.filter(({ offset }) => offset === 0)).toHaveLength(1)
      expect(answers(server, 'POST')).toEqual([201])
      // What Uppy itself writes into the console.
      expect(seen.faults).toEqual([expect.stringContaining('response code: 507')])
    },
  )
})

const small = { sizeMiB: 2 }

/** An append that goes on until it is released, or the test has finished. */
async function holdTheSlot(server: ServerProcess): Promise<() => void> {
  const tus = { 'Tus-Resumable': '1.0.0' }
  const created = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: { ...tus, 'Upload-Length': '2' },
  })
  const headers = {
    ...{ ...tus, 'Upload-Offset': '0', 'Content-Length': '2', Expect: '100-continue' },
    'Content-Type': 'application/offset+octet-stream',
  }
  const holding = httpRequest(created.headers.get('location')!, { method: 'PATCH', headers, agent: false })
  holding.on('error', () => undefined).flushHeaders()
  onTestFinished(() => void holding.destroy())
  await once(holding, 'continue')
  return () => void holding.end('ab')
}

type Files = { name: string; path: string; sha256: string }[]

/** A server behind a wire, and files to send there. */
async function house(args: string[], { dir, count = 4, sizeMiB = 12 }: HouseOptions = {}) {
  const folder = await temporaryFolder()
  const server = await startServer({ dir: dir ?? join(folder, 'uploads'), args })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startTcpProxy(server.port)
  onTestFinished(() => wire.close())
  const names = Array.from({ length: count }, (_, index) => `${index}.bin`)
  const files: Files = await Promise.all(
    names.map(async (name) => ({ name, ...(await randomFile(join(folder, name), name, sizeMiB * MiB)) })),
  )
  return { server, wire, folder, files }
}

interface HouseOptions {
  dir?: string
  count?: number
  sizeMiB?: number
}

/** Without the ballast there is room for the one file. */
async function fullHouse() {
  const disk = await mounted('size=32m')
  const ballast = join(disk, 'ballast')
  await writeFile(ballast, Buffer.alloc(8 * MiB))
  const options = { dir: join(disk, 'uploads'), count: 1, sizeMiB: 12 }
  return { ballast, ...(await house(['--reserve-free-space', '16MiB'], options)) }
}

async function openUppy(origin: string, options: { retryDelays?: number[] } = {}) {
  const site = await startClientPage(clientFile)
  const browser = await launchChromium({ profileDir: await temporaryFolder() })
  onTestFinished(browser.close)
  const page = browser.context.pages()[0] ?? (await browser.context.newPage())
  await page.goto(site)
  await page.evaluate(`startUppy(${JSON.stringify({ endpoint: `${origin}/files/`, ...options })})`)
  return {
    choose: (files: Files) =>
      page
        .locator('input.uppy-Dashboard-input')
        .first()
        .setInputFiles(files.map(({ path }) => path)),
    start: () => page.locator('.uppy-StatusBar-actionBtn--upload').click(),
    retry: () => page.locator('.uppy-StatusBar-actionBtn--retry').click(),
    shown: () => shownIn(page),
    urls: () => page.evaluate<Record<string, string>>('urls()'),
    /** What people read who press the question marks at the files. */
    reasons: () => page.evaluate<string[]>(reasonsShown),
  }
}

async function shownIn(page: Page) {
  const files = await page.evaluate<string[]>(statesShown)
  const status = await page.locator('.uppy-StatusBar-statusPrimary').first().textContent()
  const said = await page.locator('.uppy-Informer').first().innerText()
  return { files, status: textBefore(/[:?]/, status), said: textBefore(/[?]/, said) }
}

/** Uppy puts a percentage, or a question mark to press, behind what it says. */
function textBefore(mark: RegExp, text: string | null): string {
  return (text ?? '').split(mark)[0]!.trim()
}

async function expectContents(files: Files, urls: Record<string, string>): Promise<void> {
  for (const { name, sha256: expected } of files) {
    const answer = await fetch(urls[name]!)
    expect([name, await sha256(new Uint8Array(await answer.arrayBuffer()))]).toEqual([name, expected])
  }
}

function answers(server: ServerProcess, method: string): unknown[] {
  return server
    .logs()
    .filter((line) => line.method === method)
    .map(({ status }) => status)
}

function refusals(server: ServerProcess, status: number): number {
  return server.logs().filter((line) => line.status === status).length
}

// What follows runs in the browser.

const statesShown = `[...document.querySelectorAll('.uppy-Dashboard-Item')].map(({ classList }) => {
  if (classList.contains('is-error')) return 'failed'
  return classList.contains('is-complete') ? 'complete' : 'in progress'
})`

const reasonsShown = `[...document.querySelectorAll('.uppy-Dashboard-Item-errorDetails')].map((mark) =>
  mark.getAttribute('aria-label'))`

const linksShown = `Object.fromEntries(
  [...document.querySelectorAll('#uploads-list a')].map((link) => [link.textContent, link.href]))`
