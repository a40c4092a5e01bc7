import { randomUUID } from 'node:crypto'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import type { Outcome } from '../../server/protocol/messages.ts'
import type { UploadEngine } from '../../server/uploads/engine.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { RedisRecords } from '../../stores/redis/redis-records.ts'
import { deferred } from '../support/deferred.ts'
import { append, createUpload, openBody, request, startEngine } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'

/** Two ways to be two servers: one engine that is asked twice, and two engines that share a folder and a Redis. */
describe.each([
  ['on one server', oneServer],
  ['from another server, over Redis', twoServers],
])('an upload that somebody else wants, %s', (_name, servers) => {
  it('goes to the newcomer at once when its holder is silent, and the holder is told what it kept', async () => {
    const { a, b } = await servers()
    const id = await createUpload(a, 10)
    const stalled = append(a, id, 0, openBody('1234'))
    await isReceiving(a, id, 4)

    expect(await b.offset(id, request())).toMatchObject({ is: 'offset', record: { mark: { offset: 4 } } })
    expect(await stalled).toMatchObject({
      is: 'refused',
      refusal: { code: 'displaced', offset: 4, status: 423 },
    })

    expect(await append(b, id, 4, '567890')).toMatchObject({
      is: 'appended',
      record: { mark: { state: 'finished' } },
    })
    expect(await contentOf(b, id)).toBe('1234567890')
  })

  it('keeps its holder while requests come that will be refused anyway', async () => {
    const { a, b } = await servers()
    const id = await createUpload(a, 10)
    const body = openBody('1234')
    const running = append(a, id, 0, body)
    await isReceiving(a, id, 4)

    expect(await refusalOf(append(b, id, 9, 'x'))).toBe('offset-conflict')
    expect(
      await refusalOf(
        b.append(
          { do: 'append', id, offset: 4, length: 30, contentLength: 1, checksum: undefined },
          request('x'),
        ),
      ),
    ).toBe('length-fixed')
    expect(
      await refusalOf(
        b.append(
          { do: 'append', id, offset: 4, length: undefined, contentLength: 11, checksum: undefined },
          request(),
        ),
      ),
    ).toBe('body-too-long')
    body.end('567890')
    expect(await running).toMatchObject({ is: 'appended', record: { mark: { offset: 10 } } })
  })

  it('goes to the newest of several that wait', async () => {
    const { a, b } = await servers()
    const id = await createUpload(a, 10)
    const { finishing, letGo } = await busyHolder(a, id, '1234567890')
    const older = b.offset(id, request())
    await new Promise((resolve) => setTimeout(resolve, 300))
    const newest = a.offset(id, request())
    expect(await refusalOf(older)).toBe('locked')
    letGo()
    expect(await newest).toMatchObject({ is: 'offset', record: { mark: { offset: 10 } } })
    expect(await finishing).toMatchObject({ is: 'appended' })
  })

  it('is terminated for whoever asks, and its running body ends', async () => {
    const { a, b } = await servers()
    const id = await createUpload(a, 10)
    const stalled = append(a, id, 0, openBody('1234'))
    await isReceiving(a, id, 4)

    expect(await b.terminate(id, request())).toMatchObject({ is: 'terminated' })
    expect(await stalled).toMatchObject({ is: 'refused', refusal: { code: 'displaced' } })
    expect(await refusalOf(a.offset(id, request()))).toBe('not-found')
    expect(await refusalOf(append(b, id, 4, 'x'))).toBe('not-found')
  })

  it('is displaced at most once a second while its new holder receives', async () => {
    const { a, b } = await servers()
    const id = await createUpload(a, 1000)
    const first = append(a, id, 0, openBody('1234'))
    await isReceiving(a, id, 4)

    const body = openBody('5678')
    const second = append(b, id, 4, body)
    expect(await refusalOf(first)).toBe('displaced')
    // Who asks between the one and the other finds nobody there.
    await expect.poll(() => body.readableLength, { interval: 1 }).toBe(0)
    const takenAt = performance.now()
    const asking = a.offset(id, request())
    const drip = setInterval(() => body.write('.'), 50)
    onTestFinished(() => clearInterval(drip))

    // It took the upload over and it receives: it keeps it for the rest of its second, then it has to go.
    expect(await asking).toMatchObject({ is: 'offset' })
    expect(performance.now() - takenAt).toBeGreaterThan(500)
    expect(await refusalOf(second)).toBe('displaced')
  })

  it('is refused to a request that has waited too long', async () => {
    const { a, b } = await servers({ acquireLockTimeoutMs: 200 })
    const id = await createUpload(a, 4)
    const { finishing, letGo } = await busyHolder(a, id, '1234')
    const outcome = await b.offset(id, request())
    expect(outcome).toMatchObject({ is: 'refused', refusal: { code: 'locked', status: 423, retryAfterS: 1 } })
    letGo()
    expect(await finishing).toMatchObject({ is: 'appended' })
  })

  it('is not kept waiting by a client that left while it waited', async () => {
    const { a, b } = await servers()
    const id = await createUpload(a, 4)
    const { finishing, letGo } = await busyHolder(a, id, '1234')
    const client = new AbortController()
    const waiting = b.offset(id, request(undefined, { signal: client.signal }))
    client.abort()
    expect(await waiting).toEqual({ is: 'cut', record: undefined, why: 'client-gone' })
    letGo()
    expect(await finishing).toMatchObject({ is: 'appended' })
  })
})

describe('a server that is stopped', () => {
  it('ends running bodies with what they sent, and answers them with the short offset', async () => {
    const { a } = await oneServer()
    const id = await createUpload(a, 10)
    const running = append(a, id, 0, openBody('1234'))
    await isReceiving(a, id, 4)
    await a.drain()
    expect(await running).toMatchObject({ is: 'appended', record: { mark: { offset: 4, state: 'open' } } })
    expect(await refusalOf(append(a, id, 4, 'x'))).toBe('unavailable')
    expect(await a.offset(id, request())).toMatchObject({ is: 'offset', record: { mark: { offset: 4 } } })
  })

  it('does not wait for those who wait for an upload', async () => {
    const { a } = await oneServer({ acquireLockTimeoutMs: 60_000 })
    const id = await createUpload(a, 4)
    const { finishing, letGo } = await busyHolder(a, id, '1234')
    const waiting = a.offset(id, request())
    await new Promise((resolve) => setTimeout(resolve, 300))
    const drained = a.drain()
    expect(await refusalOf(waiting)).toBe('locked')
    letGo()
    await drained
    expect(await finishing).toMatchObject({ is: 'appended' })
  })
})

async function oneServer(settings: object = {}) {
  const { engine } = await startEngine(await temporaryFolder(), { settings })
  return { a: engine, b: engine }
}

async function twoServers(settings: object = {}) {
  const directory = await temporaryFolder()
  const keyPrefix = `${randomUUID()}:`
  const start = async () => {
    const connection = new RedisConnection({ url: inject('redisUrl'), keyPrefix })
    onTestFinished(() => connection.close())
    await connection.connect()
    const parts = { locker: new RedisLocker({ connection }), records: new RedisRecords({ connection }) }
    return (await startEngine(directory, { ...parts, settings })).engine
  }
  return { a: await start(), b: await start() }
}

/** A holder that cannot be displaced, because it is finishing: it hangs in a hook until it is let go. */
async function busyHolder(
  engine: UploadEngine,
  id: string,
  content: string,
): Promise<{ finishing: Promise<Outcome>; letGo: () => void }> {
  const hanging = deferred()
  const free = deferred()
  const beforeFinish = () => {
    hanging.resolve()
    return free.promise
  }
  const finishing = append(engine, id, 0, content, request(content, { beforeFinish }))
  await hanging.promise
  return { finishing, letGo: free.resolve }
}

/** Waits until so many bytes of the running body are on the disk. */
async function isReceiving(engine: UploadEngine, id: string, offset: number): Promise<void> {
  await vi.waitFor(async () => expect((await engine.bytes.look(id))?.mark.offset).toBe(offset), {
    timeout: 5000,
    interval: 20,
  })
}

async function refusalOf(outcome: Promise<Outcome>): Promise<string | undefined> {
  const settled = await outcome
  return settled.is === 'refused' ? settled.refusal.code : settled.is
}

async function contentOf(engine: UploadEngine, id: string): Promise<string> {
  const record = await engine.bytes.look(id)
  const chunks = await (await engine.bytes.read(record!, 0, record!.mark.offset)).toArray()
  return Buffer.concat(chunks as Buffer[]).toString()
}
