// What is counted, asked of servers that do not receive the upload, and while servers and Redis come and go.

import { randomUUID } from 'node:crypto'
import { request } from 'node:http'
import { expect, inject, it, onTestFinished, vi } from 'vitest'
import { openBody } from '../support/engine.ts'
import { type EventReader, readEvents } from '../support/event-reader.ts'
import { startRedis } from '../support/redis.ts'
import { startHouse } from '../support/upload-house.ts'
import { startFleet } from './fleet.ts'

const MiB = 1024 * 1024
const patience = { timeout: 60_000 }
const tus = { 'Tus-Resumable': '1.0.0' }

it('a listener sees the progress of an upload that another server receives', patience, async () => {
  const { urls } = await startFleet({ args: ['--lease', '2s'] })
  const id = await create(urls[0]!, 4 * MiB)
  const stream = await watch(urls[1]!, id)
  const patch = open(urls[0]!, id, 0, 4 * MiB)
  for (const sent of [1, 2]) {
    patch.write(Buffer.alloc(MiB))
    await stream.until(({ kind, data }) => kind === 'progress' && data.offset === sent * MiB)
    expect(await counted(urls[1]!, id)).toMatchObject({ offset: sent * MiB, state: 'open' })
  }
  patch.end(Buffer.alloc(2 * MiB))
  expect((await stream.until(({ kind }) => kind === 'finished')).data).toMatchObject({ percent: 100 })
  await fetch(`${urls[0]}/files/${id}`, { method: 'DELETE', headers: tus })
  await stream.until(({ kind }) => kind === 'terminated')
  expect((await fetch(`${urls[1]}/uploads/${id}`)).status).toBe(404)
})

it('a listener sees the progress of an upload that another worker receives', patience, async () => {
  const { urls } = await startFleet({ redisUrl: 'embedded', args: ['--workers', '2'] })
  const [url] = urls as [string]
  const id = await create(url, 4 * MiB)
  // Connections take turns between the workers: these are on both of them.
  const streams = [await watch(url, id), await watch(url, id), await watch(url, id), await watch(url, id)]
  const patch = open(url, id, 0, 4 * MiB)
  patch.write(Buffer.alloc(MiB))
  const seen = (stream: EventReader) =>
    stream.until(({ kind, data }) => kind === 'progress' && data.offset === MiB)
  await Promise.all(streams.map(seen))
  patch.end(Buffer.alloc(3 * MiB))
  await Promise.all(streams.map((stream) => stream.until(({ kind }) => kind === 'finished')))
})

it(
  'a reader whose server was killed is told by another one what is so, and what it missed',
  patience,
  async () => {
    const { urls, kill } = await startFleet({ args: ['--lease', '2s'] })
    const [moving, ending] = [await create(urls[0]!, 3 * MiB), await create(urls[0]!, 3)]
    const query = `?id=${moving}&id=${ending}`
    const before = await readEvents(`${urls[0]}/uploads/events${query}`)
    const patch = open(urls[0]!, moving, 0, 3 * MiB)
    patch.write(Buffer.alloc(MiB))
    const { id: last } = await before.until(({ kind, data }) => kind === 'progress' && data.offset === MiB)
    await kill(0)
    expect(await before.ended).toBe('cut')
    await append(urls[1]!, ending, 0, Buffer.from('abc'))

    const after = await readEvents(`${urls[1]}/uploads/events${query}`, { 'Last-Event-ID': last! })
    onTestFinished(() => after.close())
    const { data } = await after.until(({ kind }) => kind === 'snapshot')
    expect(data.uploads).toMatchObject([
      { id: moving, state: 'open', offset: MiB },
      { id: ending, state: 'finished', offset: 3 },
    ])
    await after.until(({ kind, data }) => kind === 'finished' && data.id === ending)
    // The killed server's lock has to end first.
    await append(urls[1]!, moving, MiB, Buffer.alloc(2 * MiB))
    await after.until(({ kind, data }) => kind === 'finished' && data.id === moving)
  },
)

it(
  'a reader sees an upload go on elsewhere when the server that received it is killed',
  patience,
  async () => {
    const { urls, kill } = await startFleet({ args: ['--lease', '2s'] })
    const id = await create(urls[0]!, 3 * MiB)
    const stream = await watch(urls[1]!, id)
    const patch = open(urls[0]!, id, 0, 3 * MiB)
    patch.write(Buffer.alloc(MiB))
    await stream.until(({ kind, data }) => kind === 'progress' && data.offset === MiB)
    await kill(0)
    await append(urls[1]!, id, MiB, Buffer.alloc(2 * MiB))
    await stream.until(({ kind }) => kind === 'finished')
    const offsets = stream.events.flatMap(({ data }) => data.offset ?? [])
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b))
  },
)

it('lists come back by themselves when Redis has lost everything', patience, async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const house = await startHouse({ uploads: { redisUrl: redis.url, sweepEveryMs: 200 } })
  const ids = [
    await house.create('ann', { body: 'abc' }),
    await house.create('ann', { length: 5, body: 'ab' }),
  ]
  const part = await house.create('ann', { length: 4, partial: true })
  ids.push(await house.concat('ann', [part]))
  await house.create('bob', { length: 1 })
  const listed = async () => {
    const { status, body } = await house.get('/uploads', 'ann')
    return status === 200 ? body.uploads.map(({ id }: { id: string }) => id).toSorted() : status
  }
  expect(await listed()).toEqual(ids.toSorted())
  // A walk that is under way would end as if it had found everything.
  const { records } = house.uploads.server.engine
  await vi.waitFor(async () => expect(await records!.lastWalk()).toBeDefined())
  await redis.command('FLUSHALL')
  await vi.waitFor(async () => expect(await listed()).toEqual(ids.toSorted()), patience)
})

it('a reader is shown everything anew, and hears again, when Redis was away', patience, async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const uploads = {
    redisUrl: redis.url,
    redisKeyPrefix: `${randomUUID()}:`,
    leaseMs: 2000,
    sweepEveryMs: 500,
  }
  const one = await startHouse({ uploads })
  const two = await startHouse({ uploads, folder: one.folder })
  const id = await one.create('ann', { length: 6, body: 'ab' })
  const stream = await two.watch('/uploads/events', 'ann')
  const snapshots = () => stream.events.filter(({ kind }) => kind === 'snapshot').length
  await vi.waitFor(() => expect(snapshots()).toBeGreaterThan(0))

  await redis.kill()
  await vi.waitFor(async () => expect((await two.get('/uploads', 'ann')).status).toBe(503), patience)
  expect((await two.get(`/uploads/${id}`, 'ann')).body).toMatchObject({ offset: 2 })
  const before = snapshots()
  await redis.restart()
  await vi.waitFor(() => expect(snapshots()).toBeGreaterThan(before), patience)
  await vi.waitFor(async () => expect(await one.append('ann', id, 2, 'cd')).toBe('appended'), patience)
  await stream.until(({ data }) => data.offset === 4 || data.uploads?.[0]?.offset === 4)
  await one.append('ann', id, 4, 'ef')
  await stream.until(({ kind }) => kind === 'finished')
})

it('parts of a parallel upload are counted as one by every server', patience, async () => {
  const uploads = { redisUrl: inject('redisUrl'), redisKeyPrefix: `${randomUUID()}:` }
  const one = await startHouse({ uploads })
  const two = await startHouse({ uploads, folder: one.folder })
  const parts = [
    await one.create('ann', { length: MiB, partial: true }),
    await two.create('ann', { length: MiB, partial: true }),
  ]
  const id = await one.concat('ann', parts)
  const streams = [await one.watch('/uploads/events', 'ann'), await two.watch('/uploads/events', 'ann')]
  const bodies = [openBody('x'.repeat(1000)), openBody('x'.repeat(1000))]
  const appends = [one.append('ann', parts[0]!, 0, bodies[0]!), two.append('ann', parts[1]!, 0, bodies[1]!)]
  for (const stream of streams) {
    const { data } = await stream.until(({ kind, data }) => kind === 'progress' && data.offset === 2000)
    expect(data).toMatchObject({ id, length: 2 * MiB, partCount: 2, partsFinished: 0 })
  }
  for (const body of bodies) body.end('x'.repeat(MiB - 1000))
  expect(await Promise.all(appends)).toEqual(['appended', 'appended'])
  for (const stream of streams) await stream.until(({ kind, data }) => kind === 'finished' && data.id === id)
})

async function watch(url: string, id: string): Promise<EventReader> {
  const stream = await readEvents(`${url}/uploads/${id}/events`)
  onTestFinished(() => stream.close())
  await stream.until(({ kind }) => kind === 'snapshot')
  return stream
}

async function create(url: string, length: number): Promise<string> {
  const answer = await fetch(`${url}/files/`, {
    method: 'POST',
    headers: { ...tus, 'Upload-Length': String(length) },
  })
  expect(answer.status).toBe(201)
  return answer.headers.get('location')!.split('/').at(-1)!
}

/** A PATCH whose body is up to the test. */
function open(url: string, id: string, offset: number, length: number) {
  const type = 'application/offset+octet-stream'
  const headers = { ...tus, 'Content-Type': type, 'Content-Length': length, 'Upload-Offset': offset }
  const patch = request(`${url}/files/${id}`, { method: 'PATCH', agent: false, headers })
  patch.on('error', () => undefined).on('response', (answer) => answer.resume())
  onTestFinished(() => void patch.destroy())
  return patch
}

async function append(url: string, id: string, offset: number, body: Buffer): Promise<void> {
  const headers = {
    ...tus,
    'Content-Type': 'application/offset+octet-stream',
    'Upload-Offset': String(offset),
  }
  await vi.waitFor(async () => {
    const answer = await fetch(`${url}/files/${id}`, { method: 'PATCH', headers, body })
    expect(answer.status).toBe(204)
  }, patience)
}

async function counted(url: string, id: string): Promise<unknown> {
  return (await fetch(`${url}/uploads/${id}`)).json()
}
