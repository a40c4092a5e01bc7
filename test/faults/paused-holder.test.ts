// SIGSTOP of the server that holds the locks, in the middle of bodies and of the opening of files; another one goes on
// with other bytes. When the stopped one wakes up, before or long after that, nothing that it writes may be found.

import { createHash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it, onTestFinished } from 'vitest'
import { deferred } from '../support/deferred.ts'
import { type Chance, chance } from '../support/seed.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { expectAllWell, type Finished } from './last-look.ts'
import { contentOf } from './ledger-client.ts'
import { type Ended, send } from './wire-request.ts'

const KiB = 1024
const leaseMs = 1500
const uploadsAtOnce = 40

/** When the stopped server wakes up. */
type Wake =
  | 'twice the lease later, when all is finished'
  | 'while the other one goes on'
  | 'before its lease is over'
const rounds: Wake[] = [
  'twice the lease later, when all is finished',
  'while the other one goes on',
  'twice the lease later, when all is finished',
  'before its lease is over',
  'twice the lease later, when all is finished',
]

interface Upload {
  readonly path: string
  readonly id: string
  readonly seed: string
  readonly bytes: number
  /** What the first server was sent, and acknowledged, before all this; there it goes on in the same files. */
  readonly begun: number
}

it('200 uploads of a server that is stopped are finished by another one, and nothing that it writes later is found', async () => {
  const fleet = await startFleet({ args: ['--lease', `${leaseMs}ms`] })
  const [held] = fleet.servers
  onTestFinished(() => held!.signal('SIGCONT'))
  const finished: Finished[] = []
  const removed: string[] = []
  for (const [round, wake] of rounds.entries()) {
    const random = chance(`paused holder ${round}`)
    const uploads = await createAll(fleet, round, random)
    const all = await stopAndGoOn(fleet, uploads, wake, random)
    for (const [i, { late, handedOverAt }] of all.entries()) {
      const { path, id, bytes, seed, begun } = uploads[i]!
      const what = `${wake}: ${path} (${handedOverAt} of ${bytes}), the stopped server said ${JSON.stringify(late)}`
      if (handedOverAt === 'removed') {
        removed.push(id)
        for (const url of fleet.urls)
          expect(await send('HEAD', url + path), what).toMatchObject({ status: 404 })
        continue
      }
      // 409 says what there is, not what it did.
      if (late.is === 'answered' && late.status !== 409 && late.offset !== undefined)
        expect(late.offset, what).toBeLessThanOrEqual(handedOverAt)
      expect(handedOverAt, what).toBeGreaterThanOrEqual(begun)
      const expected = Buffer.concat([
        contentOf(`${seed} first`, 0, handedOverAt),
        contentOf(`${seed} second`, handedOverAt, bytes),
      ])
      for (const content of await Promise.all(fleet.urls.map((url) => download(url + path)))) {
        if (!content.equals(expected))
          expect.fail(`${what}: differs at ${firstDifference(content, expected)}`)
      }
      finished.push({ path, id, bytes, sha256: createHash('sha256').update(expected).digest('hex') })
    }
  }
  expect(finished.length + removed.length).toBe(rounds.length * uploadsAtOnce)
  const takenOver = (await readdir(fleet.folder)).filter((name) => /\.[1-9]\.data$/.test(name))
  expect(takenOver.length, 'uploads that were taken over from a writer that was alive').toBeGreaterThan(50)
  await expectAllWell(fleet, finished, { unfinished: removed, wasStopped: true })
}, 120_000)

async function createAll({ urls }: Fleet, round: number, random: Chance): Promise<Upload[]> {
  return Promise.all(
    Array.from({ length: uploadsAtOnce }, async (_, i) => {
      const bytes = random.between(2048 * KiB, 3072 * KiB)
      const path = await create(`${urls[0]}/files/`, bytes)
      const seed = `paused ${round} ${i}`
      const upload = { path, id: path.slice(path.lastIndexOf('/') + 1), seed, bytes, begun: 0 }
      const begun = random.between(1, 512 * KiB)
      const ended = await append(urls[0]!, upload, 'first', 0, { end: begun })
      expect(ended).toMatchObject({ status: 204, offset: begun })
      return { ...upload, begun }
    }),
  )
}

async function create(url: string, bytes: number): Promise<string> {
  for (;;) {
    const ended = await send('POST', url, { headers: { 'Upload-Length': bytes } })
    if (ended.is === 'answered' && ended.location !== undefined) return new URL(ended.location).pathname
    // One that has just woken up has to find its Redis again.
    expect(ended).toMatchObject({ status: 503 })
    await sleep(50)
  }
}

interface GoneOn {
  /** What the server that was stopped had to say. */
  readonly late: Ended
  /** From where on the other client's bytes count. */
  readonly handedOverAt: number | 'removed'
}

async function stopAndGoOn(fleet: Fleet, uploads: Upload[], wake: Wake, random: Chance): Promise<GoneOn[]> {
  const server = fleet.servers[0]!
  const [first, second] = fleet.urls as [string, string]
  // Three quarters are in the middle of their bodies, the others have just been sent.
  const early = uploads.slice(0, (3 * uploads.length) / 4)
  const stopAt = early.length * random.between(100, 800) * KiB
  let sent = 0
  const isTime = deferred()
  const onSent = (bytes: number) => {
    sent += bytes
    if (sent >= stopAt) isTime.resolve()
  }
  const send = (upload: Upload, pace: Pace) => append(first, upload, 'first', upload.begun, pace)
  const late = early.map((upload) =>
    send(upload, { bytesPerSecond: random.between(2048, 4096) * KiB, onSent }),
  )
  await Promise.race([isTime.promise, Promise.all(late)])
  for (const upload of uploads.slice(early.length)) late.push(send(upload, {}))
  await sleep(random.between(0, 12))
  server.signal('SIGSTOP')
  const stoppedAt = performance.now()
  let gone = 0
  const someGone = deferred()
  const goingOn = uploads.map(async (upload, i) => {
    // A server that wakes up in time may finish its uploads as well as anybody.
    const isRemoved = i % 10 === 9 && wake !== 'before its lease is over'
    const handedOverAt = isRemoved ? await remove(second, upload) : await goOn(second, upload)
    if (++gone === uploads.length / 2) someGone.resolve()
    return handedOverAt
  })
  if (wake === 'twice the lease later, when all is finished') {
    await Promise.all(goingOn)
    await sleep(stoppedAt + 2 * leaseMs - performance.now())
  } else if (wake === 'while the other one goes on')
    await Promise.race([someGone.promise, Promise.all(goingOn)])
  else await sleep(leaseMs / 2)
  server.signal('SIGCONT')
  const handedOver = await Promise.all(goingOn)
  return (await Promise.all(late)).map((ended, i) => ({ late: ended, handedOverAt: handedOver[i]! }))
}

interface Pace {
  end?: number
  bytesPerSecond?: number
  onSent?: (bytes: number) => void
}

function append(
  url: string,
  { path, seed, bytes }: Upload,
  who: 'first' | 'second',
  offset: number,
  { end = bytes, bytesPerSecond = 0, onSent }: Pace = {},
): Promise<Ended> {
  function* pieces(): Generator<Buffer> {
    for (let at = offset; at < end; at += 64 * KiB) {
      const piece = contentOf(`${seed} ${who}`, at, Math.min(end, at + 64 * KiB))
      yield piece
      onSent?.(piece.length)
    }
  }
  const headers = {
    'Upload-Offset': offset,
    'Content-Type': 'application/offset+octet-stream',
    'Content-Length': end - offset,
  }
  return send('PATCH', url + path, { headers, body: pieces(), bytesPerSecond })
}

/** Finishes an upload as any client does; answers the offset from which it did. */
async function goOn(url: string, upload: Upload): Promise<number> {
  // From where on its bytes count, once some did: the other client may have wanted the upload back in the middle.
  let from: number | undefined
  for (;;) {
    const asked = await send('HEAD', url + upload.path)
    if (asked.is === 'answered' && asked.status === 200 && asked.offset !== undefined) {
      if (asked.offset === upload.bytes) return from ?? asked.offset
      const ended = await append(url, upload, 'second', asked.offset)
      if (ended.is === 'answered' && ended.status === 204) {
        expect(ended.offset).toBe(upload.bytes)
        return from ?? asked.offset
      }
      if (ended.is === 'answered' && ended.status === 423 && (ended.offset ?? 0) > asked.offset)
        from ??= asked.offset
      expect(ended.is === 'cut' ? 423 : ended.status, JSON.stringify(ended)).toSatisfy(isPassing)
    } else expect(asked.is === 'cut' ? 423 : asked.status, JSON.stringify(asked)).toBe(423)
    await sleep(50)
  }
}

async function remove(url: string, { path }: Upload): Promise<'removed'> {
  for (;;) {
    const ended = await send('DELETE', url + path)
    if (ended.is === 'answered' && [204, 404].includes(ended.status)) return 'removed'
    expect(ended.is === 'cut' ? 423 : ended.status, JSON.stringify(ended)).toSatisfy(isPassing)
    await sleep(50)
  }
}

function isPassing(status: number): boolean {
  return status === 409 || status === 423 || status === 503
}

async function download(url: string): Promise<Buffer> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  return Buffer.from(await response.arrayBuffer())
}

function firstDifference(a: Buffer, b: Buffer): number {
  let at = 0
  while (at < a.length && a[at] === b[at]) at++
  return at
}
