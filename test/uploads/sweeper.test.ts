import { readdir, rm, utimes, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { EngineParts, UploadEngine } from '../../server/uploads/engine.ts'
import { isWalkDue, Sweeper } from '../../server/uploads/sweeper.ts'
import type { Lock, Locker, UploadRecord } from '../../stores/contracts.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { RedisRecords } from '../../stores/redis/redis-records.ts'
import { deferred } from '../support/deferred.ts'
import { append, createUpload, openBody, request, startEngine } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startRedis } from '../support/redis.ts'

const hourMs = 3_600_000
const sliding = { expiry: { afterMs: hourMs, mode: 'sliding' } } as const
const absolute = { expiry: { afterMs: hourMs, mode: 'absolute' } } as const

it('removes unfinished uploads once their time is over, with all that belongs to them', async () => {
  const { engine, folder, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '1234')

  expect(await sweeper.sweepExpired(Date.now() + hourMs - 1000)).toBe(0)
  expect(await engine.offset(id, request())).toMatchObject({ is: 'offset' })

  expect(await sweeper.sweepExpired(Date.now() + hourMs + 1000)).toBe(1)
  expect(await engine.offset(id, request())).toMatchObject({ refusal: { code: 'not-found' } })
  expect(await engine.records!.get(id)).toBe(undefined)
  expect(await filesIn(folder)).toEqual([])
})

it('never removes a finished upload', async () => {
  const { engine, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 4, '1234')
  expect(await sweeper.sweepExpired(Date.now() + 1000 * hourMs)).toBe(0)
  expect(await sweeper.walk(Date.now() + 1000 * hourMs)).toMatchObject({ removed: 0 })
  expect(await engine.read(id, request())).toMatchObject({ is: 'readable' })
})

it('counts from the last kept byte, or from the creation', async () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  for (const [settings, isThere] of [
    [sliding, true],
    [absolute, false],
  ] as const) {
    const { engine, sweeper } = await sweeping(settings)
    const id = await createUpload(engine, 10, '12')
    vi.setSystemTime(Date.now() + hourMs / 2)
    await append(engine, id, 2, '34')
    vi.setSystemTime(Date.now() + hourMs / 2 + 1000)
    await sweeper.sweepExpired(Date.now())
    expect((await engine.bytes.look(id)) !== undefined).toBe(isThere)
  }
})

it('is not put off by requests that bring nothing', async () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  const { engine, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '12')
  vi.setSystemTime(Date.now() + hourMs / 2)
  await append(engine, id, 2, '')
  vi.setSystemTime(Date.now() + hourMs / 2)
  expect(await sweeper.sweepExpired(Date.now())).toBe(1)
})

it('answers that an expired upload is gone until it is swept', async () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  const { engine } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '12')
  vi.setSystemTime(Date.now() + hourMs + 1)
  expect(await engine.offset(id, request())).toMatchObject({ refusal: { code: 'gone', status: 410 } })
  expect(await append(engine, id, 2, '34')).toMatchObject({ refusal: { code: 'gone' } })
  expect(await engine.terminate(id, request())).toMatchObject({ refusal: { code: 'gone' } })
})

it('leaves an upload alone that is being received', async () => {
  const { engine, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '12')
  const body = openBody('34')
  const running = append(engine, id, 2, body)
  await vi.waitFor(async () => expect((await engine.bytes.look(id))?.mark.offset).toBe(4), { timeout: 5000 })
  expect(await sweeper.sweepExpired(Date.now() + 1000)).toBe(0)
  body.end('567890')
  expect(await running).toMatchObject({ is: 'appended', record: { mark: { state: 'finished' } } })
})

it('finds by walking what the index has lost, and puts lost records back', async () => {
  const { engine, sweeper } = await sweeping(sliding)
  const kept = await createUpload(engine, 4, '1234')
  const expired = await createUpload(engine, 10, '1234')
  await engine.records!.remove(kept)
  await engine.records!.remove(expired)

  expect(await sweeper.sweepExpired(Date.now() + 2 * hourMs)).toBe(0)
  expect(await sweeper.walk(Date.now() + 2 * hourMs)).toMatchObject({ removed: 1 })
  expect(await engine.records!.get(kept)).toMatchObject({ mark: { state: 'finished', offset: 4 } })
  expect(await engine.bytes.look(expired)).toBe(undefined)
})

it('takes records out whose uploads are gone', async () => {
  const { engine, folder, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '12')
  for (const name of await readdir(folder)) if (name.includes(id)) await rm(path.join(folder, name))
  await sweeper.sweepExpired(Date.now() + 2 * hourMs)
  expect(await engine.records!.get(id)).toBe(undefined)
  expect(await engine.records!.expiring(Date.now() + 2 * hourMs, 10)).toEqual([])
})

it('finds by walking records whose uploads are gone, finished ones too', async () => {
  const { engine, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 4, '1234')
  const record = await engine.records!.get(id)
  await engine.terminate(id, request())
  // As a Redis that was started from an older snapshot does it.
  await engine.records!.put(record!)
  await sweeper.walk(Date.now())
  expect(await engine.records!.get(id)).toBe(undefined)
})

it('leaves the record of what is being made, and takes it out an hour later when nothing was made', async () => {
  const { engine, sweeper } = await sweeping({}, 60_000, { audiences: [] })
  const { created, goOn } = await heldCreation(engine)
  const [draft] = await engine.records!.recent(9)
  await sweeper.walk(Date.now())
  goOn()
  const id = await created
  expect((await engine.records!.list({ limit: 9 })).records).toMatchObject([{ head: { id } }])

  await engine.terminate(id, request())
  await engine.records!.put(draft!)
  await sweeper.walk(Date.now() + hourMs - 10_000)
  expect(await engine.records!.get(id)).toBeDefined()
  await sweeper.walk(Date.now() + hourMs)
  expect(await engine.records!.get(id)).toBe(undefined)
})

it('leaves the record of what was made, and went on, while the walk looked for it', async () => {
  const { engine, sweeper } = await sweeping({}, 60_000, { audiences: [] })
  const { created, goOn } = await heldCreation(engine)
  const { get } = engine.records!
  vi.spyOn(engine.records!, 'get').mockImplementationOnce(async (id) => {
    goOn()
    await append(engine, await created, 0, 'abc')
    return get.call(engine.records, id)
  })
  await sweeper.walk(Date.now())
  expect(await engine.records!.get(await created)).toMatchObject({ mark: { offset: 3 } })
})

it('removes what a creation left that was cut off, and nothing that is not ours', async () => {
  const { folder, sweeper } = await sweeping(sliding)
  const orphan = path.join(folder, `.${'ab'.repeat(16)}.0.mark`)
  const foreign = path.join(folder, 'holiday.jpg')
  for (const file of [orphan, foreign]) {
    await writeFile(file, '')
    await utimes(file, new Date(0), new Date(0))
  }
  expect(await sweeper.walk(Date.now())).toEqual({ removed: 0, orphans: 1 })
  expect(await filesIn(folder)).toEqual(['holiday.jpg'])
})

it('sweeps by itself, and ends when it is closed', async () => {
  const { engine, sweeper } = await sweeping({ expiry: { afterMs: 1, mode: 'sliding' } }, 20)
  sweeper.start()
  const id = await createUpload(engine, 10, '12')
  await vi.waitFor(async () => expect(await engine.bytes.look(id)).toBe(undefined), { timeout: 5000 })
  await sweeper.close()
})

/** A creation that has put its record, and makes its mark when it may go on. */
async function heldCreation(engine: UploadEngine) {
  const { promise, resolve } = deferred()
  const { createEmpty } = engine.bytes
  const making = vi.spyOn(engine.bytes, 'createEmpty').mockImplementationOnce(async (head, length) => {
    await promise
    return createEmpty!.call(engine.bytes, head, length)
  })
  const created = createUpload(engine, 10)
  await vi.waitFor(() => expect(making).toHaveBeenCalledOnce())
  return { created, goOn: resolve }
}

async function sweeping(
  settings: Partial<EngineParts['settings']>,
  everyMs = 60_000,
  parts: Partial<EngineParts> = {},
): Promise<{ engine: UploadEngine; folder: string; sweeper: Sweeper }> {
  const folder = await temporaryFolder()
  const { engine } = await startEngine(folder, { settings, ...parts })
  const sweeper = new Sweeper({ engine, everyMs })
  onTestFinished(() => sweeper.close())
  return { engine, folder, sweeper }
}

async function filesIn(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name !== '.tidemark')
}

describe.each([
  ['of one process', () => sharing()],
  ['of two servers that share a Redis', () => sharingRedis()],
] as const)('sweepers %s', (_, start) => {
  it('sweep one at a time: who finds another at it does nothing, and asks nobody to stop', async () => {
    const { sweepers, walks, gate, attempts, locks } = await start()
    for (const sweeper of sweepers) sweeper.start()
    await vi.waitFor(() => expect(walks.running).toBe(1), patience)
    const before = attempts()
    await vi.waitFor(() => expect(attempts()).toBeGreaterThan(before + 5), patience)
    expect(walks).toEqual({ begun: 1, running: 1, most: 1 })
    gate.resolve()
    // The other one comes to its turn; the walk of the first may have begun before it was started itself.
    await vi.waitFor(() => expect(walks.running).toBe(0), patience)
    const after = attempts()
    await vi.waitFor(() => expect(attempts()).toBeGreaterThan(after + 20), patience)
    expect(walks.begun).toBeLessThanOrEqual(2)
    expect(walks.most).toBe(1)

    for (const sweeper of sweepers) await sweeper.close()
    await vi.waitFor(async () => expect(await locks()).toBe(''), patience)
  })
})

describe('over Redis', () => {
  it('a sweeper that lost its lock removes nothing more, and its walk does not count', async () => {
    const { sweepers, walks, gate, engines, redis, held } = await sharingRedis({ leaseMs: 1500 })
    const [sweeper] = sweepers
    const id = await createUpload(engines[0], 10, '12')
    sweeper.start()
    await vi.waitFor(() => expect(walks.running).toBe(1), patience)
    // Somebody else has it: the next renewal finds that out, and every round of this sweeper.
    await redis.command('HSET', 'sweep:lock:{.sweep}', 'token', 'of-another')
    await redis.command('PERSIST', 'sweep:lock:{.sweep}')
    await vi.waitFor(() => expect(held()?.isHeld()).toBe(false), patience)
    await redis.command('DEL', `sweep:record:{${id}}`)
    gate.resolve()
    await vi.waitFor(() => expect(walks.running).toBe(0), patience)
    await sweeper.close()
    expect(await engines[1].records!.get(id)).toBe(undefined)
    expect(await engines[1].records!.lastWalk()).toBe(undefined)
  })

  it('take out what names nothing, and records that nobody can read', async () => {
    const { sweepers, engines, redis, gate } = await sharingRedis()
    gate.resolve()
    const id = await createUpload(engines[0], 10, '12')
    const lost = Array.from({ length: 100 }, (_, index) => index.toString(16).padStart(32, '0'))
    for (const index of ['expiry', 'recent'])
      for (const one of lost) await redis.command('ZADD', `sweep:index:${index}`, '1', one)
    await redis.command('HSET', `sweep:record:{${lost[0]}}`, 'body', 'garbage')
    await sweepers[0].walk(Date.now())
    expect(await redis.command('ZCARD', 'sweep:index:expiry')).toBe(':0')
    expect(await redis.command('ZCARD', 'sweep:index:recent')).toBe(':1')
    expect(await redis.command('EXISTS', `sweep:record:{${lost[0]}}`, `sweep:record:{${id}}`)).toBe(':1')
  })

  it('asks Redis for four things a round when there is nothing to do', async () => {
    const { sweepers, gate, redis, attempts, walks } = await sharingRedis()
    gate.resolve()
    const [sweeper] = sweepers
    sweeper.start()
    await vi.waitFor(() => expect(walks).toMatchObject({ begun: 1, running: 0 }), patience)
    const calls = async (name: string) =>
      Number(
        new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(await redis.command('INFO', 'commandstats'))?.[1] ??
          0,
      )
    await vi.waitFor(async () => expect(await calls('zrangebyscore')).toBeGreaterThan(0), patience)
    await redis.command('CONFIG', 'RESETSTAT')
    const before = attempts()
    await vi.waitFor(async () => expect(await calls('zrangebyscore')).toBeGreaterThanOrEqual(10), patience)
    await sweeper.close()
    const rounds = attempts() - before
    // The lock is taken and given up, the last walk read (the scripts read the last fence too), and the index asked.
    expect(await calls('evalsha')).toBeLessThanOrEqual(2 * rounds + 2)
    expect(await calls('get')).toBeLessThanOrEqual(2 * rounds + 2)
    expect(await calls('zrangebyscore')).toBeLessThanOrEqual(rounds + 1)
    expect(await calls('zscan')).toBe(0)
  })
})

describe('a walk is due', () => {
  const hours = (count: number) => count * hourMs
  const last = { at: hours(100), epoch: 'this' }
  it.each([
    ['when there was none', { at: hours(101), epoch: 'this' }, undefined, 0, true],
    ['when the records may have been lost since', { at: hours(101), epoch: 'next' }, last, 0, true],
    ['when this server was started after it', { at: hours(101), epoch: 'this' }, last, hours(101), true],
    ['a day later', { at: hours(124), epoch: 'this' }, last, 0, true],
    ['not before that', { at: hours(124) - 1, epoch: 'this' }, last, hours(100), false],
  ])('%s', (_, walk, before, startedAt, isDue) => {
    expect(isWalkDue(walk, before, startedAt)).toBe(isDue)
  })
})

const patience = { timeout: 20_000, interval: 10 }

/** Counts walks, and lets none go on before its gate is opened. */
class GatedBytes extends FileBytes {
  readonly #gate: Promise<void>
  readonly #walks: { begun: number; running: number; most: number }

  constructor(
    directory: string,
    gate: Promise<void>,
    walks: { begun: number; running: number; most: number },
  ) {
    super({ directory, durability: 'none' })
    this.#gate = gate
    this.#walks = walks
  }

  override async *walk(): AsyncIterable<UploadRecord> {
    this.#walks.begun += 1
    this.#walks.running += 1
    this.#walks.most = Math.max(this.#walks.most, this.#walks.running)
    try {
      await this.#gate
      yield* super.walk()
    } finally {
      this.#walks.running -= 1
    }
  }
}

function counting() {
  let attempts = 0
  let held: Lock | undefined
  const walks = { begun: 0, running: 0, most: 0 }
  const gate = deferred()
  const counted = <L extends Locker>(locker: L): Locker => ({
    start: () => locker.start(),
    close: () => locker.close(),
    untilFree: (id, options) => locker.untilFree(id, options),
    async acquire(id, options) {
      if (id !== '.sweep') return locker.acquire(id, options)
      attempts += 1
      held = await locker.acquire(id, options)
      return held
    },
  })
  onTestFinished(() => gate.resolve())
  return { walks, gate, counted, attempts: () => attempts, held: () => held }
}

async function sharing() {
  const { walks, gate, counted, attempts } = counting()
  const folder = await temporaryFolder()
  const locker = new LocalLocker()
  const bytes = new GatedBytes(folder, gate.promise, walks)
  const { engine } = await startEngine(folder, { bytes, locker: counted(locker) })
  const sweepers = [0, 1].map(() => new Sweeper({ engine, everyMs: 20 })) as [Sweeper, Sweeper]
  return { sweepers, walks, gate, attempts, locks: async () => (locker.size === 0 ? '' : 'held') }
}

async function sharingRedis({ leaseMs = 10_000 } = {}) {
  const { walks, gate, counted, attempts, held } = counting()
  const folder = await temporaryFolder()
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const startOne = async () => {
    const commandTimeoutMs = Math.min(2000, leaseMs / 5)
    const connection = new RedisConnection({ url: redis.url, keyPrefix: 'sweep:', commandTimeoutMs })
    await connection.connect()
    onTestFinished(() => connection.close())
    const locker = counted(new RedisLocker({ connection, leaseMs }))
    const bytes = new GatedBytes(folder, gate.promise, walks)
    const { engine } = await startEngine(folder, { bytes, locker, records: new RedisRecords({ connection }) })
    await vi.waitFor(() => expect(connection.runId).toBeDefined(), patience)
    return engine
  }
  const engines: [UploadEngine, UploadEngine] = [await startOne(), await startOne()]
  const sweepers = engines.map((engine) => new Sweeper({ engine, everyMs: 20 })) as [Sweeper, Sweeper]
  const locks = async () => {
    const keys = await Promise.all(
      ['lock', 'wait'].map((kind) => redis.command('EXISTS', `sweep:${kind}:{.sweep}`)),
    )
    return keys.every((reply) => reply === ':0') ? '' : keys.join()
  }
  return { sweepers, walks, gate, attempts, locks, engines, redis, held }
}
