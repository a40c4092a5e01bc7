// An upload goes from one server to another, over Redis: when its client comes back elsewhere, when two clients fight for
// it, when messages are lost, and when its holder does not let go.

import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { Redis } from 'ioredis'
import { expect, it, onTestFinished } from 'vitest'
import { startRedis } from '../support/redis.ts'
import type { ServerProcess } from '../support/server-process.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'
import { contentOf, uploadWithLedger } from './ledger-client.ts'
import { startRedisWire } from './redis-wire.ts'
import { send } from './wire-request.ts'

const KiB = 1024
const MiB = 1024 * KiB
const tus = { 'Tus-Resumable': '1.0.0' }

it('two clients that fight for one upload on two servers displace each other at most once a second', async () => {
  const fleet = await startFleet()
  const bytes = 4 * MiB
  const url = await create(fleet, bytes)
  const beganAt = performance.now()
  // Both send the same, and want all of it.
  const client = (index: number) =>
    uploadWithLedger({
      ...{ urls: [fleet.urls[index]!], seed: 'fought for', bytes, url },
      ...{ patchBytes: [bytes, bytes], bytesPerSecond: MiB },
    })
  const uploads = await Promise.all([client(0), client(1)])
  const seconds = (performance.now() - beganAt) / 1000
  const displaced = uploads.map(
    ({ ledger }) =>
      ledger.filter(
        ({ method, status, offset }) => method === 'PATCH' && status === 423 && offset !== undefined,
      ).length,
  )
  // Both had it, and each time for a second; the first one had nobody to take it from.
  expect(Math.min(...displaced)).toBeGreaterThanOrEqual(1)
  expect(displaced[0]! + displaced[1]!).toBeLessThanOrEqual(seconds + 1)
  await expectAllWell(fleet, [{ ...uploads[0]! }])
})

it('that stays open with one server is passed on, piece by piece, and nobody has to ask twice', async () => {
  const fleet = await startFleet({ args: ['--lease', '120s'] })
  const [pieces, bytes, seed] = [60, 4 * KiB, 'by turns']
  const url = await create(fleet, pieces * bytes)
  for (let piece = 0; piece < pieces; piece++) {
    // Two to one server, two to the other one.
    const target = at(fleet, Math.floor(piece / 2) % 2, url)
    const offset = piece * bytes
    const ended = await send('PATCH', target, {
      headers: offsetOf(offset, bytes),
      body: [contentOf(seed, offset, offset + bytes)],
    })
    expect(ended).toMatchObject({ status: 204, offset: offset + bytes })
    if (piece % 3 === 0 && piece < pieces - 1)
      expect(await send('HEAD', at(fleet, 1, url))).toMatchObject({ status: 200, offset: offset + bytes })
  }
  const path = new URL(url).pathname
  const id = path.slice(path.lastIndexOf('/') + 1)
  await expectAllWell(fleet, [{ id, path, bytes: pieces * bytes, seed }])
  // Nothing was copied: a successor goes on where the one before it let go.
  expect(existsSync(`${fleet.folder}/.${id}.1.mark`)).toBe(false)
})

it('goes to the other server though every message is lost, long before its lease ends', async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const wire = await startRedisWire(redis.port)
  onTestFinished(() => wire.close())
  // The lease is longer than the test lasts: nobody waits for its end.
  const fleet = await startFleet({ redisUrl: wire.url, args: ['--lease', '120s'] })
  wire.loseMessages()
  const url = await create(fleet, 10)
  const holder = await stalledPatch(fleet.servers[0]!, url)
  expect(await send('HEAD', at(fleet, 1, url))).toMatchObject({ status: 200, offset: 3 })
  expect(await holder.answered).toMatchObject({ statusCode: 423 })
  // That it is wanted, and that it is free.
  expect(wire.lostMessages).toBeGreaterThanOrEqual(2)

  const next = await stalledPatch(fleet.servers[1]!, url, 3)
  const patch = { headers: offsetOf(6, 4), body: [Buffer.from('ghij')] }
  // Refused until a checkpoint has said that these three are there too.
  const append = () => send('PATCH', at(fleet, 0, url), patch)
  await expect.poll(append, { timeout: 15_000 }).toMatchObject({ status: 204, offset: 10 })
  expect(await next.answered).toMatchObject({ statusCode: 423 })
})

it('stays with a holder that does not let go: 423 after acquire-lock-timeout, and nothing is left behind', async () => {
  const fleet = await startFleet({ args: ['--lease', '120s', '--acquire-lock-timeout', '300ms'] })
  const url = await create(fleet, 10)
  const holder = await stalledPatch(fleet.servers[0]!, url)
  fleet.servers[0]!.signal('SIGSTOP')
  onTestFinished(() => fleet.servers[0]!.signal('SIGCONT'))
  for (const method of ['HEAD', 'PATCH', 'DELETE']) {
    const headers: Record<string, string> = { ...tus, ...(method === 'PATCH' && offsetOf(0, 0)) }
    const response = await fetch(at(fleet, 1, url), { method, headers })
    expect([method, response.status, response.headers.get('retry-after')]).toEqual([method, 423, '1'])
    // Only what the holder has.
    await expect.poll(() => waiters(fleet, url)).toBe(0)
  }
  fleet.servers[0]!.signal('SIGCONT')
  expect(await holder.answered).toMatchObject({ statusCode: 423 })
  expect(await send('HEAD', at(fleet, 1, url))).toMatchObject({ status: 200, offset: 3 })
})

it('is not waited for any longer when the client that wants it leaves', async () => {
  const fleet = await startFleet({ args: ['--lease', '120s', '--acquire-lock-timeout', '100s'] })
  const url = await create(fleet, 10)
  await stalledPatch(fleet.servers[0]!, url)
  fleet.servers[0]!.signal('SIGSTOP')
  onTestFinished(() => fleet.servers[0]!.signal('SIGCONT'))
  for (const method of ['HEAD', 'PATCH']) {
    const headers = method === 'PATCH' ? offsetOf(0, 5) : tus
    const newcomer = request(at(fleet, 1, url), { method, headers, agent: false })
    newcomer.on('error', () => undefined)
    newcomer.flushHeaders()
    await expect.poll(() => waiters(fleet, url)).toBe(1)
    newcomer.destroy()
    await expect.poll(() => waiters(fleet, url)).toBe(0)
  }
})

async function create(fleet: Fleet, bytes: number): Promise<string> {
  const ended = await send('POST', `${fleet.urls[0]}/files/`, { headers: { 'Upload-Length': bytes } })
  expect(ended).toMatchObject({ status: 201 })
  return ended.is === 'answered' ? ended.location! : ''
}

/** The same upload on one of the servers. */
function at(fleet: Fleet, index: number, url: string): string {
  return new URL(new URL(url).pathname, fleet.urls[index]).href
}

function offsetOf(offset: number, length: number): Record<string, string> {
  return {
    ...tus,
    'Upload-Offset': String(offset),
    'Content-Type': 'application/offset+octet-stream',
    'Content-Length': String(length),
  }
}

/** How many wait for an upload, as Redis knows it: one, the newest, or none. */
async function waiters(fleet: Fleet, url: string): Promise<number> {
  const { prefix, url: redisUrl } = fleet.redis!
  const redis = new Redis(redisUrl)
  try {
    return await redis.exists(`${prefix}wait:{${url.split('/').at(-1)}}`)
  } finally {
    redis.disconnect()
  }
}

/** A PATCH up to the 10th byte that has sent three, and then nothing. */
async function stalledPatch(
  server: ServerProcess,
  url: string,
  offset = 0,
): Promise<{ patch: ClientRequest; answered: Promise<IncomingMessage> }> {
  const headers = { ...offsetOf(offset, 10 - offset), Expect: '100-continue' }
  const target = new URL(new URL(url).pathname, server.url)
  const patch = request(target, { method: 'PATCH', headers, agent: false })
  patch.on('error', () => undefined)
  const answered = once(patch, 'response').then(([response]) => {
    response.resume()
    return response as IncomingMessage
  })
  answered.catch(() => undefined)
  patch.flushHeaders()
  await once(patch, 'continue')
  patch.write('abcdefghij'.slice(offset, offset + 3))
  return { patch, answered }
}
