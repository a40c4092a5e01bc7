/**
 * The lockers and the config store in a plain @tus/server, as people have it who do not use the rest.
 */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'
import { ERRORS, type Locker as TusLocker } from '@tus/utils'
import { Upload } from 'tus-js-client'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { RedisConfigStore } from '../../stores/redis/redis-config-store.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { deferred } from '../support/deferred.ts'
import { temporaryFolder } from '../support/folder.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'

let redis: RedisServer
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(async () => {
  await redis.stop()
})

describe.each(['LocalLocker', 'RedisLocker'])('%s in a plain @tus/server', (name) => {
  it('serves tus-js-client, with the config store in Redis', async () => {
    const { url, folder, connection } = await tusServer(name)
    const bytes = Buffer.alloc(300_000, 'abcdefg')
    const upload = new Upload(bytes, { endpoint: url, chunkSize: 100_000, metadata: { filename: 'a.txt' } })
    const done = new Promise<void>((resolve, reject) => {
      upload.options.onSuccess = () => resolve()
      upload.options.onError = reject
    })
    upload.start()
    await done
    const id = upload.url!.split('/').at(-1)!
    expect(await readFile(join(folder, id))).toEqual(bytes)
    expect(await new RedisConfigStore({ connection }).list()).toEqual([id])
  })

  it('ends a stalled PATCH for the one that resumes it', async () => {
    const { url, locker } = await tusServer(name)
    const created = await fetch(url, {
      method: 'POST',
      headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '10' },
    })
    const upload = created.headers.get('location')!
    const headers = {
      'Tus-Resumable': '1.0.0',
      'Upload-Offset': '0',
      'Content-Type': 'application/offset+octet-stream',
      'Content-Length': '10',
    }
    const stalled = request(upload, { method: 'PATCH', headers })
    const ended = once(stalled, 'close')
    stalled.on('error', () => {})
    stalled.write('01234')
    await expect.poll(() => locker.size).toBe(1)

    const head = await fetch(upload, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
    expect([head.status, head.headers.get('upload-offset')]).toEqual([200, '5'])
    stalled.destroy()
    await ended
    const rest = { ...headers, 'Upload-Offset': '5', 'Content-Length': '5' }
    const patch = await fetch(upload, { method: 'PATCH', headers: rest, body: '56789' })
    expect([patch.status, patch.headers.get('upload-offset')]).toEqual([204, '10'])
    await expect.poll(() => locker.size).toBe(0)
  })

  it('answers who waited in vain as @tus/server does', async () => {
    const { locker } = await tusServer(name, { acquireTimeoutMs: 30 })
    const asked = deferred()
    const held = locker.newLock('u')
    await held.lock(new AbortController().signal, asked.resolve)
    const other = locker.newLock('u')
    await expect(other.lock(new AbortController().signal, () => {})).rejects.toBe(ERRORS.ERR_LOCK_TIMEOUT)
    await asked.promise
    await expect(other.lock(AbortSignal.abort(), () => {})).rejects.toBe(ERRORS.ERR_LOCK_TIMEOUT)
    // Whoever has no lock gives none back.
    await other.unlock()
    expect(locker.size).toBe(1)
    await held.unlock()
    await expect.poll(() => locker.size).toBe(0)
  })

  it('answers 423 to the older one of two who wait', async () => {
    const { locker } = await tusServer(name)
    const asked = deferred()
    const held = locker.newLock('u')
    await held.lock(new AbortController().signal, asked.resolve)
    const older = locker.newLock('u')
    const superseded = older.lock(new AbortController().signal, () => {}).catch((error) => error)
    await asked.promise
    const newest = locker.newLock('u')
    const taken = newest.lock(new AbortController().signal, () => {})
    expect(await superseded).toMatchObject({ status_code: 423 })
    await held.unlock()
    await taken
    await newest.unlock()
  })
})

describe('the Redis config store', () => {
  it('lists the keys that `get` takes, whatever the prefix', async () => {
    const connection = new RedisConnection({ url: redis.url, keyPrefix: 'a*[b]\\:' })
    onTestFinished(() => connection.close())
    const store = new RedisConfigStore<{ n: number }>({ connection })
    const keys = Array.from({ length: 600 }, (_, n) => `key ${n}`)
    await Promise.all(keys.map((key, n) => store.set(key, { n })))
    await connection.run((client) => client.set('axb:config:other', '1'))
    expect((await store.list()).toSorted()).toEqual(keys.toSorted())
    expect(await store.get(keys[7]!)).toEqual({ n: 7 })
    await store.delete(keys[7]!)
    expect(await store.get(keys[7]!)).toBeUndefined()
    expect(await store.list()).toHaveLength(599)
  })
})

async function tusServer(name: string, options: { acquireTimeoutMs?: number } = {}) {
  const folder = await temporaryFolder()
  const keyPrefix = `t${Math.random().toString(36).slice(2)}:`
  const connection = new RedisConnection({ url: redis.url, keyPrefix })
  const locker =
    name === 'LocalLocker' ? new LocalLocker(options) : new RedisLocker({ connection, ...options })
  const datastore = new FileStore({ directory: folder, configstore: new RedisConfigStore({ connection }) })
  const tus = new Server({ path: '/files', datastore, locker: locker as TusLocker })
  const server = createServer((req, res) => void tus.handle(req, res))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await locker.close()
    await connection.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/files`,
    folder,
    locker,
    connection,
  }
}
