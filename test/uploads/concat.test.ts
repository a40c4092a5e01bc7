import { randomUUID } from 'node:crypto'
import { expect, inject, it, onTestFinished, vi } from 'vitest'
import type { Outcome } from '../../server/protocol/messages.ts'
import type { EngineParts, UploadEngine } from '../../server/uploads/engine.ts'
import { Slots } from '../../server/uploads/slots.ts'
import { Sweeper } from '../../server/uploads/sweeper.ts'
import type { ByteStore } from '../../stores/contracts.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { RedisRecords } from '../../stores/redis/redis-records.ts'
import { cutOffBefore, filesIn } from '../stores/file/support.ts'
import { deferred } from '../support/deferred.ts'
import { append, request, startEngine, type TestRequest } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'

/** An engine, and the request that stands in where it acts by itself. */
async function start(
  directory: string,
  parts: Partial<Omit<EngineParts, 'settings'>> & { settings?: Partial<EngineParts['settings']> } = {},
): Promise<{ engine: UploadEngine; own: TestRequest; events: { is: string }[] }> {
  const own = request()
  const started = await startEngine(directory, { records: undefined, ownRequest: () => own, ...parts })
  return { ...started, own }
}

async function part(engine: UploadEngine, length: number, body = ''): Promise<string> {
  const command = {
    length,
    metadata: undefined,
    checksum: undefined,
    isBytes: true,
    hasBody: body !== '',
    partial: 'partial',
  }
  const outcome = await engine.create({ do: 'create', contentLength: body.length, ...command }, request(body))
  if (outcome.is !== 'created') throw new Error(`the part was not created but ${outcome.is}`)
  return outcome.record.head.id
}

function concat(engine: UploadEngine, parts: readonly string[], req = request()): Promise<Outcome> {
  return engine.concat({ do: 'concat', asSent: 'final;...', parts, metadata: undefined }, req)
}

function idOf(outcome: Outcome): string {
  if (outcome.is !== 'created') throw new Error(`the final was not created but ${outcome.is}`)
  return outcome.record.head.id
}

async function contentOf(engine: UploadEngine, id: string): Promise<string | undefined> {
  const outcome = await engine.read(id, request())
  if (outcome.is !== 'readable') return undefined
  const { record } = outcome
  return Buffer.concat(await (await engine.bytes.read(record, 0, record.mark.offset)).toArray()).toString()
}

function walk(engine: UploadEngine): Promise<unknown> {
  return new Sweeper({ engine, everyMs: 60_000 }).walk(Date.now())
}

/** A store whose assemblies begin with `before`. */
function withAssembly(directory: string, before: (signal: AbortSignal) => Promise<void>): ByteStore {
  const store = new FileBytes({ directory, durability: 'none' })
  const real = store.concatenation
  const assemble = real.assemble.bind(real)
  real.assemble = async (final, parts, signal) => {
    await before(signal)
    await assemble(final, parts, signal)
  }
  return store
}

async function untilFinished(engine: UploadEngine, id: string, content: string): Promise<void> {
  await vi.waitFor(async () => expect(await contentOf(engine, id)).toBe(content), { timeout: 10_000 })
}

it('is made once after a crash at any step of its creation and assembly, and a repeated request finds it', async () => {
  const outcomes = new Set<string>()
  for (let step = 0; ; step++) {
    const folder = await temporaryFolder()
    const setUp = await start(folder)
    const parts = [await part(setUp.engine, 3, 'abc'), await part(setUp.engine, 4, 'defg')]
    await setUp.engine.close()

    const fileSystem = cutOffBefore(step)
    const dying = new FileBytes({ directory: folder, durability: 'none', fileSystem })
    const first = request()
    const { engine: a } = await startEngine(folder, { bytes: dying, records: undefined }).catch(() => ({
      engine: undefined,
    }))
    const answer = a && (await concat(a, parts, first).catch(() => undefined))
    await a?.close()

    const { engine: b, own } = await start(folder)
    await walk(b)
    await b.drain()
    const { engine: c } = await start(folder)
    const again = request()
    const id = idOf(await concat(c, [...parts], again))
    expect(await contentOf(c, id)).toBe('abcdefg')
    if (answer?.is === 'created') expect(answer.record.head.id).toBe(id)
    outcomes.add(`${answer?.is} ${own.told.finished.length} ${again.told.created.length}`)
    expect(own.told.finished.length + again.told.created.length).toBeLessThanOrEqual(1)
    for (const each of parts) expect(await c.terminate(each, request())).toMatchObject({ is: 'terminated' })
    expect(await c.terminate(id, request())).toMatchObject({ is: 'terminated' })
    await c.bytes.sweepOrphans(-1)
    expect(await uploadFilesIn(folder)).toEqual([])
    if (answer?.is === 'created' && answer.record.mark.state === 'finished') break
  }
  // Every way to be cut off was seen: before it was there, before it was finished, and not at all.
  expect(outcomes.size).toBeGreaterThanOrEqual(3)
}, 120_000)

it.each(['the walk of the next start', 'the next sweep'])(
  'is found by %s when the server dies between the last byte and the finish',
  async (how) => {
    const folder = await temporaryFolder()
    const { connection, parts: shared } = await redisParts()
    const dies = withAssembly(folder, async () => {
      throw new Error('this server is gone')
    })
    const { engine: a, events } = await start(folder, { ...shared(), bytes: dies })
    const parts = [await part(a, 3, 'abc'), await part(a, 4)]
    const id = idOf(await concat(a, parts))
    await append(a, parts[1]!, 0, 'defg')
    await vi.waitFor(() => expect(events).toContainEqual(expect.objectContaining({ is: 'assembly-failed' })))

    const { engine: b, own } = await start(folder, shared())
    const sweeper = new Sweeper({ engine: b, everyMs: 60_000 })
    if (how === 'the next sweep') await sweeper.sweepExpired(Date.now() + 61_000)
    else await sweeper.walk(Date.now())
    await untilFinished(b, id, 'abcdefg')
    await b.drain()
    expect(own.told.finished).toHaveLength(1)
    expect(connection.isAvailable).toBe(true)
  },
)

it('is finished by a HEAD that finds it ready', async () => {
  const folder = await temporaryFolder()
  let isBroken = true
  const bytes = withAssembly(folder, async () => {
    if (isBroken) throw new Error('not now')
  })
  const { engine, own } = await start(folder, { bytes })
  const parts = [await part(engine, 3, 'abc')]
  await expect(concat(engine, parts)).rejects.toThrow('not now')
  isBroken = false
  let id = ''
  for await (const { head } of engine.bytes.walk()) if (head.parts) id = head.id
  expect(await engine.offset(id, request())).toMatchObject({
    is: 'offset',
    record: { mark: { state: 'open' } },
  })
  await untilFinished(engine, id, 'abc')
  expect(own.told.beforeFinish).toHaveLength(1)
})

it('finishes on the other server when its last part lands there', async () => {
  const { a, b, ownA, ownB } = await twoServers()
  const parts = [await part(a, 3, 'abc'), await part(a, 4)]
  const id = idOf(await concat(a, parts))
  await append(b, parts[1]!, 0, 'defg')
  await untilFinished(a, id, 'abcdefg')
  await b.drain()
  expect([ownA.told.finished.length, ownB.told.finished.length]).toEqual([0, 1])
  expect(await b.records!.get(id)).toMatchObject({ mark: { state: 'finished', offset: 7 } })
})

it('finishes once when its last parts land on both servers at the same time', async () => {
  for (let round = 0; round < 10; round++) {
    const { a, b, ownA, ownB } = await twoServers()
    const parts = [await part(a, 3), await part(b, 4)]
    const id = idOf(await concat(a, parts))
    const asked = request()
    const last = [append(a, parts[0]!, 0, 'abc'), append(b, parts[1]!, 0, 'defg')]
    await Promise.all([...last, concat(b, parts, asked)])
    await untilFinished(a, id, 'abcdefg')
    await Promise.all([a.drain(), b.drain()])
    expect([ownA, ownB, asked].flatMap(({ told }) => told.beforeFinish)).toHaveLength(1)
    expect(await contentOf(b, id)).toBe('abcdefg')
  }
})

it('is terminated while it is being made, and its parts can go then', async () => {
  const folder = await temporaryFolder()
  const begun = deferred()
  const bytes = withAssembly(folder, (signal) => {
    begun.resolve()
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  })
  const { engine, own } = await start(folder, { bytes })
  const parts = [await part(engine, 3, 'abc'), await part(engine, 4)]
  const id = idOf(await concat(engine, parts))
  await append(engine, parts[1]!, 0, 'defg')
  await begun.promise
  expect(await engine.terminate(parts[0]!, request())).toMatchObject({ refusal: { code: 'part-needed' } })
  expect(await engine.terminate(id, request())).toMatchObject({ is: 'terminated' })
  for (const each of parts)
    expect(await engine.terminate(each, request())).toMatchObject({ is: 'terminated' })
  expect(own.told.beforeFinish).toEqual([])
  expect(await uploadFilesIn(folder)).toEqual([])
})

it('stops when its server is stopped, is answered all the same, and goes on with the next one', async () => {
  const folder = await temporaryFolder()
  const begun = deferred()
  const bytes = withAssembly(folder, (signal) => {
    begun.resolve()
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  })
  const { engine: a } = await start(folder, { bytes })
  const parts = [await part(a, 3, 'abc')]
  const answer = concat(a, parts)
  await begun.promise
  await a.close()
  expect(await answer).toMatchObject({ is: 'created', record: { mark: { state: 'open' } } })
  const { engine: b } = await start(folder)
  await walk(b)
  await untilFinished(b, idOf(await answer), 'abc')
})

it('is copied with three others at most', async () => {
  const release = deferred()
  let running = 0
  let most = 0
  const folder = await temporaryFolder()
  const bytes = withAssembly(folder, async () => {
    most = Math.max(most, ++running)
    await release.promise
    running--
  })
  const { engine } = await start(folder, { bytes })
  const parts = await Promise.all(Array.from({ length: 7 }, (_, n) => part(engine, 1, String(n))))
  const answers = parts.map((each) => concat(engine, [each]))
  await vi.waitFor(async () => {
    let finals = 0
    for await (const { head } of engine.bytes.walk()) if (head.parts) finals++
    expect([finals, running]).toEqual([7, 4])
  })
  release.resolve()
  const contents = (await Promise.all(answers)).map((outcome) => contentOf(engine, idOf(outcome)))
  expect(await Promise.all(contents)).toEqual(['0', '1', '2', '3', '4', '5', '6'])
  expect(most).toBe(4)
})

it('waits for its turn to be copied no longer than it is wanted', async () => {
  const slots = new Slots(1)
  const release = deferred()
  const done: string[] = []
  const enter = (name: string, signal = new AbortController().signal) =>
    slots.use(signal, async () => {
      await release.promise
      done.push(name)
    })
  const stop = new AbortController()
  const first = enter('first')
  const unwanted = enter('unwanted', stop.signal)
  const last = enter('last')
  stop.abort(new Error('not wanted'))
  await expect(unwanted).rejects.toThrow('not wanted')
  await expect(enter('late', stop.signal)).rejects.toThrow('not wanted')
  release.resolve()
  await Promise.all([first, last])
  await enter('after all')
  expect(done).toEqual(['first', 'last', 'after all'])
})

it('is not tied to a part that is being terminated', async () => {
  for (let round = 0; round < 20; round++) {
    const { engine } = await start(await temporaryFolder())
    const parts = [await part(engine, 3, 'abc'), await part(engine, 4)]
    const [made, gone] = await Promise.all([concat(engine, parts), engine.terminate(parts[1]!, request())])
    const isGone = gone.is === 'terminated'
    expect(made.is).toBe(isGone ? 'refused' : 'created')
    if (!isGone) expect(gone).toMatchObject({ refusal: { code: 'part-needed' } })
    await engine.close()
  }
})

it('goes on from its mark when an assembly was cut off', async () => {
  const folder = await temporaryFolder()
  const store = new FileBytes({ directory: folder, durability: 'none' })
  await store.start()
  const finished = async (id: string, content: Buffer) => {
    const appender = await store.create(
      { id, createdAt: 0, dialect: 'tus', concat: 'partial' },
      content.length,
    )
    await appender.write([content], 0)
    const record = await appender.finish(content.length)
    await appender.close()
    return record
  }
  const MiB = 1024 * 1024
  const sizes = [70 * MiB, 3, 70 * MiB + 1]
  const parts = await Promise.all(
    sizes.map((size, index) => finished(`p${index}`, Buffer.alloc(size, `part ${index}`))),
  )
  const first = await store.create({ id: 'f', createdAt: 0, dialect: 'tus', concat: 'final;' }, undefined)
  const stop = new AbortController()
  let writes = 0
  const slow = {
    get record() {
      return first.record
    },
    write: (buffers: readonly Uint8Array[], position: number) => {
      if (++writes === 100) stop.abort()
      return first.write(buffers, position)
    },
    commit: first.commit.bind(first),
  } as unknown as typeof first
  await expect(store.concatenation.assemble(slow, parts, stop.signal)).rejects.toThrow()
  await first.close()
  const next = (await store.open('f'))!
  expect(next.record.mark.offset).toBe(64 * MiB)
  await store.concatenation.assemble(next, parts, new AbortController().signal)
  const record = await next.finish(140 * MiB + 4)
  await next.close()
  const content = Buffer.concat(await (await store.read(record, 0, 140 * MiB + 4)).toArray())
  const expected = Buffer.concat(sizes.map((size, index) => Buffer.alloc(size, `part ${index}`)))
  expect(content.equals(expected)).toBe(true)
})

/** Without the notes of events that these tests never tell. */
async function uploadFilesIn(folder: string): Promise<string[]> {
  return (await filesIn(folder)).filter((file) => !file.startsWith('.tidemark/'))
}

async function redisParts() {
  const keyPrefix = `${randomUUID()}:`
  const connect = () => {
    const connection = new RedisConnection({ url: inject('redisUrl'), keyPrefix })
    onTestFinished(() => connection.close())
    return connection
  }
  const connection = connect()
  await connection.connect()
  const parts = () => {
    const own = connect()
    return { locker: new RedisLocker({ connection: own }), records: new RedisRecords({ connection: own }) }
  }
  return { connection, parts }
}

async function twoServers() {
  const directory = await temporaryFolder()
  const { parts } = await redisParts()
  const { engine: a, own: ownA } = await start(directory, parts())
  const { engine: b, own: ownB } = await start(directory, parts())
  return { a, b, ownA, ownB }
}
