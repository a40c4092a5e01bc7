// The wall clock of one running server is set an hour ahead or back, as a person or a wrong time server does it.

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { UploadHead } from '../../stores/contracts.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { temporaryFolder } from '../support/folder.ts'
import { type JumpingClock, jumpingClock } from '../support/jumping-clock.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'

const KiB = 1024
const size = 64 * KiB
const hourS = 3600
const leaseMs = 4000

// Servers start several times, under the load of other tests.
vi.setConfig({ testTimeout: 90_000 })
const halfHour = ['--expire-after', '30m']
const version = { 'Tus-Resumable': '1.0.0' }
const asBytes = { ...version, 'Content-Type': 'application/offset+octet-stream' }

describe.each([
  ['ahead', hourS],
  ['back', -hourS],
])('an hour %s', (name, jumpS) => {
  it('on one of two servers expires nothing, ends no append and steals no lock', async () => {
    const dir = await temporaryFolder()
    const redis = await ownRedis()
    const witness = await expiresSoon(dir)
    const clock = await jumpingClock()
    const jumping = await server(dir, ['--sweep-interval', '1s', ...halfHour], redis, clock)
    // The other one never sweeps but at its start: what is removed later is so by the clock that jumped.
    const steady = await server(dir, ['--sweep-interval', '1h', ...halfHour], redis)
    const [still, running] = [randomBytes(`still ${name}`, size), randomBytes(`running ${name}`, size)]
    const idle = await create(steady)
    await expect(patch(steady, idle, 0, still.subarray(0, size / 2))).resolves.toMatchObject({ status: 204 })
    const busy = await create(jumping)
    const append = await slowPatch(jumping, busy, running)
    append.write(running.subarray(0, size / 2))
    await expect.poll(() => lockOf(redis, busy)).not.toBe('')
    const lock = await lockOf(redis, busy)

    await jump(clock, jumping, jumpS)
    await expect.poll(() => head(steady, witness), { timeout: 40_000 }).toMatchObject({ status: 404 })
    // Longer than a lease: what stands is renewed, and by the same holder.
    await renewals(redis, 20)
    expect(await lockOf(redis, busy)).toBe(lock)
    append.end(running.subarray(size / 2))
    expect(await append.status).toBe(204)

    for (const server of [jumping, steady])
      expect(await head(server, idle)).toMatchObject({ status: 200, offset: size / 2 })
    const { status, expiresAt } = await patch(jumping, idle, size / 2, still.subarray(size / 2, -1))
    expect(status).toBe(204)
    // In the time of all servers, not in that of the one that answers.
    expect(Math.abs(expiresAt - Date.now() - 1_800_000)).toBeLessThan(30_000)
    expect(await head(steady, idle)).toMatchObject({ status: 200, offset: size - 1 })
    await expect(patch(steady, idle, size - 1, still.subarray(-1))).resolves.toMatchObject({ status: 204 })

    expect(await download(jumping, idle)).toBe(await sha256(still))
    expect(await download(steady, busy)).toBe(await sha256(running))
  })

  it('on the only server expires nothing and ends no append', async () => {
    const dir = await temporaryFolder()
    const witness = await expiresSoon(dir)
    const clock = await jumpingClock()
    const only = await server(dir, ['--sweep-interval', '1s', ...halfHour], undefined, clock)
    const [still, running] = [randomBytes(`one ${name}`, size), randomBytes(`two ${name}`, size)]
    const idle = await create(only)
    await expect(patch(only, idle, 0, still.subarray(0, size / 2))).resolves.toMatchObject({ status: 204 })
    const busy = await create(only)
    const append = await slowPatch(only, busy, running)
    append.write(running.subarray(0, size / 2))

    await jump(clock, only, jumpS)
    await expect.poll(() => head(only, witness), { timeout: 40_000 }).toMatchObject({ status: 404 })
    append.end(running.subarray(size / 2))
    expect(await append.status).toBe(204)
    expect(await head(only, idle)).toMatchObject({ status: 200, offset: size / 2 })
    await expect(patch(only, idle, size / 2, still.subarray(size / 2))).resolves.toMatchObject({
      status: 204,
    })
    expect(await download(only, idle)).toBe(await sha256(still))
    expect(await download(only, busy)).toBe(await sha256(running))
  })
})

it.each([
  ['one of two servers', () => ownRedis()],
  ['the only server', async () => undefined],
])('an hour back on %s revives nothing that has expired', async (_, redisOf) => {
  const dir = await temporaryFolder()
  const redis = await redisOf()
  const clock = await jumpingClock()
  // Nobody sweeps what expires here but at the start: it lies there, and is gone by its time alone.
  const args = ['--expire-after', '1s', '--sweep-interval', '1h']
  const jumping = await server(dir, args, redis, clock)
  const other = redis ? await server(dir, args, redis) : jumping
  const id = await create(other)
  await expect.poll(() => head(other, id), { timeout: 10_000 }).toMatchObject({ status: 410 })

  await jump(clock, jumping, -hourS)
  for (let again = 0; again < 3; again++) {
    expect(await head(jumping, id)).toMatchObject({ status: 410 })
    expect(await patch(jumping, id, 0, randomBytes('late', 10))).toMatchObject({ status: 410 })
  }
  expect(await head(other, id)).toMatchObject({ status: 410 })
})

async function ownRedis(): Promise<RedisServer> {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  return redis
}

async function server(
  dir: string,
  args: string[],
  redis?: RedisServer,
  clock?: JumpingClock,
): Promise<ServerProcess> {
  const server = await startServer({
    ...{ dir, args: [...args, ...(redis ? ['--lease', `${leaseMs}ms`] : [])] },
    ...(redis && { redisUrl: redis.url }),
    ...(clock && { env: clock.env }),
  })
  onTestFinished(async () => void (await server.stop()))
  return server
}

/** Sets the clock of a server, and waits until its own answers are dated by it. */
async function jump(clock: JumpingClock, server: ServerProcess, aheadS: number): Promise<void> {
  await clock.set(aheadS)
  const saysS = async () => {
    const { headers } = await fetch(`${server.url}/health/live`)
    return (Date.parse(headers.get('date')!) - Date.now()) / 1000 - aheadS
  }
  await expect.poll(async () => Math.abs(await saysS()), { timeout: 10_000 }).toBeLessThan(60)
}

/** Puts an upload into the folder that a sweep will remove in a few seconds: when it is gone, a sweep has been. */
async function expiresSoon(dir: string): Promise<string> {
  const bytes = new FileBytes({ directory: dir, durability: 'none', now: () => Date.now() - 1_794_000 })
  await bytes.start()
  const head: UploadHead = { id: randomUUID(), createdAt: 0, dialect: 'tus' }
  await (await bytes.create(head, size)).close()
  return head.id
}

/** Who has the lock of an upload, and since when; empty when nobody has. */
async function lockOf(redis: RedisServer, id: string): Promise<string> {
  const reply = await redis.command('HMGET', `tidemark:lock:{${id}}`, 'token', 'fence')
  return reply.includes('$-1') ? '' : reply
}

/** Waits for so many renewals of all locks together; there are ten in a lease. */
async function renewals(redis: RedisServer, count: number): Promise<void> {
  const scripts = async () =>
    Number(/cmdstat_pexpire:calls=(\d+)/.exec(await redis.command('INFO', 'commandstats'))?.[1] ?? 0)
  const before = await scripts()
  await expect.poll(scripts, { timeout: 40_000 }).toBeGreaterThanOrEqual(before + count)
}

async function create({ url }: ServerProcess): Promise<string> {
  const headers = { ...version, 'Upload-Length': String(size) }
  const response = await fetch(`${url}/files/`, { method: 'POST', headers })
  expect(response.status).toBe(201)
  return response.headers.get('location')!.split('/').at(-1)!
}

async function head({ url }: ServerProcess, id: string) {
  const { status, headers } = await fetch(`${url}/files/${id}`, { method: 'HEAD', headers: version })
  return { status, offset: Number(headers.get('upload-offset')) }
}

async function patch({ url }: ServerProcess, id: string, offset: number, body: Buffer) {
  const headers = { ...asBytes, 'Upload-Offset': String(offset) }
  const response = await fetch(`${url}/files/${id}`, { method: 'PATCH', headers, body: new Uint8Array(body) })
  return { status: response.status, expiresAt: Date.parse(response.headers.get('upload-expires') ?? '') }
}

/** A PATCH whose body is written by the test, bit by bit. */
async function slowPatch({ port }: ServerProcess, id: string, { length }: Buffer) {
  const headers = { ...asBytes, 'Upload-Offset': '0', 'Content-Length': String(length) }
  const path = `/files/${id}`
  const request = http.request({ host: '127.0.0.1', port, path, method: 'PATCH', headers, agent: false })
  const status = once(request, 'response').then(([response]) => {
    response.resume()
    return response.statusCode as number
  })
  status.catch(() => undefined)
  return {
    status,
    write: (bytes: Buffer) => request.write(bytes),
    end: (bytes: Buffer) => request.end(bytes),
  }
}

async function download({ url }: ServerProcess, id: string): Promise<string> {
  const response = await fetch(`${url}/files/${id}`)
  expect(response.status).toBe(200)
  return sha256(new Uint8Array(await response.arrayBuffer()))
}
