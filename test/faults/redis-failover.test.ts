// A primary of Redis is killed under running uploads, and its replica takes its place: without what was not yet
// replicated, locks and records among it. No upload is lost or taken back, and writers stay apart.

import { createHash } from 'node:crypto'
import { expect, it, onTestFinished, vi } from 'vitest'
import { startCluster, startSentinels } from '../support/redis-topologies.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'
import { contentOf } from './ledger-client.ts'
import { uploadMany } from './many-uploads.ts'
import { expectBack, expectFewWords, patience, twenty } from './redis-outage.ts'
import { send } from './wire-request.ts'

const MiB = 1024 * 1024
const args = ['--lease', '4s']

it('the primary that Sentinel names is killed, and then the next one', async () => {
  const redis = await startSentinels({ replicas: 2 })
  onTestFinished(() => redis.stop())
  const fleet = await startFleet({ redisUrl: redis.url, args })
  const lose = async () => {
    const primary = await redis.primary()
    await primary.kill()
    await redis.untilFailover(primary)
    await expectBack(fleet)
  }
  const done = await uploadMany(fleet, 'failover', {
    ...twenty,
    faults: [
      [0.2, lose],
      [0.6, lose],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 2)
  expectReplaced(fleet, 2)
}, 120_000)

it('a primary of a Cluster is killed, comes back, and another one is killed', async () => {
  const redis = await startCluster()
  onTestFinished(() => redis.stop())
  const fleet = await startFleet({ redisUrl: redis.url, args })
  const lose = (key: string) => async () => {
    const primary = await redis.ownerOf(key)
    await primary.kill()
    await redis.untilFailover(primary, key)
    await expectBack(fleet)
    await primary.restart()
  }
  const done = await uploadMany(fleet, 'cluster failover', {
    ...twenty,
    faults: [
      [0.2, lose('a')],
      [0.6, lose('b')],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 2)
  expectReplaced(fleet, 2)
}, 120_000)

it('a lock that the next primary never heard of lets in a second writer, who is kept apart from the first', async () => {
  const redis = await startSentinels()
  onTestFinished(() => redis.stop())
  const fleet = await startFleet({ redisUrl: redis.url, args: ['--lease', '60s'] })
  const [one, two] = fleet.urls as [string, string]
  const [server] = fleet.servers
  const bytes = 4 * MiB
  const created = await send('POST', `${one}/files/`, { headers: { 'Upload-Length': bytes } })
  const path = new URL((created as { location: string }).location).pathname
  const id = path.split('/').at(-1)!
  const lock = `${fleet.redis!.prefix}lock:{${id}}`

  // The replica hears nothing of the lock; the primary dies, and the holder stands still while it is forgotten.
  const [primary, replica] = redis.servers as [(typeof redis.servers)[0], (typeof redis.servers)[0]]
  process.kill(replica.pid, 'SIGSTOP')
  const first = send('PATCH', `${one}${path}`, {
    headers: patchHeaders(0, bytes),
    body: pieces('first', 0, bytes),
    bytesPerSecond: MiB,
  })
  await vi.waitFor(async () => expect(await primary.command('EXISTS', lock)).toBe(':1'), patience)
  await vi.waitFor(async () => expect(await offsetOf(`${two}${path}`)).toBeGreaterThan(0), patience)
  process.kill(server!.pid, 'SIGSTOP')
  try {
    await primary.kill()
    process.kill(replica.pid, 'SIGCONT')
    expect(await redis.untilFailover(primary)).toBe(replica)
    expect(await replica.command('EXISTS', lock)).toBe(':0')

    const kept = (await vi.waitFor(async () => {
      const offset = await offsetOf(`${two}${path}`)
      expect(offset).toBeGreaterThan(0)
      return offset
    }, patience))!
    const second = await send('PATCH', `${two}${path}`, {
      headers: patchHeaders(kept, bytes),
      body: pieces('second', kept, bytes),
    })
    expect(second).toMatchObject({ status: 204, offset: bytes })
    process.kill(server!.pid, 'SIGCONT')
    // What the first one wrote late is neither acknowledged nor read.
    const ended = await first
    const isTaken = ended.is === 'answered' && ended.status < 300 && (ended.offset ?? 0) > kept
    expect(isTaken, JSON.stringify(ended)).toBe(false)

    const sha256 = createHash('sha256')
    sha256.update(contentOf('first', 0, kept)).update(contentOf('second', kept, bytes))
    await expectBack(fleet)
    await expectAllWell(fleet, [{ id, path, bytes, sha256: sha256.digest('hex') }])
  } finally {
    process.kill(server!.pid, 'SIGCONT')
  }
}, 120_000)

function patchHeaders(start: number, end: number): Record<string, string | number> {
  return {
    'Upload-Offset': start,
    'Content-Type': 'application/offset+octet-stream',
    'Content-Length': end - start,
  }
}

function pieces(seed: string, start: number, end: number): Buffer[] {
  const size = 65_536
  const count = Math.ceil((end - start) / size)
  return Array.from({ length: count }, (_, i) =>
    contentOf(seed, start + i * size, Math.min(end, start + (i + 1) * size)),
  )
}

async function offsetOf(url: string): Promise<number | undefined> {
  const ended = await send('HEAD', url)
  return ended.is === 'answered' && ended.status === 200 ? ended.offset : undefined
}

/** Every server was told that somebody else answers, for then its records are put back. */
function expectReplaced(fleet: Fleet, times: number): void {
  for (const server of fleet.servers) {
    const lines = server.logs().filter(({ msg }) => /^another Redis answers/.test(String(msg)))
    expect(lines.length).toBeGreaterThanOrEqual(times)
  }
}
