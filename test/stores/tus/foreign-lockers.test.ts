// The option `locker` as @tus/server documents it: a locker of any kind, a promise of one, a function of the request.

import { randomUUID } from 'node:crypto'
import { FileStore as TusFileStore } from '@tus/file-store'
import { MemoryLocker } from '@tus/server'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import type { LockerOption } from '../../../server/host/lockers.ts'
import { LocalLocker } from '../../../stores/local/local-locker.ts'
import { RedisConnection } from '../../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../../stores/redis/redis-locker.ts'
import { bytesAt, type Site, startSite } from '../../protocol/exchange.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { MapStore } from '../../support/map-store.ts'

const lockers: [string, () => LockerOption][] = [
  ["@tus/server's MemoryLocker", () => new MemoryLocker()],
  ['our RedisLocker', redisLocker],
  ['a promise of one', () => Promise.resolve(new MemoryLocker())],
  ['a function that gives the same one to all', () => always(new MemoryLocker())],
  ['a function that promises one', () => always(Promise.resolve(redisLocker()))],
  ['a function that gives ours', () => always(new LocalLocker())],
]

describe.each(lockers)('%s', (_, makeLocker) => {
  it('keeps two overlapping PATCHes apart: the first is told what was kept, the second goes on', async () => {
    for (const datastore of [new TusFileStore({ directory: await temporaryFolder() }), new MapStore()]) {
      const site = await startSite({ datastore, locker: makeLocker() })
      const url = await site.create(10)
      const first = await stalledPatch(site, url, 'abc')
      expect(await site.append(url, 0, 'abcdefghij')).toMatchObject({ status: 409 })
      expect(await first.answer).toMatchObject({ status: 423, headers: { 'upload-offset': '3' } })
      expect(await site.append(url, 3, 'defghij')).toMatchObject({ status: 204 })
      expect(await site.shown(url)).toBe('10/10')
    }
  })

  it('is asked on an upload in a folder of ours, too', async () => {
    const site = await startSite({ locker: makeLocker() })
    const url = await site.create(6)
    const first = await stalledPatch(site, url, 'ab')
    expect(await site.shown(url)).toBe('2/6')
    expect(await first.answer).toMatchObject({ status: 423 })
    expect(await site.append(url, 2, 'cdef')).toMatchObject({ status: 204 })
    expect(await site.send('DELETE', url)).toMatchObject({ status: 204 })
  })
})

it('a function is asked with each request, and its lockers know nothing of each other', async () => {
  const seen: string[] = []
  const byTenant = new Map([
    ['a', new MemoryLocker()],
    ['b', new MemoryLocker()],
  ])
  const site = await startSite({
    locker: (request) => {
      const tenant = request.headers.get('x-tenant') ?? 'a'
      seen.push(`${request.method} ${tenant}`)
      return byTenant.get(tenant)!
    },
  })
  const url = await site.create(6, { 'X-Tenant': 'b' })
  expect(await site.append(url, 0, 'abc', { 'X-Tenant': 'b' })).toMatchObject({ status: 204 })
  expect(await site.shown(url)).toBe('3/6')
  expect(seen).toEqual(['POST b', 'PATCH b', 'HEAD a'])
})

it('a function that fails -> 423 to HEAD, which clients ask again, and 500 to PATCH; the next one works', async () => {
  let fails = true
  const locker = new LocalLocker()
  const site = await startSite({
    locker: () => {
      if (fails) throw new Error('no locker')
      return locker
    },
  })
  expect(await site.send('POST', '/files', { 'Upload-Length': 3 })).toMatchObject({ status: 500 })
  expect(await site.shown('/files/a')).toBe('423')
  expect(await site.send('OPTIONS', '/files')).toMatchObject({ status: 200 })
  fails = false
  expect(await site.shown(await site.createFinished('abc'))).toBe('3/3')
})

it('a locker whose lock cannot be had -> 423 with Retry-After, and 503 for new data, as long as it lasts', async () => {
  const locker = {
    isAway: true,
    newLock: () => ({
      lock: async () => {
        if (locker.isAway) throw new Error('away')
      },
      unlock: async () => undefined,
    }),
  }
  const site = await startSite({ locker, datastore: new MapStore() })
  expect(await site.send('POST', '/files', { 'Upload-Length': 3 })).toMatchObject({ status: 503 })
  locker.isAway = false
  const url = await site.create(3)
  locker.isAway = true
  expect(await site.head(url)).toMatchObject({ status: 423, headers: { 'retry-after': '1' } })
  locker.isAway = false
  expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
})

it('what has expired is removed under the lock of the locker that the function gave', async () => {
  const locker = new LocalLocker()
  const site = await startSite({ locker: () => locker, expiry: { afterMs: 1, mode: 'absolute' } })
  const { headers } = await site.send('POST', '/files', { 'Upload-Length': 3 })
  const id = headers.location!.split('/').at(-1)!
  await expect
    .poll(() => site.send('HEAD', new URL(headers.location!).pathname))
    .toMatchObject({ status: 410 })
  let wasWanted = false
  const lock = await locker.acquire(id, {
    timeoutMs: 1000,
    onWanted: () => {
      wasWanted = true
      void lock.release()
    },
  })
  expect(await site.server.cleanUpExpiredUploads()).toBe(1)
  expect(wasWanted).toBe(true)
})

async function stalledPatch(site: Site, url: string, first: string) {
  const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': 6, Expect: '100-continue' }))
  await request.continued
  request.write(first)
  return request
}

function always<L>(locker: L): () => L {
  return () => locker
}

function redisLocker(): RedisLocker {
  const connection = new RedisConnection({ url: inject('redisUrl'), keyPrefix: `${randomUUID()}:` })
  onTestFinished(() => connection.close())
  return new RedisLocker({ connection })
}
