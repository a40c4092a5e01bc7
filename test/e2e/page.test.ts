/**
 * The page at `/` as people use it: real Chromium, the built server, a wire that is slow or cut. A wire that trickles
 * makes a middle of the upload that lasts as long as the test needs it.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { startBadGateway } from '../support/bad-gateway.ts'
import type { BrowserOptions } from '../support/chromium.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomFile, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { eventually, openUploadPage, type UploadPage } from '../support/upload-page.ts'

const MiB = 1024 * 1024
const size = 50 * MiB
const middle = 20 * MiB
/** So slow that nothing finishes; a chunk that waits at this pace is through within a second or two. */
const trickle = 64 * 1024
/** What may be on the wire when it is cut, and has to be sent again. */
const onTheWay = 12 * MiB

// Browsers on a machine that does other things too: this only ends what hangs.
const patience = { timeout: 90_000 }

it('finishes by itself when the server is killed and started again', patience, async () => {
  const { server, wire, open, fiftyMiB } = await house()
  const file = await fiftyMiB()
  const seen = await open()
  await seen.choose(file.path)
  await reachMiddle(wire, seen)
  const posts = requestsOf(server, 'POST')

  await server.kill('SIGKILL')
  const banner = seen.page.locator('#banner')
  await eventually(async () => expect(await banner.getAttribute('data-trouble')).toBe('unreachable'))
  expect(await banner.textContent()).toBe('Connection lost; trying again...')
  await server.restart()
  wire.bytesPerSecond = 0
  await seen.finished(1)

  await eventually(async () => expect(await banner.textContent()).toBe(''))
  expect(await banner.getAttribute('data-trouble')).toBe('')
  expect(posts + requestsOf(server, 'POST')).toBe(1)
  expect(await sha256OfLink(seen)).toBe(file.sha256)
  expect(seen.faults).toEqual([])
})

it('goes on without a click after a reload, where it was', patience, async () => {
  const { server, wire, open, fiftyMiB } = await house()
  const file = await fiftyMiB()
  const seen = await open()
  await seen.choose(file.path)
  await seen.filesKept(1)
  await reachMiddle(wire, seen)
  await seen.urlsKept(1)

  await seen.page.reload()
  await seen.ready()
  wire.bytesPerSecond = 0
  await seen.finished(1)

  expect(wire.sentBytes).toBeLessThan(size + onTheWay)
  expect(await sha256OfLink(seen)).toBe(file.sha256)
  expect(requestsOf(server, 'POST')).toBe(1)
  expect(seen.faults).toEqual([])
})

it('goes on without a click when the browser was killed', patience, async () => {
  const { server, wire, open, fiftyMiB } = await house()
  const file = await fiftyMiB()
  const before = await open()
  await before.choose(file.path)
  await before.filesKept(1)
  await reachMiddle(wire, before)
  await before.urlsKept(1)

  await before.kill()
  wire.bytesPerSecond = 0
  const seen = await open()
  await seen.finished(1)

  expect(wire.sentBytes).toBeLessThan(size + onTheWay)
  expect(await sha256OfLink(seen)).toBe(file.sha256)
  expect(requestsOf(server, 'POST')).toBe(1)
  expect(seen.faults).toEqual([])
})

it('asks for a file that the browser could not keep, and goes on where it was', patience, async () => {
  const { server, wire, open, fiftyMiB } = await house()
  const file = await fiftyMiB()
  const seen = await open()
  await seen.choose(file.path)
  await seen.filesKept(1)
  await reachMiddle(wire, seen)
  await seen.urlsKept(1)
  await seen.forgetKeptFiles()

  await seen.page.reload()
  await seen.ready()
  await seen.page.locator('#waiting').waitFor()
  expect(await seen.page.locator('#waiting-list li .row-name').allTextContents()).toEqual(['fifty.bin'])
  wire.bytesPerSecond = 0
  await seen.page.locator('#waiting-input').setInputFiles(file.path)
  await seen.finished(1)

  expect(await seen.page.locator('#waiting').isHidden()).toBe(true)
  expect(lastOffset(seen)).toBeGreaterThan(middle / 2)
  expect(wire.sentBytes).toBeLessThan(size + onTheWay)
  expect(requestsOf(server, 'POST')).toBe(1)
  expect(await sha256OfLink(seen)).toBe(file.sha256)
  expect(seen.faults).toEqual([])
})

it('deletes the upload on the server when people forget a file that it asks for', patience, async () => {
  const { server, wire, open, folder, dir } = await house()
  const empty = await filesIn(dir)
  const [path] = await filesOf(folder, 1)
  const seen = await open()
  await seen.choose(path!)
  await seen.filesKept(1)
  wire.bytesPerSecond = trickle
  await seen.start()
  await seen.urlsKept(1)
  await seen.forgetKeptFiles()
  await seen.page.reload()
  wire.bytesPerSecond = 0

  await seen.page.locator('#waiting-list button').click()
  await eventually(() => expect(answersOf(server, 'DELETE')).toEqual([204]))
  expect(await seen.page.locator('#waiting').isHidden()).toBe(true)
  expect(await filesIn(dir)).toEqual(empty)
  expect(seen.faults).toEqual([])
})

it('does not begin again when a gateway answers in place of the server', patience, async () => {
  const { server, wire, open, fiftyMiB } = await house()
  const file = await fiftyMiB()
  const gateway = await startBadGateway(server.port)
  onTestFinished(gateway.close)
  wire.target = gateway.port
  const seen = await open()
  await seen.choose(file.path)
  await reachMiddle(wire, seen)

  gateway.headStatuses.push(502, 429)
  wire.cut()
  await eventually(async () =>
    expect(await seen.page.locator('#banner').getAttribute('data-trouble')).toBe('busy'),
  )
  wire.bytesPerSecond = 0
  await seen.finished(1)

  expect(gateway.headStatuses).toEqual([])
  expect(requestsOf(server, 'POST')).toBe(1)
  expect(seen.tusRequests.filter(({ offset }) => offset === 0)).toHaveLength(1)
  expect(lastOffset(seen)).toBeGreaterThan(middle / 2)
  expect(await sha256OfLink(seen)).toBe(file.sha256)
  expect(seen.faults).toEqual([])
})

describe('several files at once', () => {
  it('pause together and go on together, and each link has its own bytes and name', patience, async () => {
    const { server, wire, open, folder } = await house()
    const names = ['plan.txt', 'Zürich – Überblick #1 & 2.bin', 'empty.bin', "it's 100% (new).zip"]
    const sizes = [12 * MiB, 12 * MiB + 1, 0, 12 * MiB - 1]
    const files = await Promise.all(
      names.map((name, index) => randomFile(join(folder, name), name, sizes[index]!)),
    )
    const seen = await open()
    await seen.choose(...files.map(({ path }) => path))
    wire.bytesPerSecond = trickle
    await seen.start()
    await eventually(() => expect(startedPatches(seen)).toBe(3))
    // A creation that is paused before its answer came is sent again; the empty one has no PATCH that tells.
    await seen.finished(1)

    await seen.pressInStatusBar('Pause')
    wire.bytesPerSecond = 0
    await eventually(() => expect(requestsOf(server, 'PATCH')).toBe(3))
    expect(await seen.page.locator('#uploads-list tr[data-state=finished]').count()).toBeLessThan(4)
    await seen.pressInStatusBar('Resume')
    await seen.finished(4)

    expect(requestsOf(server, 'POST')).toBe(4)
    for (const [index, name] of names.entries()) {
      expect(await downloadByLink(seen, name)).toEqual({ name, sha256: files[index]!.sha256 })
    }
    expect(seen.faults).toEqual([])
  })

  it('are deleted on the server when they are cancelled', patience, async () => {
    const { server, wire, open, folder, dir } = await house()
    const before = await filesIn(dir)
    const seen = await open()
    await seen.choose(...(await filesOf(folder, 3)))
    wire.bytesPerSecond = trickle
    await seen.start()
    await eventually(() => expect(startedPatches(seen)).toBe(3))
    await eventually(async () => expect((await filesIn(dir)).length).toBeGreaterThan(before.length))

    await seen.pressInStatusBar('Cancel')
    await seen.page.locator('#dashboard .uppy-Dashboard-AddFiles-title').waitFor()
    wire.bytesPerSecond = 0

    await eventually(() => expect(answersOf(server, 'DELETE')).toEqual([204, 204, 204]))
    expect(await filesIn(dir)).toEqual(before)
    expect(await seen.page.locator('#banner').textContent()).toBe('')
    expect(seen.faults).toEqual([])
    expect(seen.failedRequests).toEqual([])
  })
})

it('uploads again after all was cancelled while the server was away', patience, async () => {
  const { server, wire, open, folder, dir } = await house()
  const empty = await filesIn(dir)
  const files = await filesOf(folder, 5)
  const seen = await open()
  await seen.choose(...files.slice(0, 4))
  wire.bytesPerSecond = trickle
  await seen.start()
  await eventually(() => expect(startedPatches(seen)).toBe(4))
  await server.kill('SIGKILL')
  await eventually(async () =>
    expect(await seen.page.locator('#banner').getAttribute('data-trouble')).toBe('unreachable'),
  )

  await seen.pressInStatusBar('Cancel')
  await eventually(async () => expect(await seen.page.locator('#banner').textContent()).toBe(''))
  wire.bytesPerSecond = 0
  await server.restart()
  await eventually(() => expect(answersOf(server, 'DELETE')).toEqual([204, 204, 204, 204]))
  expect(await filesIn(dir)).toEqual(empty)
  await seen.choose(files[4]!)
  await seen.start()
  await seen.finished(1)
  expect(seen.faults).toEqual([])
})

describe('the page', () => {
  it.each([
    ['a phone in the dark', { viewport: { width: 390, height: 844 }, colorScheme: 'dark' as const }],
    [
      'a large screen in the light',
      { viewport: { width: 1280, height: 800 }, colorScheme: 'light' as const },
    ],
  ])('fits %s, empty, at work and finished, without a word of complaint', patience, async (_, look) => {
    const { wire, open, folder } = await house()
    const name = `${'a-name-without-a-place-to-break-it-'.repeat(4)}.bin`
    const { path } = await randomFile(join(folder, name), name, 2 * MiB)
    const seen = await open(look)
    await expectFits(seen, look)
    await seen.choose(path)
    await expectFits(seen, look)
    wire.bytesPerSecond = trickle
    await seen.start()
    await seen.page.locator('#dashboard .uppy-StatusBar-actions button[aria-label="Pause"]').waitFor()
    await expectFits(seen, look)
    wire.bytesPerSecond = 0
    await seen.finished(1)
    await expectFits(seen, look)

    expect(seen.faults).toEqual([])
    expect(seen.failedRequests).toEqual([])
  })

  it('cancels without a complaint where the server lets nobody delete', patience, async () => {
    const { server, wire, open, folder } = await house(['--disable-termination'])
    const seen = await open()
    const files = await filesOf(folder, 3)
    await seen.choose(...files)
    wire.bytesPerSecond = trickle
    await seen.start()
    await eventually(() => expect(startedPatches(seen)).toBe(3))
    await seen.pressInStatusBar('Cancel')
    wire.bytesPerSecond = 0
    await eventually(() => expect(requestsOf(server, 'PATCH')).toBe(3))

    // Still of use, and a cancelled file that is chosen again is a new upload.
    await seen.choose(files[0]!)
    await seen.start()
    await seen.finished(1)
    expect(answersOf(server, 'DELETE')).toEqual([])
    expect(requestsOf(server, 'POST')).toBe(4)
    expect(seen.faults).toEqual([])
    expect(seen.failedRequests).toEqual([])
  })

  it(
    'counts in a table what the server has, also after a reload, until there is a link',
    patience,
    async () => {
      const { server, wire, open, folder } = await house()
      const { path } = await randomFile(join(folder, 'film.bin'), 'film', 24 * MiB)
      const seen = await open()
      await seen.choose(path)
      await seen.filesKept(1)
      wire.bytesPerSecond = 4 * MiB
      await seen.start()
      const row = seen.page.locator('#uploads-list tr')
      const bar = seen.page.getByRole('progressbar', { name: 'Progress of film.bin' })
      const shown = async () => Number(await bar.getAttribute('value'))
      await eventually(async () => expect(await shown()).toBeGreaterThan(10))
      expect(await row.getAttribute('data-state')).toBe('open')
      expect(await row.locator('.upload-state').textContent()).toMatch(/^Uploading, \d+%$/)
      wire.bytesPerSecond = trickle
      await seen.urlsKept(1)
      await seen.page.reload()
      await seen.ready()
      await eventually(async () => expect(await shown()).toBeGreaterThan(10))
      expect(await seen.page.getByRole('row').count()).toBe(2)
      expect(await seen.page.getByRole('columnheader').allTextContents()).toEqual([
        'File',
        'Size',
        'State',
        'Link',
      ])
      wire.bytesPerSecond = 0
      await seen.finished(1)
      expect(await row.locator('.upload-state').textContent()).toBe('Finished')
      expect(await bar.count()).toBe(0)
      expect(requestsOf(server, 'POST')).toBe(1)
      expect(seen.faults).toEqual([])
    },
  )

  it('follows in its table what another server is sent, and says when it is gone', patience, async () => {
    const { server, wire, open, folder } = await house()
    const files = await filesOf(folder, 2)
    const seen = await open()
    await seen.choose(...files)
    wire.bytesPerSecond = trickle
    await seen.start()
    await seen.urlsKept(2)
    await seen.forgetKeptFiles()
    await seen.page.reload()
    await seen.page.locator('#waiting').waitFor()
    const rows = seen.page.locator('#uploads-list tr')
    expect(await rows.count()).toBe(2)
    wire.bytesPerSecond = 0

    // Past the page, and past the wire that it comes by.
    const [one, other] = await Promise.all(
      [0, 1].map(async (n) => new URL((await rows.nth(n).getAttribute('data-url'))!).pathname),
    )
    const tus = { 'Tus-Resumable': '1.0.0' }
    const head = await fetch(server.url + one, { method: 'HEAD', headers: tus })
    const offset = Number(head.headers.get('upload-offset'))
    const patched = await fetch(server.url + one, {
      method: 'PATCH',
      headers: { ...tus, 'Content-Type': 'application/offset+octet-stream', 'Upload-Offset': String(offset) },
      body: Buffer.alloc(12 * MiB - offset),
    })
    expect(patched.status).toBe(204)
    await seen.finished(1)
    await fetch(server.url + other, { method: 'DELETE', headers: tus })
    await eventually(async () =>
      expect(await rows.locator('.upload-state').allTextContents()).toContain('No longer on the server'),
    )
    await seen.page.locator('#uploads-clear').click()
    expect(await rows.count()).toBe(0)
    expect(await seen.page.evaluate('document.activeElement.id')).toBe('uploads-title')
    expect(seen.faults).toEqual([])
  })

  it('shows in its table what was sent where the server does not tell', patience, async () => {
    const { wire, open, folder } = await house(['--uploads-api', 'off'])
    const { path } = await randomFile(join(folder, 'film.bin'), 'film', 24 * MiB)
    const seen = await open()
    await seen.choose(path)
    wire.bytesPerSecond = 8 * MiB
    await seen.start()
    const bar = seen.page.getByRole('progressbar', { name: 'Progress of film.bin' })
    await eventually(async () => expect(Number(await bar.getAttribute('value'))).toBeGreaterThan(10))
    wire.bytesPerSecond = 0
    await seen.finished(1)
    expect([seen.faults, seen.failedRequests]).toEqual([[], []])
  })

  it('says in a sentence for people why the server refuses a file', patience, async () => {
    const { wire, open, folder } = await house()
    const { path } = await randomFile(join(folder, 'plan.txt'), 'plan', MiB)
    const seen = await open()
    // Another server by now, which takes less than the page was told.
    const strict = await startServer({ dir: await temporaryFolder(), args: ['--max-size', '1000'] })
    onTestFinished(async () => void (await strict.stop()))
    wire.target = strict.port
    wire.cut()
    await seen.choose(path)
    await seen.start()
    const sentence = 'plan.txt: this is more than the largest upload that is accepted here, 1000 bytes'
    await seen.page.locator('#dashboard', { hasText: sentence }).waitFor()
    expect(await seen.page.locator('#dashboard', { hasText: 'too-large' }).count()).toBe(0)
    expect(answersOf(strict, 'POST')).toEqual([413])
  })

  it('lists finished uploads without links where the server serves no downloads', patience, async () => {
    const { open, folder } = await house(['--disable-download'])
    const { path } = await randomFile(join(folder, 'plan.txt'), 'plan', MiB)
    const seen = await open()
    await seen.choose(path)
    await seen.start()
    await seen.finished(1)

    const row = seen.page.locator('#uploads-list tr')
    expect(await row.locator('.row-name').textContent()).toBe('plan.txt')
    expect(await row.locator('a, button').count()).toBe(0)
    expect(seen.faults).toEqual([])
    expect(seen.failedRequests).toEqual([])
  })
})

/** A server behind a wire; `open` opens the page in the one browser profile of the test. */
async function house(args: string[] = []) {
  const folder = await temporaryFolder()
  const dir = join(folder, 'uploads')
  const server = await startServer({ dir, args })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startTcpProxy(server.port)
  onTestFinished(() => wire.close())
  const profileDir = await temporaryFolder()
  const open = async (look: Omit<BrowserOptions, 'profileDir'> = {}) => {
    const seen = await openUploadPage(`${wire.url}/`, { profileDir, ...look })
    onTestFinished(seen.close)
    return seen
  }
  return {
    server,
    wire,
    open,
    folder,
    dir,
    fiftyMiB: () => randomFile(join(folder, 'fifty.bin'), 'fifty', size),
  }
}

/** Starts the upload that was chosen, and holds it in its middle. */
async function reachMiddle(wire: TcpProxy, seen: UploadPage): Promise<void> {
  wire.bytesPerSecond = 25 * MiB
  await seen.start()
  await eventually(() => expect(wire.sentBytes).toBeGreaterThan(middle))
  wire.bytesPerSecond = trickle
}

async function filesOf(folder: string, count: number): Promise<string[]> {
  const names = Array.from({ length: count }, (_, index) => `${index}.bin`)
  const files = await Promise.all(names.map((name) => randomFile(join(folder, name), name, 12 * MiB)))
  return files.map(({ path }) => path)
}

function requestsOf(server: ServerProcess, method: string): number {
  return answersOf(server, method).length
}

function answersOf(server: ServerProcess, method: string): unknown[] {
  return server
    .logs()
    .filter((line) => line.method === method)
    .map(({ status }) => status)
}

function startedPatches(seen: UploadPage): number {
  return seen.tusRequests.filter(({ method }) => method === 'PATCH').length
}

function lastOffset(seen: UploadPage): number | undefined {
  return seen.tusRequests.findLast(({ method }) => method === 'PATCH')?.offset
}

async function sha256OfLink(seen: UploadPage): Promise<string> {
  const url = await seen.page.locator('#uploads-list a').first().getAttribute('href')
  const answer = await fetch(String(url))
  expect(answer.status).toBe(200)
  return sha256(new Uint8Array(await answer.arrayBuffer()))
}

async function downloadByLink(seen: UploadPage, name: string): Promise<{ name: string; sha256: string }> {
  const downloading = seen.page.waitForEvent('download')
  await seen.page.locator('#uploads-list a', { hasText: name }).click()
  const download = await downloading
  return { name: download.suggestedFilename(), sha256: await sha256(await readFile(await download.path())) }
}

/** Uploads and what belongs to them; not the embedded records, whose files grow and stay. */
async function filesIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true })
  return entries.filter((name) => !name.startsWith('.')).sort()
}

/** Nothing is wider than the screen, and what the page is for can be reached. */
async function expectFits(seen: UploadPage, { viewport }: { viewport: { width: number } }): Promise<void> {
  const width = await seen.page.evaluate('document.documentElement.scrollWidth')
  expect(width).toBeLessThanOrEqual(viewport.width)
  for (const box of await Promise.all(
    ['.head', '#dashboard', '#uploads'].map((selector) => seen.page.locator(selector).boundingBox()),
  )) {
    expect(box).not.toBeNull()
    expect(box!.x).toBeGreaterThanOrEqual(0)
    expect(box!.x + box!.width).toBeLessThanOrEqual(viewport.width)
  }
}
