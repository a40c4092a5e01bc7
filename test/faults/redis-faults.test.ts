// Redis is lost in every way it can be: killed and empty, older than it was, emptied while it runs, stopped, silent.
// Uploads wait for it or go on without their locks, and none of them is lost, taken back, or told of twice.

import { expect, it, onTestFinished, vi } from 'vitest'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'
import { contentOf, uploadWithLedger } from './ledger-client.ts'
import { uploadMany } from './many-uploads.ts'
import { send } from './wire-request.ts'

const MiB = 1024 * 1024
const twenty = { uploads: 20, bytes: 2 * MiB, bytesPerSecond: MiB / 2, deadlineMs: 90_000 }
const patience = { timeout: 15_000, interval: 50 }

it('Redis is killed in the middle, twice, and comes back empty', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url })
  const lose = async () => {
    await redis.kill()
    await expectAway(fleet)
    await redis.restart()
    await expectBack(fleet)
  }
  const done = await uploadMany(fleet, 'redis killed', {
    ...twenty,
    faults: [
      [0.2, lose],
      [0.6, lose],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 2)
}, 120_000)

it('Redis is emptied in the middle, three times', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url })
  const empty = () => redis.command('FLUSHALL')
  const done = await uploadMany(fleet, 'redis emptied', {
    ...twenty,
    faults: [
      [0.2, empty],
      [0.5, empty],
      [0.8, empty],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 0)
}, 120_000)

it('Redis stands still for 15 seconds', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url })
  const done = await uploadMany(fleet, 'redis stands still', {
    ...twenty,
    faults: [
      [
        0.4,
        async () => {
          process.kill(redis.pid, 'SIGSTOP')
          await during(15_000, () => expectAway(fleet))
          process.kill(redis.pid, 'SIGCONT')
          await expectBack(fleet)
        },
      ],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 1)
}, 120_000)

it('Redis is not there for 15 seconds', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url })
  const done = await uploadMany(fleet, 'redis not there', {
    ...twenty,
    faults: [
      [
        0.4,
        async () => {
          await redis.kill()
          await during(15_000, () => expectAway(fleet))
          await redis.restart()
          await expectBack(fleet)
        },
      ],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 1)
}, 120_000)

it('the way to Redis falls silent, and heals', async () => {
  const redis = await ownRedis()
  const wire = await startTcpProxy(redis.port)
  onTestFinished(() => wire.close())
  const fleet = await startFleet({ redisUrl: `redis://127.0.0.1:${wire.port}` })
  const done = await uploadMany(fleet, 'redis silent', {
    ...twenty,
    faults: [
      [
        0.4,
        async () => {
          wire.isSilent = true
          await during(6_000, () => expectAway(fleet))
          wire.isSilent = false
          await expectBack(fleet)
        },
      ],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 1)
}, 120_000)

it('Redis comes back from an older snapshot: offset, finish, termination and locks of then count for nothing', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url })
  const [one, two] = fleet.urls as [string, string]
  const bytes = 2 * MiB
  const half = bytes / 2
  const moved = await create(one, 'moved', bytes, half)
  const finished = await create(one, 'finished', bytes, half)
  const terminated = await create(one, 'terminated', bytes, half)
  const terminatedLater = await create(one, 'terminated when finished', bytes, bytes)
  // Held while the snapshot is made, and long given up when it comes back.
  const held = await create(one, 'held', bytes, half)
  const holding = append(one, held, 'held', half, bytes - 1, MiB / 2)
  await vi.waitFor(async () => expect(await redis.command('KEYS', '*:lock:*')).toContain(held.id), patience)
  expect(await redis.command('SAVE')).toBe('+OK')

  expect((await append(two, moved, 'moved', half, bytes - 1)).offset).toBe(bytes - 1)
  expect((await append(two, finished, 'finished', half, bytes)).offset).toBe(bytes)
  for (const upload of [terminated, terminatedLater])
    expect(await send('DELETE', `${two}${upload.path}`)).toMatchObject({ status: 204 })
  expect((await holding).offset).toBe(bytes - 1)
  await redis.kill()
  await expectAway(fleet)
  await redis.restart()
  expect(await redis.command('KEYS', '*:lock:*')).toContain(held.id)
  await expectBack(fleet)

  for (const url of fleet.urls) {
    expect(await send('HEAD', `${url}${moved.path}`)).toMatchObject({ status: 200, offset: bytes - 1 })
    expect(await send('HEAD', `${url}${finished.path}`)).toMatchObject({ status: 200, offset: bytes })
    for (const { path } of [terminated, terminatedLater]) {
      expect(await send('HEAD', `${url}${path}`)).toMatchObject({ status: expect.toBeOneOf([404, 410]) })
      expect(await send('GET', `${url}${path}`)).toMatchObject({ status: expect.toBeOneOf([404, 410]) })
    }
  }
  // A finish that Redis has forgotten is not told again.
  expect((await append(one, finished, 'finished', bytes, bytes)).offset).toBe(bytes)
  const seeds = [
    { ...moved, seed: 'moved' },
    { ...held, seed: 'held' },
  ]
  const rest = await Promise.all(
    seeds.map(({ path, seed }) => uploadWithLedger({ urls: fleet.urls, url: `${one}${path}`, seed, bytes })),
  )

  const finishes = (await fleet.finishes()).filter(({ upload }) => upload !== terminatedLater.id)
  expect(finishes.map(({ upload }) => upload).sort()).toEqual([moved.id, finished.id, held.id].sort())
  await expectAllWell(fleet, [...rest, { ...finished, bytes, seed: 'finished' }], {
    finishedAndGone: [terminatedLater.id],
  })
}, 60_000)

type Created = { path: string; id: string }

async function create(url: string, seed: string, bytes: number, offset: number): Promise<Created> {
  const ended = await send('POST', `${url}/files/`, {
    headers: {
      'Upload-Length': bytes,
      'Content-Type': 'application/offset+octet-stream',
      'Content-Length': offset,
    },
    body: [contentOf(seed, 0, offset)],
  })
  expect(ended).toMatchObject({ status: 201 })
  const path = new URL((ended as { location: string }).location).pathname
  return { path, id: path.split('/').at(-1)! }
}

async function append(
  url: string,
  { path }: Created,
  seed: string,
  start: number,
  end: number,
  bytesPerSecond = 0,
): Promise<{ offset: number | undefined }> {
  const ended = await send('PATCH', `${url}${path}`, {
    headers: {
      'Upload-Offset': start,
      'Content-Type': 'application/offset+octet-stream',
      'Content-Length': end - start,
    },
    body: Array.from({ length: Math.ceil((end - start) / 65_536) }, (_, i) =>
      contentOf(seed, start + i * 65_536, Math.min(end, start + (i + 1) * 65_536)),
    ),
    bytesPerSecond,
  })
  expect(ended).toMatchObject({ status: 204 })
  return { offset: (ended as { offset?: number }).offset }
}

async function ownRedis(): Promise<RedisServer> {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  return redis
}

/** What is looked at has to be over by then; the fault lasts as long in any case. */
async function during(ms: number, look: () => Promise<void>): Promise<void> {
  const over = new Promise((resolve) => setTimeout(resolve, ms))
  await look()
  await over
}

/** Every server says that it is not ready, and refuses in words that clients wait for. */
async function expectAway(fleet: Fleet): Promise<void> {
  for (const url of fleet.urls) {
    await vi.waitFor(
      async () => expect(await send('GET', `${url}/health/ready`)).toMatchObject({ status: 503 }),
      patience,
    )
    const creation = await send('POST', `${url}/files/`, { headers: { 'Upload-Length': 1 } })
    expect(creation).toMatchObject({ status: 503, retryAfter: '1' })
  }
}

async function expectBack(fleet: Fleet): Promise<void> {
  for (const url of fleet.urls)
    await vi.waitFor(
      async () => expect(await send('GET', `${url}/health/ready`)).toMatchObject({ status: 200 }),
      patience,
    )
}

/** Beside the line of each request, a server says when Redis goes away and when it is back, and nothing more. */
function expectFewWords(fleet: Fleet, outages: number): void {
  for (const server of fleet.servers) {
    const lines = server.logs().filter((line) => line.msg !== 'request')
    const count = (sentence: RegExp) => lines.filter((line) => sentence.test(String(line.msg))).length
    expect(count(/^Redis can not be reached/)).toBe(outages)
    expect(count(/^Redis answers/)).toBe(outages + 1)
    const others = lines.filter(({ level, msg }) => level !== 'info' && !/Redis/.test(String(msg)))
    expect(others.map(({ msg }) => msg)).toEqual([])
  }
}
