// What nobody comes back for is put away by one of the servers, whichever lives; also what a killed server left, and what
// Redis has forgotten.

import { randomUUID } from 'node:crypto'
import { readdir, utimes, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { temporaryFolder } from '../support/folder.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { send } from './wire-request.ts'

const hourMs = 3_600_000
const patience = { timeout: 60_000, interval: 20 }
const everySecond = ['--sweep-interval', '1s', '--lease', '5s']

it('a server that is killed while it sweeps is followed by the other one, which ends the work', async () => {
  const folder = await temporaryFolder()
  const many = 1000
  await putUploads(folder, many, Date.now() - hourMs)
  const redis = await ownRedis()
  const fleet = await startFleet({
    folder,
    redisUrl: redis.url,
    args: ['--expire-after', '30m', ...everySecond],
  })
  const left = async () => new Set((await marksIn(folder)).map((name) => name.split('.')[1])).size
  // Whoever is at it: the other one had its try by now, and does nothing.
  const sweeping = await sweepingServer(fleet, redis)
  const before = await left()
  expect(before).toBeGreaterThan(0)
  await fleet.kill(sweeping)
  expect(await left()).toBeGreaterThan(0)

  // The one removal that was cut off is not begun anew before an hour; to everybody its upload is gone.
  await vi.waitFor(async () => expect(await left()).toBeLessThanOrEqual(1), patience)
  const alive = fleet.urls[1 - sweeping]!
  for (const name of await marksIn(folder)) {
    const id = name.split('.')[1]
    await vi.waitFor(
      async () => expect(await send('HEAD', `${alive}/files/${id}`)).toMatchObject({ status: 404 }),
      patience,
    )
  }
  await vi.waitFor(async () => expect(await keysOf(fleet, redis)).toEqual(['walk']), patience)
  expect(failures(fleet)).toEqual([])
}, 150_000)

it.each([
  [
    'killed and started again, empty',
    async (redis: RedisServer) => {
      await redis.kill()
      await redis.restart()
    },
  ],
  ['emptied while it runs', async (redis: RedisServer) => void (await redis.command('FLUSHALL'))],
])(
  'what expires is found again, and removed in time, when Redis was %s',
  async (_, lose) => {
    const redis = await ownRedis()
    const fleet = await startFleet({ redisUrl: redis.url, args: ['--expire-after', '15s', ...everySecond] })
    const paths = await Promise.all([0, 1, 2].map((n) => createUpload(fleet.urls[n % 2]!)))
    const ids = paths.map((url) => url.split('/').at(-1)!)
    await vi.waitFor(async () => expect(await indexed(fleet, redis)).toEqual(ids.toSorted()), patience)

    await lose(redis)
    await vi.waitFor(async () => expect(await indexed(fleet, redis)).toEqual(ids.toSorted()), patience)
    for (const url of paths) expect(await send('HEAD', url)).toMatchObject({ status: 200, offset: 0 })
    await vi.waitFor(async () => expect(await readdir(fleet.folder)).toEqual([]), patience)
    for (const url of paths) expect(await send('HEAD', url)).toMatchObject({ status: 404 })
    await vi.waitFor(async () => expect(await keysOf(fleet, redis)).toEqual(['walk']), patience)
  },
  150_000,
)

it('what a killed server made and told nobody is found at the next start, expires in time, and leaves no orphans', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url, args: ['--expire-after', '5s', ...everySecond] })
  await vi.waitFor(async () => expect(await keysOf(fleet, redis)).toEqual(['walk']), patience)
  // As a crash between the mark and the record leaves it, and one before the mark was filled, an hour ago and just now.
  const [id] = await putUploads(fleet.folder, 1, Date.now())
  const [old, young] = [newId(), newId()]
  for (const orphan of [old, young])
    for (const name of [orphan, `.${orphan}.0.mark`]) await writeFile(path.join(fleet.folder, name), '')
  const anHourAgo = new Date(Date.now() - hourMs - 1000)
  for (const name of [old, `.${old}.0.mark`])
    await utimes(path.join(fleet.folder, name), anHourAgo, anHourAgo)

  await fleet.killAndRestart(0)
  await vi.waitFor(async () => expect(await indexed(fleet, redis)).toEqual([id]), patience)
  await vi.waitFor(
    async () => expect((await readdir(fleet.folder)).toSorted()).toEqual([`.${young}.0.mark`, young]),
    patience,
  )
  await vi.waitFor(async () => expect(await indexed(fleet, redis)).toEqual([]), patience)
}, 150_000)

async function ownRedis(): Promise<RedisServer> {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  return redis
}

/** Puts open uploads into a folder, as a server does that dies right after. */
async function putUploads(directory: string, count: number, at: number): Promise<string[]> {
  const bytes = new FileBytes({ directory, durability: 'none', now: () => at })
  await bytes.start()
  const ids = Array.from({ length: count }, newId)
  for (const id of ids) await (await bytes.create({ id, createdAt: at, dialect: 'tus' }, 10)).close()
  return ids
}

function newId(): string {
  return randomUUID().replaceAll('-', '')
}

async function marksIn(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name.endsWith('.mark'))
}

async function createUpload(url: string): Promise<string> {
  const created = await send('POST', `${url}/files/`, { headers: { 'Upload-Length': 10 } })
  if (created.is !== 'answered' || created.location === undefined) throw new Error('it was not created')
  return created.location
}

/** Which server has the lock of the sweep; its identity is in the lock. */
async function sweepingServer(fleet: Fleet, redis: RedisServer): Promise<number> {
  return vi.waitFor(async () => {
    const holder = await redis.command('HGET', `${fleet.redis!.prefix}lock:{.sweep}`, 'holder')
    const index = fleet.servers.findIndex(({ pid }) => new RegExp(`\\b${pid}\\b`).test(holder))
    expect(index, holder).toBeGreaterThanOrEqual(0)
    return index
  }, patience)
}

async function indexed(fleet: Fleet, redis: RedisServer): Promise<string[]> {
  return words(await redis.command('ZRANGE', `${fleet.redis!.prefix}index:expiry`, '0', '-1')).toSorted()
}

/** Keys that stay; a fence is ended by Redis itself, and a sweep has its lock for a moment. */
async function keysOf(fleet: Fleet, redis: RedisServer): Promise<string[]> {
  const { prefix } = fleet.redis!
  return words(await redis.command('KEYS', `${prefix}*`))
    .map((key) => key.slice(prefix.length))
    .filter((key) => !key.startsWith('fence:') && !key.endsWith(':{.sweep}'))
}

/** The strings of a reply that is a list. */
function words(reply: string): string[] {
  return reply.split('\r\n').filter((line) => line !== '' && !/^[*$]/.test(line))
}

function failures(fleet: Fleet): unknown[] {
  return fleet.logs().filter(({ level }) => level === 'error' || Number(level) >= 50)
}
