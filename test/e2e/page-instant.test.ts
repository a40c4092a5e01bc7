/**
 * The page, with files that the server has already: real Chromium, the built server, and a wire that counts what is sent.
 */
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { describe, expect, it, onTestFinished } from 'vitest'
import { tokenFile } from '../access/support.ts'
import type { BrowserOptions } from '../support/chromium.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomFile, sha256 } from '../support/random-file.ts'
import { startServer } from '../support/server-process.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { eventually, openUploadPage, type UploadPage } from '../support/upload-page.ts'

const MiB = 1024 * 1024
const patience = { timeout: 90_000 }
const global = ['--instant-upload', 'global']
const workerFile = '**/assets/digest-worker-*.js'

it('sends nothing of 64 MiB that are there, and says so', patience, async () => {
  const { server, wire, open, file } = await house(global)
  const [first, second] = [await file('film.bin', 64 * MiB), await file('copy.bin', 64 * MiB)]
  const seen = await open()
  await upload(seen, first.path)
  expect(wire.sentBytes).toBeGreaterThan(64 * MiB)
  const before = wire.sentBytes
  await choose(seen, second.path)
  await seen.start()
  await seen.page.getByText('copy.bin was already there: nothing had to be sent').first().waitFor()
  await seen.finished(2)

  expect(wire.sentBytes - before).toBeLessThan(64 * 1024)
  expect(methodsOf(server)).toEqual(['POST', 'PATCH', 'POST', 'HEAD'])
  expect(await statesOf(seen)).toEqual(['copy.bin: Already there', 'film.bin: Finished'])
  expect(await seen.page.locator('#banner').textContent()).toBe('')
  const url = await seen.page.locator('#uploads-list a').first().getAttribute('href')
  expect(await sha256(new Uint8Array(await (await fetch(url!)).arrayBuffer()))).toBe(first.sha256)
  await seen.page.reload()
  await seen.ready()
  expect(await statesOf(seen), 'after a reload').toEqual(['copy.bin: Already there', 'film.bin: Finished'])
  expect([seen.faults, seen.failedRequests]).toEqual([[], []])
})

it('knows of several what is there, what is new and what is empty', patience, async () => {
  const { server, open, file } = await house(global)
  const old = await file('old.bin', 3 * MiB)
  const seen = await open()
  await upload(seen, old.path)
  const files = [
    await file('one.bin', 3 * MiB),
    await file('two.bin', 3 * MiB),
    await file('new.bin', 5 * MiB + 1),
    await file('empty.bin', 0),
  ]
  await choose(seen, ...files.map(({ path }) => path))
  await seen.start()
  await seen.page.getByText('2 files were already there').first().waitFor()
  await seen.finished(5)
  expect((await statesOf(seen)).sort()).toEqual([
    'empty.bin: Finished',
    'new.bin: Finished',
    'old.bin: Finished',
    'one.bin: Already there',
    'two.bin: Already there',
  ])
  expect(methodsOf(server).filter((method) => method === 'PATCH')).toHaveLength(2)
  expect([seen.faults, seen.failedRequests]).toEqual([[], []])
})

it('shows owners what they have, and nobody what others have', patience, async () => {
  const tokens = await tokenFile()
  const [ann, bob] = [await tokens.add({ owner: 'ann' }), await tokens.add({ owner: 'bob' })]
  const { open, file } = await house(['--auth', 'tokens', '--auth-tokens-file', tokens.path])
  const seen = await open((page) => signIn(page, ann))
  await upload(seen, (await file('plan.bin', MiB)).path)
  await upload(seen, (await file('again.bin', MiB)).path)
  expect(await statesOf(seen)).toEqual(['again.bin: Already there', 'plan.bin: Finished'])
  await seen.page.locator('#sign-out').click()
  await signIn(seen.page, bob)
  await seen.ready()
  await upload(seen, (await file('mine.bin', MiB)).path)
  expect(await statesOf(seen)).toEqual(['mine.bin: Finished'])
  expect(seen.faults).toEqual([])
})

describe('a file is uploaded as ever', () => {
  it.each([
    ['where nobody says who they are', []],
    ['where it is switched off', ['--instant-upload', 'off']],
  ])('%s, and no worker is fetched', patience, async (_, args) => {
    const { server, open, file } = await house(args)
    const seen = await open()
    const fetched = workersOf(seen)
    await upload(seen, (await file('one.bin', MiB)).path)
    await upload(seen, (await file('two.bin', MiB)).path)
    expect(fetched).toEqual([])
    expect(methodsOf(server)).toEqual(['POST', 'PATCH', 'POST', 'PATCH'])
    expect([seen.faults, seen.failedRequests]).toEqual([[], []])
  })

  it.each([
    ['can not be fetched', (page: Page) => page.route(workerFile, (route) => route.abort())],
    [
      'can not hash',
      (page: Page) =>
        page.route(workerFile, (route) =>
          route.fulfill({ contentType: 'text/javascript', body: 'throw new Error("no WebAssembly")' }),
        ),
    ],
    [
      'can not read the file',
      (page: Page) =>
        page.route(workerFile, (route) =>
          route.fulfill({
            contentType: 'text/javascript',
            body: 'onmessage = () => postMessage({ is: "unreadable" })',
          }),
        ),
    ],
  ])('when the worker %s', patience, async (_, break_) => {
    const { server, open, file } = await house(global)
    const seen = await open()
    const fetched = workersOf(seen)
    await break_(seen.page)
    await upload(seen, (await file('one.bin', MiB)).path)
    await upload(seen, (await file('two.bin', MiB)).path)
    expect(fetched.length).toBeGreaterThan(0)
    expect(methodsOf(server)).toEqual(['POST', 'PATCH', 'POST', 'PATCH'])
    expect(await statesOf(seen)).toEqual(['two.bin: Finished', 'one.bin: Finished'])
  })
})

describe('while a file is looked at', () => {
  it('it can be cancelled: the worker ends, and nothing is asked of the server', patience, async () => {
    const { server, open, file } = await house(global)
    const seen = await open()
    await holdHalfWay(seen)
    await seen.choose((await file('film.bin', 2 * MiB)).path)
    await seen.start()
    await seen.page.getByText('50% · Looking whether it is already there').waitFor()
    expect(seen.page.workers()).toHaveLength(1)
    // Uppy takes a file that is looked at for one that was not yet begun, and offers to upload it.
    expect(await seen.page.locator('#dashboard .uppy-StatusBar-actionBtn--upload').isVisible()).toBe(false)
    await seen.pressInStatusBar('Cancel')
    await seen.page.locator('#dashboard .uppy-Dashboard-AddFiles-title').waitFor()
    await eventually(() => expect(seen.page.workers()).toHaveLength(0))
    expect(methodsOf(server)).toEqual([])

    await seen.page.unroute(workerFile)
    await upload(seen, (await file('other.bin', 2 * MiB)).path)
    expect(methodsOf(server)).toEqual(['POST', 'PATCH'])
    expect(seen.faults).toEqual([])
  })

  it('one of two can be removed, and the other goes on', patience, async () => {
    const { server, open, file } = await house(global)
    const seen = await open()
    await holdHalfWay(seen, 1)
    await seen.choose((await file('film.bin', 2 * MiB)).path, (await file('plan.bin', MiB)).path)
    await seen.start()
    await seen.page.getByText('25% · Looking whether it is already there').waitFor()
    await seen.page.locator('#dashboard .uppy-Dashboard-Item-action--remove').first().click()
    await seen.finished(1)
    expect(await statesOf(seen)).toEqual(['plan.bin: Finished'])
    expect(methodsOf(server)).toEqual(['POST', 'PATCH'])
    expect(seen.faults).toEqual([])
  })

  it('a reload begins to look again, and then it goes on without a click', patience, async () => {
    const { server, open, file } = await house(global)
    const seen = await open()
    await upload(seen, (await file('film.bin', 2 * MiB)).path)
    await holdHalfWay(seen, 1)
    await choose(seen, (await file('copy.bin', 2 * MiB)).path)
    await seen.filesKept(1)
    await seen.start()
    await seen.page.getByText('Looking whether it is already there').waitFor()
    await eventually(async () => expect(await seen.page.evaluate(runsKept)).toBe(1))
    await seen.page.reload()
    await seen.ready()
    await seen.finished(2)
    expect(await statesOf(seen)).toEqual(['copy.bin: Already there', 'film.bin: Finished'])
    expect(methodsOf(server)).toEqual(['POST', 'PATCH', 'POST', 'HEAD'])
    expect(seen.faults).toEqual([])
  })
})

/** A worker that stays in the middle of its file, for so many times that it is fetched. */
async function holdHalfWay({ page }: UploadPage, times = Number.POSITIVE_INFINITY): Promise<void> {
  const body = 'onmessage = ({ data }) => postMessage({ is: "read", bytes: data.size / 2 })'
  let held = 0
  await page.route(workerFile, async (route) => {
    held += 1
    if (held <= times) await route.fulfill({ contentType: 'text/javascript', body })
    else await route.continue()
  })
}

/** How many begun uploads the browser has noted. */
const runsKept = `new Promise((resolve, reject) => {
  const opening = indexedDB.open('uppy-blobs')
  opening.onerror = reject
  opening.onsuccess = () => {
    const reading = opening.result.transaction('metadata').objectStore('metadata').getAll()
    reading.onsuccess = () => {
      opening.result.close()
      resolve(reading.result.map(({ metadata }) => metadata).join().split('"step":').length - 1)
    }
  }
})`

function workersOf({ page }: UploadPage): string[] {
  const fetched: string[] = []
  page.context().on('request', (request) => {
    if (request.url().includes('worker')) fetched.push(request.url())
  })
  return fetched
}

/** Beside what is finished there is a button first. */
async function choose(seen: UploadPage, ...paths: string[]): Promise<void> {
  const more = seen.page.locator('#dashboard .uppy-DashboardContent-addMore')
  if ((await more.count()) > 0) await more.click()
  await seen.choose(...paths)
}

async function upload(seen: UploadPage, path: string): Promise<void> {
  const rows = await seen.page.locator('#uploads-list tr').count()
  await choose(seen, path)
  await seen.start()
  await seen.finished(rows + 1)
  await eventually(async () =>
    expect(await seen.page.locator('#dashboard .uppy-StatusBar.is-complete').count()).toBe(1),
  )
}

async function statesOf({ page }: UploadPage): Promise<string[]> {
  const rows = await page.locator('#uploads-list tr').all()
  return Promise.all(
    rows.map(async (row) => {
      const [name, state] = ['.row-name', '.upload-state'].map((selector) =>
        row.locator(selector).textContent(),
      )
      return `${await name}: ${await state}`
    }),
  )
}

function methodsOf(server: { logs: () => Record<string, unknown>[] }): unknown[] {
  return server
    .logs()
    .filter(({ url }) => String(url).startsWith('/files'))
    .map(({ method }) => method)
}

async function signIn(page: Page, token: string): Promise<void> {
  await page.locator('#sign-in-token').fill(token)
  await page.locator('#sign-in-button').click()
  await page.locator('#account').waitFor()
}

/** Files of one size hold the same bytes, whatever they are called. */
async function house(args: string[]) {
  const folder = await temporaryFolder()
  const server = await startServer({ dir: join(folder, 'uploads'), args })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startTcpProxy(server.port)
  onTestFinished(() => wire.close())
  const profileDir = await temporaryFolder()
  const open = async (prepare?: (page: Page) => Promise<void>, look: Partial<BrowserOptions> = {}) => {
    const seen = await openUploadPage(`${wire.url}/`, { profileDir, ...look }, prepare)
    onTestFinished(seen.close)
    return seen
  }
  const file = (name: string, sizeBytes: number) => randomFile(join(folder, name), 'same', sizeBytes)
  return { server, wire, open, file }
}
