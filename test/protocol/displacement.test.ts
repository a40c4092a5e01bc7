// Row 15 of docs/protocol.md: several requests want one upload at once.

import { EventEmitter, once } from 'node:events'
import { describe, expect, it } from 'vitest'
import type { AcquireOptions, Lock, WaitOptions } from '../../stores/contracts.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { deferred } from '../support/deferred.ts'
import { bytesAt, type OpenRequest, type Site, startSite } from './exchange.ts'

/** A PATCH of 10 bytes that has sent `abc` and then nothing. */
async function stalledPatch(site: Site, url: string, offset = 0): Promise<OpenRequest> {
  const length = { 'Content-Length': 10 - offset, Expect: '100-continue' }
  const request = site.open('PATCH', url, bytesAt(offset, length))
  await request.continued
  request.write('abc')
  return request
}

/** Tells when a request asks for a lock. */
class WatchedLocker extends LocalLocker {
  readonly asked = new EventEmitter()

  override acquire(id: string, options: AcquireOptions): Promise<Lock> {
    const lock = super.acquire(id, options)
    this.asked.emit('asked')
    return lock
  }

  override untilFree(id: string, options: WaitOptions): Promise<boolean> {
    const free = super.untilFree(id, options)
    this.asked.emit('asked')
    return free
  }
}

/** A site whose finish hook keeps the lock until it is told to go on; then it refuses, and the upload stays open at 2 of 3. */
async function siteWithBusyHolder(acquireLockTimeoutMs = 20_000) {
  const locker = new WatchedLocker()
  const finishing = deferred()
  const mayGoOn = deferred()
  let isFirst = true
  const site = await startSite({
    locker,
    acquireLockTimeoutMs,
    onUploadFinish: async () => {
      if (!isFirst) return {}
      isFirst = false
      finishing.resolve()
      await mayGoOn.promise
      throw { status_code: 400, body: 'not this one' }
    },
  })
  const url = await site.create(3)
  const holder = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 3 }))
  holder.write('abc')
  await finishing.promise
  return { site, url, holder, locker, letHolderGo: mayGoOn.resolve }
}

describe('a second request while a PATCH is stalled', () => {
  it('row 15: a second HEAD -> the holder is answered 423 with the offset it kept, HEAD shows it', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const holder = await stalledPatch(site, url)
    expect(await site.shown(url)).toBe('3/10')
    expect(await holder.answer).toMatchObject({
      status: 423,
      headers: { 'upload-offset': '3', connection: 'close' },
    })
  })

  it('row 15: a second PATCH -> the holder is answered 423, the newcomer goes on', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const holder = await stalledPatch(site, url)
    // What the first one sent is not known to the second: it is told, and goes on from there.
    const newcomer = await site.append(url, 0, 'abcdefghij')
    expect(newcomer).toMatchObject({ status: 409, headers: { 'upload-offset': '3' } })
    expect(await holder.answer).toMatchObject({ status: 423, headers: { 'upload-offset': '3' } })
    expect(await site.append(url, 3, 'defghij')).toMatchObject({ status: 204 })
    expect((await site.send('GET', url)).text).toBe('abcdefghij')
  })

  it('row 15: a second PATCH while the first has sent nothing -> 204 for the newcomer', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const holder = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10, Expect: '100-continue' }))
    await holder.continued
    expect(await site.append(url, 0, 'abcdefghij')).toMatchObject({ status: 204 })
    expect(await holder.answer).toMatchObject({ status: 423, headers: { 'upload-offset': '0' } })
    expect(await site.shown(url)).toBe('10/10')
  })

  it('row 15: a second DELETE -> the holder is answered 423, the upload is gone', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const holder = await stalledPatch(site, url)
    expect(await site.send('DELETE', url)).toMatchObject({ status: 204 })
    expect(await holder.answer).toMatchObject({ status: 423 })
    expect(await site.shown(url)).toBe('404')
  })

  it('row 15: what a displaced client sends late is not stored', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const holder = await stalledPatch(site, url)
    expect(await site.shown(url)).toBe('3/10')
    holder.write('XXXXXXX')
    await holder.closed
    expect(await site.shown(url)).toBe('3/10')
    await site.append(url, 3, 'defghij')
    expect((await site.send('GET', url)).text).toBe('abcdefghij')
  })
})

describe('a server that drains', () => {
  it('ends a running PATCH at its last byte, 204 with that offset, and takes nothing new', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const finished = await site.createFinished('abc')
    const holder = await stalledPatch(site, url)
    expect(await site.append(url, 5, 'x')).toMatchObject({ status: 409 }) // So the bytes of the first are here.
    await site.server.drain()
    expect(await holder.answer).toMatchObject({ status: 204, headers: { 'upload-offset': '3' } })
    expect(await site.append(url, 3, 'd')).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(await site.send('POST', '/files', { 'Upload-Length': 6 })).toMatchObject({ status: 503 })
    expect(await site.shown(url)).toBe('3/10')
    expect(await site.shown(finished)).toBe('3/3')
  })
})

describe('who waits, and who does not', () => {
  it('row 15: of several waiters the newest wins, the others get 423', async () => {
    const { site, url, holder, locker, letHolderGo } = await siteWithBusyHolder()
    const older = site.open('HEAD', url)
    await once(locker.asked, 'asked')
    const newer = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 3 }))
    newer.write('def')
    await once(locker.asked, 'asked')
    expect(await older.answer).toMatchObject({ status: 423, headers: { 'retry-after': '1' } })
    letHolderGo()
    expect(await holder.answer).toMatchObject({ status: 400, text: 'not this one' })
    // It had its turn, and sees what the holder kept.
    expect(await newer.answer).toMatchObject({ status: 409, headers: { 'upload-offset': '2' } })
    expect((await site.append(url, 2, 'c')).status).toBe(204)
    expect((await site.send('GET', url)).text).toBe('abc')
  })

  for (const method of ['PATCH', 'HEAD', 'DELETE'])
    it(`row 15: ${method} when the lock can not be had in time -> 423 with Retry-After`, async () => {
      const { site, url, holder, letHolderGo } = await siteWithBusyHolder(20)
      const body = method === 'PATCH' ? 'def' : undefined
      const answer = await site.send(method, url, method === 'PATCH' ? bytesAt(0) : {}, body)
      expect(answer).toMatchObject({ status: 423, headers: { 'retry-after': '1' } })
      letHolderGo()
      await holder.answer
      expect(await site.shown(url)).toBe('2/3')
    })

  it('row 15: a client that goes away while it waits leaves nothing behind', async () => {
    const { site, url, holder, locker, letHolderGo } = await siteWithBusyHolder()
    const waiter = site.open('HEAD', url)
    await once(locker.asked, 'asked')
    waiter.cut()
    await waiter.closed
    letHolderGo()
    await holder.answer
    expect(await site.shown(url)).toBe('2/3')
    expect(locker.size).toBe(0)
  })

  it('row 15: a request that will be refused anyway disturbs nobody', async () => {
    const site = await startSite()
    const url = await site.create(10)
    const holder = await stalledPatch(site, url)
    const refused = [
      await site.append(url, 5, 'fghij'), // 409
      await site.append(url, 0, 'abcdefghijk'), // 413
      await site.append(url, 0, 'abc', { 'Upload-Length': 11 }), // 400
      await site.append(url, 0, 'abc', { 'Content-Type': 'text/plain' }), // 415
      await site.send('HEAD', url, { 'Tus-Resumable': '2.0.0' }), // 412
      await site.send('PUT', url), // 405
      await site.send('GET', url), // 404: it is not finished
    ]
    expect(refused.map(({ status }) => status)).toEqual([409, 413, 400, 415, 412, 405, 404])
    holder.write('defghij')
    expect(await holder.answer).toMatchObject({ status: 204, headers: { 'upload-offset': '10' } })
    expect(await site.shown(url)).toBe('10/10')
  })

  it('row 15: DELETE that is switched off disturbs nobody', async () => {
    const site = await startSite({ disableTermination: true })
    const url = await site.create(10)
    const holder = await stalledPatch(site, url)
    expect(await site.send('DELETE', url)).toMatchObject({ status: 403 })
    holder.write('defghij')
    expect(await holder.answer).toMatchObject({ status: 204 })
  })

  it('row 15: HEAD on a finished upload takes no lock', async () => {
    const locker = new LocalLocker()
    const site = await startSite({ locker, acquireLockTimeoutMs: 20 })
    const url = await site.createFinished('abc')
    await locker.acquire(url.split('/').at(-1)!, { timeoutMs: 0 })
    expect(await site.shown(url)).toBe('3/3')
    expect((await site.send('GET', url)).text).toBe('abc')
    expect(await site.append(url, 3, '')).toMatchObject({ status: 204 })
  })

  it('row 15: a holder that took over and is receiving is displaced at most once a second', async () => {
    const site = await startSite()
    const url = await site.create(1000)
    const first = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 1000, Expect: '100-continue' }))
    await first.continued
    const second = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 1000, Expect: '100-continue' }))
    const askedAt = performance.now()
    await second.continued
    const sending = setInterval(() => second.write('x'), 10)
    second.write('x')
    try {
      const third = await site.head(url)
      // The second cannot have had the upload before it asked for it.
      expect(performance.now() - askedAt).toBeGreaterThanOrEqual(999)
      expect(third.status).toBe(200)
      expect(await second.answer).toMatchObject({
        status: 423,
        headers: { 'upload-offset': third.headers['upload-offset'] },
      })
    } finally {
      clearInterval(sending)
    }
  })

  it('row 15: a holder that took over is not displaced before it could receive anything', async () => {
    const locker = new WatchedLocker()
    const site = await startSite({ locker })
    const url = await site.create(10)
    const first = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10, Expect: '100-continue' }))
    await first.continued
    const { bytes } = site.server.engine
    const open = bytes.open.bind(bytes)
    const opening = deferred()
    const mayOpen = deferred()
    bytes.open = async (...args) => {
      opening.resolve()
      await mayOpen.promise
      return open(...args)
    }
    const second = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 10, Expect: '100-continue' }))
    await opening.promise
    bytes.open = open
    const third = site.open('HEAD', url)
    await once(locker.asked, 'asked')
    mayOpen.resolve()
    await Promise.race([second.continued, second.answer])
    second.write('abc')
    expect(await third.answer).toMatchObject({ status: 200, headers: { 'upload-offset': '3' } })
    expect(await second.answer).toMatchObject({ status: 423, headers: { 'upload-offset': '3' } })
  })

  it('row 15: a holder that took over and is silent again is displaced at once, by whoever comes', async () => {
    const site = await startSite({ acquireLockTimeoutMs: 60_000 })
    const url = await site.create(10)
    await stalledPatch(site, url)
    for (const offset of ['3', '3', '3']) {
      const request = site.open('PATCH', url, bytesAt(3, { 'Content-Length': 7, Expect: '100-continue' }))
      await Promise.race([request.continued, request.answer])
      expect((await site.head(url)).headers['upload-offset']).toBe(offset)
    }
  })
})
