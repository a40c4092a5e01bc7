// One server of several processes, without Redis: what holds between servers must hold between its workers, whichever of
// its processes is killed or stopped.

import { EventEmitter } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WorkerLink } from '../../server/workers/worker-link.ts'
import { rawConnection } from '../host/process.ts'
import { childrenOf, isRunning } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'
import { chance } from '../support/seed.ts'
import { startServer } from '../support/server-process.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { expectAllWell, type Finished } from './last-look.ts'
import { contentOf } from './ledger-client.ts'
import { uploadMany } from './many-uploads.ts'
import { send } from './wire-request.ts'

const KiB = 1024
const MiB = 1024 * KiB
const startWorkers = (count = 2, hasRedis = false) =>
  startFleet({
    ...(hasRedis ? { servers: 1 } : { redisUrl: 'embedded' }),
    args: ['--workers', String(count), '--log-level', 'debug'],
  })

const said = (fleet: Fleet, msg: string) => fleet.logs().filter((line) => line.msg === msg)
const listening = (fleet: Fleet, times: number) =>
  expect.poll(() => said(fleet, 'the worker listens').length, { timeout: 30_000 }).toBe(times)

describe('workers', () => {
  it('all receive uploads, of which each is finished and told once', async () => {
    const fleet = await startWorkers()
    const done = await uploadMany(fleet, 'workers', {
      uploads: 12,
      bytes: MiB,
      patchBytes: [16 * KiB, 256 * KiB],
      bytesPerSecond: 0,
      faults: [],
    })
    await expectAllWell(fleet, done)
    const numbers = new Set(said(fleet, 'request').map(({ worker }) => worker))
    expect([...numbers].toSorted()).toEqual([1, 2])
  }, 60_000)

  it('run the server itself, also where it was started by way of `npm start`', async () => {
    const main = new URL('../../scripts/start.mjs', import.meta.url).pathname
    const server = await startServer({ dir: await temporaryFolder(), main, args: ['--workers', '2'] })
    onTestFinished(async () => void (await server.stop()))
    const programs = childrenOf(server.pid).map(
      (pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[1],
    )
    expect(programs).toEqual([
      expect.stringMatching(/dist\/server\/main\.js$/),
      expect.stringMatching(/dist\/server\/main\.js$/),
    ])
  }, 30_000)

  it('take uploads over from each other, in the same files', async () => {
    const fleet = await startWorkers()
    const done: Finished[] = []
    let crossed = 0
    while (crossed < 5 && done.length < 40) {
      const upload = await takeOver(fleet, `take-over ${done.length}`)
      done.push(upload)
      const lineOf = (method: string, status: number) =>
        said(fleet, 'request').find(
          (l) => l.url === upload.path && l.method === method && l.status === status,
        )
      await expect.poll(() => lineOf('PATCH', 423)).toBeDefined()
      if (lineOf('PATCH', 423)!.worker !== lineOf('HEAD', 200)!.worker) crossed += 1
    }
    expect(crossed, 'take-overs by another worker').toBe(5)
    // Nothing was copied: a successor goes on where the one before it let go.
    for (const { id } of done) expect(existsSync(`${fleet.folder}/.${id}.1.mark`)).toBe(false)
    await expectAllWell(fleet, done)
  }, 60_000)

  it.each(['without Redis', 'with Redis'])(
    'that are killed under 20 uploads lose nothing, and others take their places, %s',
    async (redis) => {
      const fleet = await startWorkers(2, redis === 'with Redis')
      const random = chance(`killed workers ${redis}`)
      const parts = [0.1, 0.25, 0.45, 0.65, 0.8]
      const done = await uploadMany(fleet, `killed workers ${redis}`, {
        uploads: 20,
        bytes: 2 * MiB,
        bytesPerSecond: MiB,
        faults: parts.map((part, times) => [
          part,
          async () => {
            fleet.signalWorker(random.pick(fleet.workersOf(0)), 'SIGKILL')
            await listening(fleet, times + 1)
          },
        ]),
      })
      await expectAllWell(fleet, done)
      expect(said(fleet, 'a worker ended; another one takes its place')).toHaveLength(parts.length)
      expect(fleet.workersOf(0)).toHaveLength(2)
    },
    120_000,
  )

  it('pass on an upload that stays open with one of them, piece by piece, and nobody has to ask twice', async () => {
    const fleet = await startWorkers()
    const url = fleet.urls[0]!
    const [pieces, bytes, seed] = [40, 4 * KiB, 'by turns']
    const headers = { 'Upload-Length': pieces * bytes }
    const created = await send('POST', `${url}/files/`, { headers })
    const path = new URL((created as { location: string }).location).pathname
    for (let offset = 0; offset < pieces * bytes; offset += bytes) {
      const ended = await send('PATCH', url + path, {
        headers: {
          'Upload-Offset': offset,
          'Content-Type': 'application/offset+octet-stream',
          'Content-Length': bytes,
        },
        body: [contentOf(seed, offset, offset + bytes)],
      })
      expect(ended).toMatchObject({ status: 204, offset: offset + bytes })
      if (offset % (3 * bytes) === 0)
        expect(await send('HEAD', url + path)).toMatchObject({ status: 200, offset: offset + bytes })
    }
    const id = path.slice(path.lastIndexOf('/') + 1)
    await expectAllWell(fleet, [{ id, path, bytes: pieces * bytes, seed }])
    const patches = said(fleet, 'request').filter(({ method }) => method === 'PATCH')
    expect([...new Set(patches.map(({ worker }) => worker))].toSorted()).toEqual([1, 2])
    expect(existsSync(`${fleet.folder}/.${id}.1.mark`)).toBe(false)
  }, 60_000)

  it('that are killed between the pieces of uploads lose nothing', async () => {
    const fleet = await startWorkers()
    const random = chance('killed between pieces')
    const parts = [0.2, 0.4, 0.6]
    const done = await uploadMany(fleet, 'killed between pieces', {
      ...{ uploads: 12, bytes: MiB, patchBytes: [4 * KiB, 48 * KiB], bytesPerSecond: 0 },
      faults: parts.map((part, times) => [
        part,
        async () => {
          fleet.signalWorker(random.pick(fleet.workersOf(0)), 'SIGKILL')
          await listening(fleet, times + 1)
        },
      ]),
    })
    await expectAllWell(fleet, done)
  }, 120_000)

  it('that are stopped are killed by their primary, and their uploads go on', async () => {
    const fleet = await startWorkers()
    const done = await uploadMany(fleet, 'stopped worker', {
      uploads: 10,
      bytes: 2 * MiB,
      bytesPerSecond: MiB / 2,
      faults: [
        [
          0.3,
          async () => {
            const [pid] = fleet.workersOf(0) as [number, number]
            onTestFinished(() => void (isRunning(pid) && process.kill(pid, 'SIGKILL')))
            fleet.signalWorker(pid, 'SIGSTOP')
            await listening(fleet, 1)
            expect(isRunning(pid)).toBe(false)
          },
        ],
      ],
    })
    expect(done.map(({ silences }) => silences)).toEqual(done.map(() => 0))
    await expectAllWell(fleet, done)
    expect(said(fleet, 'a worker does not answer; it is killed')).toHaveLength(1)
  }, 120_000)

  it('that are stopped while another one opens its files are killed, and all goes on', async () => {
    const fleet = await startWorkers(3)
    const stop = (pid: number) => {
      onTestFinished(() => void (isRunning(pid) && process.kill(pid, 'SIGKILL')))
      fleet.signalWorker(pid, 'SIGSTOP')
    }
    const done = await uploadMany(fleet, 'stopped beside an opening', {
      uploads: 10,
      bytes: 2 * MiB,
      bytesPerSecond: MiB / 2,
      faults: [
        [
          0.3,
          async () => {
            const [stopped, killed] = fleet.workersOf(0) as [number, number, number]
            stop(stopped)
            fleet.signalWorker(killed, 'SIGKILL')
            await listening(fleet, 2)
            expect(isRunning(stopped)).toBe(false)
          },
        ],
      ],
    })
    await expectAllWell(fleet, done)
    expect(said(fleet, 'a worker does not answer; it is killed')).toHaveLength(1)
  }, 120_000)

  it('end with their primary when it is killed, and the next one has folder and port at once', async () => {
    const fleet = await startWorkers(3)
    const workers: number[] = []
    const done = await uploadMany(fleet, 'killed primary', {
      uploads: 10,
      bytes: 2 * MiB,
      bytesPerSecond: MiB,
      faults: [0.2, 0.5, 0.7].map((part) => [
        part,
        () => {
          workers.push(...fleet.workersOf(0))
          return fleet.killAndRestart(0)
        },
      ]),
    })
    expect(workers).toHaveLength(9)
    expect(workers.filter(isRunning)).toEqual([])
    await expectAllWell(fleet, done)
  }, 120_000)

  it('end with a primary that is ended while they start, and are told of connections that it has given away', async () => {
    for (let round = 0; round < 6; round++) {
      const fleet = await startFleet({
        redisUrl: 'embedded',
        args: ['--workers', '3', '--quota-open-uploads', '100000'],
      })
      const workers = fleet.workersOf(0)
      const creations = Array.from({ length: 60 }, () =>
        send('POST', `${fleet.urls[0]}/files/`, { headers: { 'Upload-Length': 5 } }).catch(() => undefined),
      )
      await fleet.kill(0)
      await Promise.all(creations)
      await expect.poll(() => workers.filter(isRunning), { timeout: 10_000 }).toEqual([])
    }
  }, 120_000)
})

it('a worker ends before node:cluster makes an uncaught error of what it could not say to a primary that is gone', () => {
  const seen: string[] = []
  const ownProcess = new EventEmitter()
  // As node:cluster does, before anybody else can listen.
  ownProcess.on('error', () => seen.push('node:cluster'))
  ownProcess.on('disconnect', () => seen.push('node:cluster'))
  const kill = (pid: number, signal: string) => seen.push(`${pid} ${signal}`)
  new WorkerLink(1, Object.assign(ownProcess, { pid: 42, kill }) as unknown as NodeJS.Process)
  ownProcess.emit('error', new Error('write EPIPE'))
  ownProcess.emit('disconnect')
  expect(seen).toEqual(['42 SIGKILL', 'node:cluster', '42 SIGKILL', 'node:cluster'])
})

/** Finishes an upload whose first request lives, and brings nothing any more. */
async function takeOver({ urls, servers }: Fleet, seed: string): Promise<Finished> {
  const url = urls[0]!
  const bytes = 300 * KiB
  const created = await send('POST', `${url}/files/`, { headers: { 'Upload-Length': bytes } })
  const path = new URL((created as { location: string }).location).pathname
  const stalled = await rawConnection(servers[0]!.port)
  stalled.send(
    `PATCH ${path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Length: ${bytes}\r\n` +
      'Content-Type: application/offset+octet-stream\r\nExpect: 100-continue\r\n\r\n',
  )
  await stalled.until('100 Continue')
  stalled.socket.write(contentOf(seed, 0, 100 * KiB))
  const asked = await send('HEAD', url + path)
  expect(asked).toMatchObject({ status: 200 })
  await stalled.until('HTTP/1.1 423')
  stalled.socket.destroy()
  const offset = (asked as { offset: number }).offset
  const ended = await send('PATCH', url + path, {
    headers: {
      'Upload-Offset': offset,
      'Content-Type': 'application/offset+octet-stream',
      'Content-Length': bytes - offset,
    },
    body: [contentOf(seed, offset, bytes)],
  })
  expect(ended).toMatchObject({ status: 204, offset: bytes })
  return { id: path.slice(path.lastIndexOf('/') + 1), path, bytes, seed }
}
