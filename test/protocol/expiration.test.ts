// tus 1.0.0, expiration. Row numbers are those of docs/protocol.md. Only the clock of the dates is handed in: timers run.

import { readdir } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Answer, bytesAt, bytesType, pathOf, startSite } from './exchange.ts'

const start = Date.UTC(2031, 4, 6, 7, 8, 9)
const hourMs = 3_600_000

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: start })
})
afterEach(() => {
  vi.useRealTimers()
})

function at(ms: number): void {
  vi.setSystemTime(start + ms)
}

function expiryOf({ headers }: Answer): string | undefined {
  return headers['upload-expires']
}

function imfFixdate(ms: number): string {
  return new Date(start + ms).toUTCString()
}

describe('Upload-Expires', () => {
  it('row 30: sliding -> on creation, PATCH and HEAD, counted from the last byte', async () => {
    const site = await startSite({ expiry: { afterMs: hourMs, mode: 'sliding' } })
    const created = await site.send('POST', '/files', { 'Upload-Length': 6 })
    expect(expiryOf(created)).toBe('Tue, 06 May 2031 08:08:09 GMT')
    const url = pathOf(created)
    expect(expiryOf(await site.head(url))).toBe(imfFixdate(hourMs))
    at(10_000)
    expect(expiryOf(await site.append(url, 0, 'abc'))).toBe(imfFixdate(hourMs + 10_000))
    at(20_000)
    expect(expiryOf(await site.head(url))).toBe(imfFixdate(hourMs + 10_000))
  })

  it('row 30: absolute -> on creation, PATCH and HEAD, counted from the creation', async () => {
    const site = await startSite({ expiry: { afterMs: hourMs, mode: 'absolute' } })
    const created = await site.send('POST', '/files', { 'Upload-Length': 6, ...bytesType }, 'a')
    const url = pathOf(created)
    at(10_000)
    const answers = [created, await site.append(url, 1, 'bc'), await site.head(url)]
    expect(answers.map(expiryOf)).toEqual(answers.map(() => imfFixdate(hourMs)))
  })

  it('row 30: without expiry -> no Upload-Expires', async () => {
    const site = await startSite()
    const created = await site.send('POST', '/files', { 'Upload-Length': 6 })
    const url = pathOf(created)
    const answers = [created, await site.append(url, 0, 'a'), await site.head(url)]
    expect(answers.map(expiryOf)).toEqual([undefined, undefined, undefined])
  })
})

describe('an upload that has expired', () => {
  it('row 31: HEAD, PATCH and DELETE after that -> 410, without Upload-Offset', async () => {
    const site = await startSite({ expiry: { afterMs: hourMs, mode: 'sliding' } })
    const url = await site.create(6)
    at(hourMs - 1)
    expect(await site.shown(url)).toBe('0/6')
    at(hourMs)
    const answers = [await site.head(url), await site.append(url, 0, 'abc'), await site.send('DELETE', url)]
    expect(answers.map(({ status }) => status)).toEqual([410, 410, 410])
    for (const { headers } of answers) expect(headers).not.toHaveProperty('upload-offset')
  })

  it('row 31: swept -> 404, bytes and mark are removed', async () => {
    const site = await startSite({ expiry: { afterMs: hourMs, mode: 'sliding' } })
    const url = await site.create(6, bytesType, 'abc')
    const id = url.split('/').at(-1)!
    expect(await site.server.engine.expire(id, start + hourMs - 1)).toBe(false)
    expect(await site.shown(url)).toBe('3/6')
    expect(await site.server.engine.expire(id, start + hourMs)).toBe(true)
    expect(await site.shown(url)).toBe('404')
    expect(await readdir(site.folder)).toEqual([])
  })

  it('row 31: the sweeper takes the lock -> a PATCH that brought nothing is stopped, and the upload is removed', async () => {
    const site = await startSite({ expiry: { afterMs: hourMs, mode: 'sliding' } })
    const url = await site.create(6, bytesType, 'abc')
    const request = site.open('PATCH', url, bytesAt(3, { 'Content-Length': 3, Expect: '100-continue' }))
    await request.continued
    at(hourMs)
    const expired = site.server.engine.expire(url.split('/').at(-1)!, start + hourMs)
    expect(await request.answer).toMatchObject({ status: 423, headers: { 'upload-offset': '3' } })
    expect(await expired).toBe(true)
    expect(await site.shown(url)).toBe('404')
  })
})

describe('a finished upload', () => {
  it('row 32: finished -> never expires, and carries no Upload-Expires', async () => {
    const site = await startSite({ expiry: { afterMs: hourMs, mode: 'absolute' } })
    const created = await site.send('POST', '/files', { 'Upload-Length': 3, ...bytesType }, 'abc')
    const url = pathOf(created)
    expect(expiryOf(created)).toBeUndefined()
    at(100 * hourMs)
    expect(await site.server.engine.expire(url.split('/').at(-1)!, Date.now())).toBe(false)
    expect(expiryOf(await site.head(url))).toBeUndefined()
    expect((await site.send('GET', url)).text).toBe('abc')
  })
})
