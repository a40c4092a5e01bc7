// Redis loses what it knew: killed and empty, emptied while it runs, older than it was. Uploads wait for it or go on
// without their locks, and none of them is lost, taken back, or told of twice.

import { expect, it, vi } from 'vitest'
import { startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'
import { contentOf, uploadWithLedger } from './ledger-client.ts'
import { uploadMany } from './many-uploads.ts'
import { expectAway, expectBack, expectFewWords, ownRedis, patience, twenty } from './redis-outage.ts'
import { send } from './wire-request.ts'

const MiB = 1024 * 1024

it('Redis is killed in the middle, twice, and comes back empty', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url })
  const before = await uploadWithLedger({ urls: fleet.urls, seed: 'before', bytes: MiB })
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

  // Nobody asks for this one: the walk that follows a loss puts its record back.
  const recordOf = (id: string) => redis.command('EXISTS', `${fleet.redis!.prefix}record:{${id}}`)
  await vi.waitFor(async () => expect(await recordOf(before.id)).toBe(':1'), patience)
  await expectAllWell(fleet, [before, ...done])
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
