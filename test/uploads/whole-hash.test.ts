import { createHash } from 'node:crypto'
import { truncate } from 'node:fs/promises'
import { PassThrough } from 'node:stream'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { WholeHashes } from '../../server/uploads/whole-hash.ts'
import type { Appender, Digest } from '../../stores/contracts.ts'
import { FileAppender } from '../../stores/file/file-appender.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { request, startEngine } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes } from '../support/random-file.ts'
import { chance } from '../support/seed.ts'

const MiB = 1024 * 1024
const digestOf = (bytes: Uint8Array): Digest => ({
  algorithm: 'sha-256',
  base64: createHash('sha256').update(bytes).digest('base64'),
})
const goesOn = () => false

/** One request: opens the upload, sends `bytes` in pieces, lets it go; and says how many bytes it read back. */
async function send(store: FileBytes, hashes: WholeHashes, bytes: Uint8Array, to: number, catchesUp = false) {
  const appender = (await store.open('a'))!
  const readBack = counting(appender)
  const whole = hashes.begin(appender)!
  if (catchesUp) whole.catchUp()
  const from = appender.record.mark.offset
  for (let at = from; at < to; ) {
    const piece = bytes.subarray(at, Math.min(to, at + 100_000))
    whole.update(piece)
    await appender.write([piece], at)
    whole.wrote()
    at += piece.length
  }
  let digest: Digest | undefined
  if (to === bytes.length) {
    digest = await whole.digest(to, goesOn)
    await appender.finish(to, digest)
  } else await appender.commit({ offset: to, last: true })
  await whole.stop()
  await appender.close()
  hashes.keep(whole, appender.record)
  return { digest, readBack: readBack() }
}

function counting(appender: Appender): () => number {
  let count = 0
  const read = appender.read.bind(appender)
  appender.read = async function* (start, end) {
    for await (const bytes of read(start, end)) {
      count += bytes.length
      yield bytes
    }
  }
  return () => count
}

async function setUp(length: number) {
  const store = new FileBytes({ directory: await temporaryFolder(), durability: 'none' })
  await store.start()
  const bytes = randomBytes('whole hash', length)
  const made = await store.create({ id: 'a', createdAt: 1, dialect: 'tus', digest: digestOf(bytes) }, length)
  await made.commit({ offset: 0, last: true })
  await made.close()
  return { store, bytes }
}

describe('the hash of a whole upload', () => {
  it('goes on from one request to the next, without reading anything again', async () => {
    const { store, bytes } = await setUp(MiB)
    const hashes = new WholeHashes('declared')
    let read = 0
    for (const to of [200_000, 200_001, 700_000, MiB])
      read += (await send(store, hashes, bytes, to, true)).readBack
    expect(read).toBe(0)
    expect((await store.look('a'))!.mark.digest).toEqual(digestOf(bytes))
  })

  for (const catchesUp of [true, false])
    it(`reads once what another process received, ${catchesUp ? 'beside the body' : 'for the finish'}`, async () => {
      const { store, bytes } = await setUp(3 * MiB)
      const [one, two] = [new WholeHashes('declared'), new WholeHashes('declared')]
      await send(store, one, bytes, MiB)
      const between = await send(store, two, bytes, 2 * MiB, catchesUp)
      const { digest, readBack } = await send(store, one, bytes, 3 * MiB, catchesUp)
      expect(digest).toEqual(digestOf(bytes))
      expect(between.readBack).toBeLessThanOrEqual(2 * MiB)
      expect(readBack).toBeLessThanOrEqual(3 * MiB)
    })

  it('is not taken for that of other bytes when somebody set the upload back meanwhile', async () => {
    const { store, bytes } = await setUp(MiB)
    const hashes = new WholeHashes('declared')
    const other = Buffer.from(bytes).fill(1, 100_000, 200_000)
    await send(store, hashes, other, 200_000)
    // A disk that lost some of it, found by another server.
    await truncate((await store.look('a'))!.storage!.path, 100_000)
    await send(store, new WholeHashes('declared'), bytes, 300_000)
    expect((await send(store, hashes, bytes, MiB)).digest).toEqual(digestOf(bytes))
  })

  it('is right however processes, lengths and ways to catch up mix', async () => {
    const random = chance('whole hash')
    for (let round = 0; round < 20; round++) {
      const { store, bytes } = await setUp(random.between(0, 2 * MiB))
      const processes = [new WholeHashes('always'), new WholeHashes('always'), new WholeHashes('always')]
      let digest: Digest | undefined
      for (let to = 0; digest === undefined; ) {
        to = Math.min(bytes.length, to + random.between(1, MiB))
        const hashes = processes[random.between(0, 2)]!
        ;({ digest } = await send(store, hashes, bytes, to, random.next() < 0.5))
      }
      expect(digest).toEqual(digestOf(bytes))
    }
  })

  it('ends at once when the request is asked to stop, and is gone on with in the next one', async () => {
    const { store, bytes } = await setUp(4 * MiB)
    await send(store, new WholeHashes('declared'), bytes, 4 * MiB - 1)
    const hashes = new WholeHashes('declared')
    const appender = (await store.open('a'))!
    const whole = hashes.begin(appender)!
    let asked = 0
    expect(await whole.digest(4 * MiB, () => ++asked > 2)).toBeUndefined()
    await appender.close()
    hashes.keep(whole, appender.record)
    const { digest, readBack } = await send(store, hashes, bytes, 4 * MiB)
    expect(digest).toEqual(digestOf(bytes))
    expect(readBack).toBeLessThan(4 * MiB)
  })
})

it.each([
  ['stays open between them', false],
  ['is let go of and opened again between them', true],
])(
  'an upload in four requests that %s is verified, read back by none, and its record tells the digest',
  async (_, isLetGo) => {
    const directory = await temporaryFolder()
    const bytes = randomBytes('displaced', 2 * MiB)
    const locker = new LocalLocker()
    const { engine } = await startEngine(directory, { locker })
    const created = await engine.create(
      {
        ...{ do: 'create', length: bytes.length, metadata: undefined, isBytes: false, hasBody: false },
        ...{ contentLength: 0, checksum: undefined, digest: digestOf(bytes) },
      },
      request(),
    )
    if (created.is !== 'created') throw new Error(created.is)
    const { id } = created.record.head
    const read = vi.spyOn(FileAppender.prototype, 'read')
    onTestFinished(() => read.mockRestore())
    let outcome: unknown
    for (let offset = 0; offset < bytes.length; offset += MiB / 2) {
      const body = new PassThrough()
      const appending = engine.append(
        { do: 'append', id, offset, length: undefined, contentLength: undefined, checksum: undefined },
        request(body),
      )
      body.end(bytes.subarray(offset, offset + MiB / 2))
      outcome = await appending
      expect(outcome).toMatchObject({ is: 'appended' })
      if (isLetGo) await (await locker.acquire(id, { timeoutMs: 1000 })).release()
    }
    expect(outcome).toMatchObject({ record: { mark: { state: 'finished', digest: digestOf(bytes) } } })
    expect(read).not.toHaveBeenCalled()
  },
)
