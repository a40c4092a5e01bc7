// Creations that need no lock: nobody but their request can come upon the upload before they are answered.

import { rm } from 'node:fs/promises'
import { expect, it, vi } from 'vitest'
import type { CreateCommand } from '../../server/protocol/messages.ts'
import { LockError, type Locker, StoreError } from '../../stores/contracts.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { LmdbRecords } from '../../stores/local/lmdb-records.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { startSite } from '../protocol/exchange.ts'
import { errno, faulty, filesIn } from '../stores/file/support.ts'
import { append, createUpload, request, startEngine } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'

const create: CreateCommand = {
  do: 'create',
  length: 5,
  metadata: undefined,
  isBytes: false,
  hasBody: false,
  contentLength: 0,
  checksum: undefined,
}

function watchedLocker() {
  const locker = new LocalLocker()
  return { locker, acquire: vi.spyOn(locker, 'acquire') }
}

it('one without bytes is locked once, for its first bytes too, expires, is in the records, and goes on like any other', async () => {
  const { locker, acquire } = watchedLocker()
  const settings = { expiry: { afterMs: 60_000, mode: 'sliding' as const } }
  const { engine } = await startEngine(await temporaryFolder(), { locker, audiences: [], settings })
  const outcome = await engine.create(create, request())
  if (outcome.is !== 'created') throw new Error(`it was ${outcome.is}`)
  const { record, expiresAt } = outcome
  expect(expiresAt).toBe(record.mark.movedAt + 60_000)
  expect(await engine.records!.get(record.head.id)).toMatchObject({ head: record.head, mark: { offset: 0 } })
  expect(await engine.records!.expiring(expiresAt!, 9)).toEqual([record.head.id])
  expect(await engine.bytes.look(record.head.id)).toEqual(record)
  expect(await append(engine, record.head.id, 0, 'hello')).toMatchObject({ is: 'appended' })
  expect((await engine.bytes.look(record.head.id))?.mark).toMatchObject({ state: 'finished', offset: 5 })
  expect(acquire).toHaveBeenCalledOnce()
})

it('one whose record is put by its locker puts it once; and by itself where the locker did nothing, or failed', async () => {
  const directory = await temporaryFolder()
  const records = new LmdbRecords({ directory: `${directory}/.tidemark` })
  const put = vi.spyOn(records, 'put')
  const locker = new LocalLocker()
  const acquire = vi.spyOn(locker, 'acquire')
  const steps: NonNullable<Locker['acquireNew']>[] = [
    async (record, _, options) => locker.acquire(record.head.id, options),
    async () => undefined,
    async () => Promise.reject(new LockError('unavailable', 'away')),
  ]
  const both = Object.assign(locker, {
    acquireNew: vi.fn((...of: Parameters<(typeof steps)[0]>) => steps.shift()!(...of)),
  })
  const settings = { expiry: { afterMs: 60_000, mode: 'sliding' as const } }
  const { engine } = await startEngine(directory, { locker: both, records, audiences: [], settings })
  for (const [puts, locks] of [
    [0, 1],
    [1, 0],
    [1, 0],
  ]) {
    put.mockClear()
    acquire.mockClear()
    const outcome = await engine.create(create, request())
    if (outcome.is !== 'created') throw new Error(`it was ${outcome.is}`)
    const { head } = outcome.record
    const [draft, expiresAt] = both.acquireNew.mock.lastCall!
    expect([draft.head, expiresAt]).toEqual([head, draft.mark.movedAt + 60_000])
    expect([put.mock.calls.length, acquire.mock.calls.length]).toEqual([puts, locks])
    expect(await append(engine, head.id, 0, 'hello')).toMatchObject({ is: 'appended' })
    expect((await records.get(head.id))?.mark).toMatchObject({ state: 'finished' })
    // Only what is open needs no lock of its own for its bytes.
    expect(acquire).toHaveBeenCalledOnce()
  }
  expect(steps).toEqual([])
})

it.each<[string, Parameters<typeof startEngine>[1], Partial<CreateCommand>, Parameters<typeof request>[1]]>([
  ['brings bytes', { audiences: [] }, { hasBody: true, contentLength: 3 }, {}],
  ['is finished by itself', { audiences: [] }, { length: 0 }, {}],
  ['is a part', { audiences: [] }, { partial: 'partial' }, {}],
  ['is told of', {}, {}, {}],
  ['is named by others', { audiences: [] }, {}, { beforeCreate: async (head) => ({ ...head, id: 'named' }) }],
])('one that %s asks for its lock', async (_, parts, change, changes) => {
  const { locker, acquire } = watchedLocker()
  const { engine } = await startEngine(await temporaryFolder(), { locker, ...parts })
  expect(await engine.create({ ...create, ...change }, request('abc', changes))).toMatchObject({
    is: 'created',
  })
  expect(acquire).toHaveBeenCalledOnce()
})

it('one whose name somebody chooses asks for its lock, and hurts nothing that has this name', async () => {
  const { locker, acquire } = watchedLocker()
  const { engine } = await startEngine(await temporaryFolder(), { locker, audiences: [] })
  const named = { isNamedByOthers: true, nameUpload: async () => 'chosen' }
  expect(await engine.create(create, request(undefined, named))).toMatchObject({ is: 'created' })
  expect(acquire).toHaveBeenCalledOnce()
  const before = await engine.records!.get('chosen')
  expect(await engine.create({ ...create, length: 9 }, request(undefined, named))).toMatchObject({
    is: 'refused',
    refusal: { code: 'exists' },
  })
  expect(await engine.records!.get('chosen')).toEqual(before)
})

it('one whose name namingFunction gives a second time is refused, and the first one keeps its record', async () => {
  const records = new LmdbRecords({ directory: await temporaryFolder() })
  const site = await startSite({ records, namingFunction: () => 'chosen' })
  expect(await site.send('POST', '/files', { 'Upload-Length': 5 })).toMatchObject({ status: 201 })
  const before = await records.get('chosen')
  expect(before).toMatchObject({ mark: { length: 5 } })
  expect(await site.send('POST', '/files', { 'Upload-Length': 9 })).toMatchObject({ status: 409 })
  expect(await records.get('chosen')).toEqual(before)
})

it('whatever step of one fails, nothing of it stays, and the next one is made', async () => {
  let failed = 0
  for (let step = 0; failed === step; step++) {
    const directory = await temporaryFolder()
    let left = Number.POSITIVE_INFINITY
    const fileSystem = faulty(({ name }) => {
      if (name === 'unlink' || name === 'handle.close' || left-- !== 0) return undefined
      failed++
      throw errno('EIO')
    })
    const bytes = new FileBytes({ directory, durability: 'none', fileSystem })
    const { engine } = await startEngine(directory, { bytes, audiences: [] })
    left = step
    const outcome = await engine.create(create, request()).catch((error: Error) => error)
    left = Number.POSITIVE_INFINITY
    if (failed > step) {
      expect(outcome).toBeInstanceOf(Error)
      await rm(`${directory}/.tidemark`, { recursive: true })
      expect(await filesIn(directory)).toEqual([])
    }
    expect((await bytes.look(await createUpload(engine, 5)))?.mark.offset).toBe(0)
  }
  expect(failed).toBe(3)
})

it('one is refused while the records are away, and nothing of it was made', async () => {
  const directory = await temporaryFolder()
  const { engine } = await startEngine(directory, { audiences: [] })
  const put = vi.spyOn(engine.records!, 'put').mockRejectedValueOnce(new StoreError('unavailable', 'away'))
  expect(await engine.create(create, request())).toMatchObject({
    is: 'refused',
    refusal: { status: 503, retryAfterS: 1 },
  })
  expect((await filesIn(directory)).filter((file) => !file.startsWith('.tidemark'))).toEqual([])
  put.mockRestore()
  expect(await engine.create(create, request())).toMatchObject({ is: 'created' })
})

it('one is made all the same when its record can not be put for another reason, which is told', async () => {
  const { engine, events } = await startEngine(await temporaryFolder(), { audiences: [] })
  vi.spyOn(engine.records!, 'put').mockRejectedValueOnce(new StoreError('io', 'broken'))
  const id = await createUpload(engine, 5)
  expect(await engine.bytes.look(id)).toBeDefined()
  expect(events).toMatchObject([{ is: 'record-failed', id }])
})

it('one that could not be synced is taken back', async () => {
  const directory = await temporaryFolder()
  const { engine } = await startEngine(directory, { audiences: [] })
  const { createEmpty } = engine.bytes
  vi.spyOn(engine.bytes, 'createEmpty').mockImplementationOnce(async (head, length) => {
    await createEmpty!.call(engine.bytes, head, length)
    throw new StoreError('full', 'no room')
  })
  expect(await engine.create(create, request())).toMatchObject({ is: 'refused', refusal: { status: 507 } })
  expect(await engine.records!.recent(9)).toEqual([])
  expect((await filesIn(directory)).filter((file) => !file.startsWith('.tidemark'))).toEqual([])
})

it('one that could not be synced stays when it can not be removed either, which is told', async () => {
  const { engine, events } = await startEngine(await temporaryFolder(), { audiences: [] })
  const { createEmpty } = engine.bytes
  vi.spyOn(engine.bytes, 'createEmpty').mockImplementationOnce(async (head, length) => {
    await createEmpty!.call(engine.bytes, head, length)
    throw new StoreError('io', 'broken')
  })
  vi.spyOn(engine.bytes, 'remove').mockRejectedValueOnce(new StoreError('io', 'broken'))
  await expect(engine.create(create, request())).rejects.toThrow('broken')
  expect(events).toMatchObject([{ is: 'left-behind', id: expect.any(String) }])
  expect(await engine.records!.recent(9)).toHaveLength(1)
})

it('the record of one that could not be made is taken back', async () => {
  const { engine } = await startEngine(await temporaryFolder(), { audiences: [] })
  vi.spyOn(engine.bytes, 'createEmpty').mockRejectedValueOnce(new StoreError('full', 'no room'))
  expect(await engine.create(create, request())).toMatchObject({ is: 'refused', refusal: { status: 507 } })
  expect(await engine.records!.recent(9)).toEqual([])
})
