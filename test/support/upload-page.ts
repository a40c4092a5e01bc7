// The page of a Tidemark server in a real browser, with everything that went wrong in it written down: errors of
// scripts, rejections that nobody handled, violations of its security policy, requests that left the server.

import type { Page } from 'playwright-core'
import { expect, vi } from 'vitest'
import { type BrowserOptions, launchChromium } from './chromium.ts'

/** Asks until it is so. The time is no promise of anything; it ends what hangs. */
export async function eventually(assertion: () => Promise<void> | void): Promise<void> {
  await vi.waitFor(assertion, { timeout: 30_000, interval: 50 })
}

type PageRequest = { method: string; url: string; offset: number | undefined }

export type UploadPage = {
  page: Page
  /** What a person would see in the console, but for requests that failed. */
  faults: string[]
  /** Answers and connections that failed; the browser itself writes these into the console. */
  failedRequests: string[]
  /** Requests to the tus endpoint, in their order. */
  tusRequests: PageRequest[]
  /** Chooses files in the dashboard; resolves when it shows them. */
  choose: (...paths: string[]) => Promise<void>
  /** Presses Upload. */
  start: () => Promise<void>
  pressInStatusBar: (name: 'Pause' | 'Resume' | 'Cancel') => Promise<void>
  /** Resolves when this many finished uploads are listed. */
  finished: (count: number) => Promise<void>
  /** Resolves when the browser keeps this many files, so that a reload finds them. */
  filesKept: (count: number) => Promise<void>
  /** Resolves when the browser has noted the URLs of this many uploads. */
  urlsKept: (count: number) => Promise<void>
  forgetKeptFiles: () => Promise<void>
  ready: () => Promise<void>
  close: () => Promise<void>
  kill: () => Promise<void>
}

/** Opens the page at `url` and waits until it is ready. */
export async function openUploadPage(
  url: string,
  options: BrowserOptions,
  /** What has to be done before the page is ready: to sign in. */
  prepare: (page: Page) => Promise<void> = async () => undefined,
): Promise<UploadPage> {
  const { context, close, kill } = await launchChromium(options)
  const page = context.pages()[0] ?? (await context.newPage())
  const faults: string[] = []
  const failedRequests: string[] = []
  const tusRequests: PageRequest[] = []
  await page.addInitScript(reportViolations)
  page.on('pageerror', (error) => faults.push(`uncaught: ${error}`))
  page.on('console', (message) => {
    if (message.type() !== 'error' && message.type() !== 'warning') return
    const isOfRequest = message.text().startsWith('Failed to load resource')
    ;(isOfRequest ? failedRequests : faults).push(message.text())
  })
  page.on('request', (request) => {
    const { protocol, origin, pathname } = new URL(request.url())
    const isLocal = protocol === 'data:' || protocol === 'blob:'
    if (!isLocal && origin !== new URL(url).origin) faults.push(`request to ${request.url()}`)
    if (!pathname.startsWith('/files')) return
    const offset = request.headers()['upload-offset']
    tusRequests.push({
      method: request.method(),
      url: request.url(),
      offset: offset === undefined ? undefined : Number(offset),
    })
  })
  const count = (selector: string, wanted: number) =>
    eventually(async () => expect(await page.locator(selector).count()).toBe(wanted))
  const kept = async () => (await page.evaluate(countKept)) as { files: number; urls: number }
  const ready = () => page.locator('#dashboard .uppy-Dashboard--isInnerWrapVisible').waitFor()

  await page.goto(url)
  await prepare(page)
  await ready()
  return {
    page,
    faults,
    failedRequests,
    tusRequests,
    ready,
    close,
    kill,
    async choose(...paths) {
      const before = await page.locator('#dashboard .uppy-Dashboard-Item').count()
      await page.locator('#dashboard input.uppy-Dashboard-input').first().setInputFiles(paths)
      await count('#dashboard .uppy-Dashboard-Item', before + paths.length)
    },
    start: () => page.locator('#dashboard .uppy-StatusBar-actionBtn--upload').click(),
    pressInStatusBar: (name) =>
      page.locator(`#dashboard .uppy-StatusBar-actions button[aria-label="${name}"]`).click(),
    finished: (wanted) => count('#uploads-list tr[data-state=finished]', wanted),
    filesKept: (wanted) => eventually(async () => expect((await kept()).files).toBe(wanted)),
    urlsKept: (wanted) => eventually(async () => expect((await kept()).urls).toBe(wanted)),
    forgetKeptFiles: () => page.evaluate(forgetKept),
  }
}

// What follows runs in the browser.

const reportViolations = `document.addEventListener('securitypolicyviolation', (event) => {
  console.error('violates ' + event.violatedDirective + ': ' + event.blockedURI)
})`

/** In the words of Golden Retriever's database: how many files are kept, and how many URLs of uploads are noted. */
const countKept = `new Promise((resolve, reject) => {
  const opening = indexedDB.open('uppy-blobs')
  opening.onerror = reject
  opening.onsuccess = () => {
    const transaction = opening.result.transaction(['files', 'metadata'])
    const counting = transaction.objectStore('files').count()
    const reading = transaction.objectStore('metadata').getAll()
    transaction.oncomplete = () => {
      opening.result.close()
      const notes = reading.result.map(({ metadata }) => metadata).join()
      resolve({ files: counting.result, urls: notes.split('"uploadUrl":"').length - 1 })
    }
  }
})`

const forgetKept = `new Promise((resolve, reject) => {
  const opening = indexedDB.open('uppy-blobs')
  opening.onerror = reject
  opening.onsuccess = () => {
    const transaction = opening.result.transaction('files', 'readwrite')
    transaction.objectStore('files').clear()
    transaction.oncomplete = () => {
      opening.result.close()
      resolve()
    }
  }
})`
