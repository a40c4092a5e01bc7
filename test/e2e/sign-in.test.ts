/** The page on a server that wants to know who uploads: real Chromium, the built server, tokens made by the command. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { expect, it, onTestFinished } from 'vitest'
import { TokenFile, tokenFile } from '../access/support.ts'
import type { BrowserOptions } from '../support/chromium.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomFile, sha256 } from '../support/random-file.ts'
import { startServer } from '../support/server-process.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { eventually, openUploadPage } from '../support/upload-page.ts'

const MiB = 1024 * 1024
const patience = { timeout: 90_000 }

it(
  'asks for a token, sends it with everything, downloads, and forgets it on signing out',
  patience,
  async () => {
    const { server, wire, open, file, ann } = await house()
    const small = await randomFile(join(await temporaryFolder(), 'small.bin'), 'small', 3 * MiB)
    const seen = await open(async (page) => {
      const card = page.locator('#sign-in')
      await card.waitFor()
      expect(await page.locator('#dashboard').isVisible()).toBe(false)
      await page.locator('#sign-in-token').fill(`${ann}x`)
      await page.keyboard.press('Enter')
      await eventually(async () =>
        expect(await page.locator('#sign-in-message').textContent()).toContain('not accepted'),
      )
      await signIn(page, ann)
    })
    const { page } = seen
    expect(await page.locator('#account-owner').textContent()).toBe('ann')
    await seen.choose(small.path)
    await seen.start()
    await seen.finished(1)

    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.locator('#uploads-list a').click(),
    ])
    expect(await sha256(await readFile(await download.path()))).toBe(small.sha256)
    expect(download.suggestedFilename()).toBe('small.bin')

    await page.reload()
    await seen.ready()
    expect(await page.locator('#uploads-list tr').count(), 'in this tab, still signed in').toBe(1)
    await page.locator('#sign-out').click()
    await page.locator('#sign-in').waitFor()
    expect(await page.locator('#uploads-list').isVisible()).toBe(false)
    expect(await page.evaluate('JSON.stringify([{ ...localStorage }, { ...sessionStorage }])')).not.toContain(
      'tm_',
    )

    // Somebody else, in the same browser, sees nothing of it.
    await signIn(page, await file.add({ owner: 'bob' }))
    await seen.ready()
    expect(await page.locator('#uploads-list tr').count()).toBe(0)
    expect(seen.faults).toEqual([])
    expect(server.output()).not.toContain(ann.slice(16))
    expect(server.output()).not.toMatch(/ticket=[^&\s"]/)
    expect(server.logs().filter(({ owner }) => owner === 'ann').length).toBeGreaterThan(3)
    wire.bytesPerSecond = 0
  },
)

it(
  'stays signed in on this device when people wish so, and another tab is signed in too',
  patience,
  async () => {
    const { open, ann } = await house()
    const seen = await open((page) => signIn(page, ann, true))
    const tab = await seen.page.context().newPage()
    await tab.goto(seen.page.url())
    await tab.locator('#account-owner').getByText('ann').waitFor()
    expect(seen.faults).toEqual([])
  },
)

it('asks again when a token is revoked in the middle, and goes on where it stopped', patience, async () => {
  const { server, wire, open, file, ann } = await house()
  const large = await randomFile(join(await temporaryFolder(), 'large.bin'), 'large', 40 * MiB)
  const seen = await open((page) => signIn(page, ann))
  await seen.choose(large.path)
  wire.bytesPerSecond = 20 * MiB
  await seen.start()
  await eventually(() => expect(wire.sentBytes).toBeGreaterThan(12 * MiB))
  wire.bytesPerSecond = 4 * MiB
  await file.revoke(ann)
  await seen.page.locator('#sign-in').waitFor()
  expect(await seen.page.locator('#sign-in-message').textContent()).toContain('goes on where it stopped')
  expect(await seen.page.locator('#dashboard').isVisible()).toBe(true)

  wire.bytesPerSecond = 0
  await signIn(seen.page, await file.add({ owner: 'ann' }))
  await seen.finished(1)
  const posts = server
    .logs()
    .filter(({ method, url }) => method === 'POST' && String(url).startsWith('/files'))
  expect(posts.map(({ status }) => status)).toEqual([201])
  const offsets = seen.tusRequests.filter(({ method }) => method === 'PATCH').map(({ offset }) => offset)
  expect(offsets, 'what was kept is not sent again').toEqual([
    0,
    expect.toSatisfy((at: number) => at > 8 * MiB),
  ])
  // Uppy itself writes the answer into the console.
  expect(seen.faults.filter((fault) => !fault.includes('response code: 401'))).toEqual([])
})

it('says what a token may not do before a file is chosen', patience, async () => {
  const { open, file, ann } = await house()
  const reader = await file.add({ owner: 'ann', readOnly: true })
  const seen = await open((page) => signIn(page, reader))
  expect(await seen.page.locator('#no-uploads').isVisible()).toBe(true)
  await seen.page.locator('#sign-out').click()
  await signIn(seen.page, await file.add({ owner: 'ann', maxSize: '2MiB', types: ['image/*'] }))
  await seen.ready()
  expect(await seen.page.locator('#no-uploads').isVisible()).toBe(false)
  expect(await seen.page.locator('.uppy-Dashboard-note').textContent()).toBe(
    'Up to 2 MB per file; only image/*',
  )
  expect(ann).toMatch(/^tm_/)
})

for (const [name, viewport] of [
  ['a phone', { width: 360, height: 740 }],
  ['a desktop', { width: 1280, height: 800 }],
] as const)
  it(`fits on ${name}, in both colour schemes`, patience, async () => {
    const { open, ann, file } = await house()
    const long = await file.add({ owner: `somebody.with.a.long.name@${'department.'.repeat(5)}example.com` })
    for (const colorScheme of ['light', 'dark'] as const) {
      const seen = await open((page) => fits(page, viewport.width).then(() => signIn(page, long)), {
        viewport,
        colorScheme,
      })
      await fits(seen.page, viewport.width)
      await seen.page.locator('#sign-out').click()
      await signIn(seen.page, ann)
      await seen.close()
    }
  })

async function fits(page: Page, width: number): Promise<void> {
  await page.locator('#sign-in, #account:not([hidden])').first().waitFor()
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width)
}

async function signIn(page: Page, token: string, stay = false): Promise<void> {
  await page.locator('#sign-in').waitFor()
  await page.locator('#sign-in-token').fill(token)
  if (stay) await page.locator('#sign-in-stay').check()
  await page.locator('#sign-in-button').click()
  await page.locator('#sign-in').waitFor({ state: 'hidden' })
}

async function house() {
  const file = await tokenFile()
  const ann = await file.add({ owner: 'ann' })
  const dir = join(await temporaryFolder(), 'uploads')
  const args = ['--auth', 'tokens', '--auth-tokens-file', file.path]
  const server = await startServer({ dir, args })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startTcpProxy(server.port)
  onTestFinished(() => wire.close())
  const open = async (
    prepare: (page: Page) => Promise<void>,
    look: Omit<BrowserOptions, 'profileDir'> = {},
  ) => {
    const seen = await openUploadPage(
      `${wire.url}/`,
      { profileDir: await temporaryFolder(), ...look },
      prepare,
    )
    onTestFinished(seen.close)
    return seen
  }
  return { server, wire, open, file: new TokenFile(file.path), ann }
}
