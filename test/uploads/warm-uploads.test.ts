// Uploads that stay open between the requests of one client.

import { readdir, readlink, rm, truncate } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { UploadEngine } from '../../server/uploads/engine.ts'
import { type Lock, StoreError, type UploadRecord } from '../../stores/contracts.ts'
import { FileBytes, type FileBytesOptions } from '../../stores/file/file-bytes.ts'
import { nodeFileSystem } from '../../stores/file/file-system.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { createUpload, openBody, request, startEngine } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'

interface Folder extends Pick<FileBytesOptions, 'fileSystem' | 'isShared'> {
  directory?: string
}

async function start(
  parts: Parameters<typeof startEngine>[1] = {},
  { directory: given, ...folder }: Folder = {},
) {
  const directory = given ?? (await temporaryFolder())
  const bytes = new FileBytes({ directory, durability: 'none', isShared: false, ...folder })
  const locker = new LocalLocker()
  const { engine } = await startEngine(directory, { bytes, locker, ...parts })
  const open = vi.spyOn(bytes, 'open')
  const look = vi.spyOn(bytes, 'look')
  return { directory, engine, bytes, locker, open, look }
}

/** What an append is answered, in a few words. */
async function append(engine: UploadEngine, id: string, offset: number, body: string): Promise<string> {
  const command = { do: 'append', id, offset, length: undefined, checksum: undefined } as const
  const outcome = await engine.append({ ...command, contentLength: body.length }, request(body))
  if (outcome.is === 'refused') return String(outcome.refusal.status)
  return outcome.is === 'appended' ? `${outcome.record.mark.state} ${outcome.record.mark.offset}` : outcome.is
}

async function text(bytes: FileBytes, id: string): Promise<string> {
  const record = (await bytes.look(id)) as UploadRecord
  const stream = await bytes.read(record, 0, record.mark.offset)
  return Buffer.concat(await stream.toArray()).toString()
}

/** Files of a folder that this process has open, but for those of its database. */
async function openFilesIn(directory: string): Promise<string[]> {
  const fds = await readdir('/proc/self/fd')
  const files = await Promise.all(fds.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
  return files.filter((file) => file.startsWith(directory) && !file.includes('.tidemark'))
}

it('one that is sent in pieces is opened once, and looked for once', async () => {
  const { engine, bytes, open, look, locker } = await start()
  const id = await createUpload(engine, 8)
  for (const offset of [0, 2, 4]) expect(await append(engine, id, offset, 'ab')).toBe(`open ${offset + 2}`)
  expect([open.mock.calls.length, look.mock.calls.length, locker.size]).toEqual([1, 1, 1])
  expect((await bytes.look(id))?.mark.offset).toBe(6)
  expect(await append(engine, id, 6, 'ab')).toBe('finished 8')
  expect([open.mock.calls.length, locker.size]).toEqual([1, 0])
  expect(await text(bytes, id)).toBe('abababab')
})

it('its mark says on disk what was answered, and who may be writing, until it is let go of', async () => {
  const { engine, directory, bytes, locker } = await start()
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'ab')
  await append(engine, id, 2, 'ab')
  expect((await bytes.look(id))?.mark).toMatchObject({ offset: 4, generation: 0 })
  await (await locker.acquire(id, { timeoutMs: 1000 })).release()
  // Another store can not know whether the first one is done, unless the mark says so.
  const other = new FileBytes({ directory, durability: 'none' })
  const appender = (await other.open(id))!
  expect(appender.record.mark).toMatchObject({ offset: 4, generation: 0 })
  await appender.close()
})

it('what does not fit is refused as ever, and then it is not open any more', async () => {
  const { engine, directory, locker } = await start()
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'ab')
  expect(await append(engine, id, 1, 'ab')).toBe('409')
  expect(await append(engine, id, 2, 'abcdefghi')).toBe('413')
  expect(await append(engine, id, 2, 'ab')).toBe('open 4')
  expect(await openFilesIn(directory)).toHaveLength(2)
  const other = { ...request('ab'), asker: { owner: 'other', seesAll: false } }
  const command = {
    do: 'append',
    id,
    offset: 4,
    length: undefined,
    checksum: undefined,
    contentLength: 2,
  } as const
  expect(await engine.append(command, other)).toMatchObject({ is: 'refused', refusal: { status: 404 } })
  expect(await append(engine, id, 4, 'ab')).toBe('open 6')
  expect(locker.size).toBe(1)
})

it('a question is answered, and it stays open', async () => {
  const { engine, open } = await start()
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'abc')
  expect(await engine.offset(id, request())).toMatchObject({ is: 'offset', record: { mark: { offset: 3 } } })
  expect(await append(engine, id, 3, 'd')).toBe('open 4')
  expect(open).toHaveBeenCalledOnce()
})

it('whoever else wants its lock has it at once, and takes nothing over', async () => {
  const { engine, directory, locker, open } = await start()
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'abc')
  const lock = await locker.acquire(id, { timeoutMs: 1000 })
  expect(lock.isTakeOver).toBe(false)
  expect(await openFilesIn(directory)).toEqual([])
  const waiting = append(engine, id, 3, 'd')
  await lock.release()
  expect(await waiting).toBe('open 4')
  expect(open).toHaveBeenCalledTimes(2)
})

it('it can be terminated, and nothing of it is left', async () => {
  const { engine, directory, locker } = await start()
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'abc')
  expect(await engine.terminate(id, request())).toMatchObject({ is: 'terminated' })
  expect([locker.size, await openFilesIn(directory)]).toEqual([0, []])
  expect((await readdir(directory)).filter((name) => name !== '.tidemark')).toEqual([])
  expect(await append(engine, id, 3, 'd')).toBe('404')
})

it('it expires', async () => {
  const { engine } = await start({ settings: { expiry: { afterMs: 1000, mode: 'sliding' } } })
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'abc')
  expect(await engine.expire(id, Date.now() + 5000)).toBe(true)
  expect(await append(engine, id, 3, 'd')).toBe('404')
})

it('of several requests at a time one goes on at once, and no byte is mixed', async () => {
  const { engine, bytes } = await start()
  const id = await createUpload(engine, 300)
  await append(engine, id, 0, 'x')
  let offset = 1
  while (offset < 300) {
    const answers = await Promise.all(['a', 'b', 'c'].map((body) => append(engine, id, offset, body)))
    const taken = answers.filter((answer) => /^(open|finished)/.test(answer))
    expect(taken.length, answers.join()).toBeGreaterThan(0)
    expect(taken).toHaveLength(1)
    offset++
  }
  expect(await text(bytes, id)).toMatch(/^x[abc]{299}$/)
})

it('bytes that its storage lost are noticed, and it is gone when its files are', async () => {
  const { engine, bytes, directory } = await start()
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'abcd')
  await truncate(path.join(directory, id), 2)
  expect(await append(engine, id, 4, 'ef')).toBe('409')
  expect((await bytes.look(id))?.mark.offset).toBe(2)
  expect(await append(engine, id, 2, 'CD')).toBe('open 4')
  for (const name of await readdir(directory)) if (name !== '.tidemark') await rm(path.join(directory, name))
  expect(await append(engine, id, 4, 'ef')).toBe('404')
})

it('a mark that can not be written on is told, and nothing stays', async () => {
  const { engine, bytes, directory, locker } = await start()
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'abcd')
  const { MarkFile } = await import('../../stores/file/mark-file.ts')
  const write = vi
    .spyOn(MarkFile.prototype, 'write')
    .mockRejectedValue(Object.assign(new Error('no space'), { code: 'ENOSPC' }))
  onTestFinished(() => write.mockRestore())
  expect(await append(engine, id, 4, 'ef')).toBe('507')
  expect([locker.size, await openFilesIn(directory)]).toEqual([0, []])
  write.mockRestore()
  expect(await append(engine, id, 4, 'ef')).toBe('open 6')
  expect(await text(bytes, id)).toBe('abcdef')
})

it('one whose body was cut off is let go of', async () => {
  const { engine, directory, locker } = await start()
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'a')
  const body = openBody('bc')
  const cut = request(body)
  const command = {
    do: 'append',
    id,
    offset: 1,
    length: undefined,
    checksum: undefined,
    contentLength: 7,
  } as const
  setTimeout(() => body.destroy(), 20)
  await engine.append(command, cut)
  expect([locker.size, await openFilesIn(directory)]).toEqual([0, []])
})

it('so many stay open and no more, for some seconds, and none in a server that is stopped', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
  const { engine, directory, locker } = await start()
  const ids: string[] = []
  for (let n = 0; n < 600; n++) {
    const id = await createUpload(engine, 8)
    await append(engine, id, 0, 'a')
    ids.push(id)
  }
  expect(locker.size).toBeLessThanOrEqual(512)
  expect(locker.size).toBeGreaterThanOrEqual(256)
  vi.advanceTimersByTime(2_000)
  vi.advanceTimersByTime(2_000)
  await expect.poll(() => locker.size).toBe(0)
  expect(await openFilesIn(directory)).toEqual([])
  // Nobody came back; so no more than one of sixteen stays by now.
  for (const id of ids.slice(0, 16)) expect(await append(engine, id, 1, 'b')).toBe('open 2')
  expect(locker.size).toBe(1)
  await engine.drain()
  expect([locker.size, await openFilesIn(directory)]).toEqual([0, []])
  await delay(0)
})

it('a new one is open for its first bytes', async () => {
  const { engine, bytes, directory, open, locker } = await start({ audiences: [] })
  const id = await createUpload(engine, 4)
  expect([locker.size, (await openFilesIn(directory)).length]).toEqual([1, 2])
  expect(await append(engine, id, 0, 'abcd')).toBe('finished 4')
  expect([locker.size, await openFilesIn(directory), open.mock.calls]).toEqual([0, [], []])
  expect(await text(bytes, id)).toBe('abcd')
})

it('a new one that could not be made is held by nobody', async () => {
  const { engine, bytes, directory, locker } = await start({ audiences: [] })
  vi.spyOn(bytes, 'createEmpty').mockRejectedValueOnce(new StoreError('full', 'no room'))
  await expect(createUpload(engine, 4)).rejects.toThrow('refused')
  expect([locker.size, await openFilesIn(directory)]).toEqual([0, []])
  expect(await engine.records!.recent(9)).toEqual([])
})

it('a new one that somebody wants while it is made is let go of', async () => {
  const { engine, bytes, directory, locker } = await start({ audiences: [] })
  const make = bytes.createEmpty.bind(bytes)
  let wanted: Promise<Lock> | undefined
  vi.spyOn(bytes, 'createEmpty').mockImplementationOnce(async (head, length, keep) => {
    wanted = locker.acquire(head.id, { timeoutMs: 1000 })
    await delay(5)
    return make(head, length, keep)
  })
  const id = await createUpload(engine, 4)
  const lock = (await wanted)!
  expect([lock.isHeld(), lock.isTakeOver, await openFilesIn(directory)]).toEqual([true, false, []])
  await lock.release()
  expect(await append(engine, id, 0, 'abcd')).toBe('finished 4')
})

it('one that was not made by tus, which others find by a name, does not stay', async () => {
  const { engine, locker } = await start({ audiences: [] })
  const empty = { hasBody: false, contentLength: 0, isBytes: false, checksum: undefined, metadata: undefined }
  const made = await engine.create({ do: 'create', length: 4, dialect: 'put', ...empty }, request())
  const { id } = (made as { record: UploadRecord }).record.head
  expect(locker.size).toBe(0)
  expect(await append(engine, id, 0, 'ab')).toBe('open 2')
  expect(locker.size).toBe(0)
})

it('new ones do not stay any more where nobody sends to them, but for some to see whether that has changed', async () => {
  const { engine, bytes } = await start({ audiences: [] })
  const kept = vi.spyOn(bytes, 'createEmpty')
  for (let n = 0; n < 600; n++) await createUpload(engine, 4)
  kept.mockClear()
  for (let n = 0; n < 32; n++) await createUpload(engine, 4)
  expect(kept.mock.calls.filter(([, , keep]) => keep !== undefined)).toHaveLength(2)
})

it('one whose lock was lost is locked and opened anew, and not asked for its offset', async () => {
  const { engine, locker, open } = await start()
  const acquire = locker.acquire.bind(locker)
  const locks: { mayStay: boolean }[] = []
  vi.spyOn(locker, 'acquire').mockImplementation(async (id, options) => {
    const lock = await acquire(id, options)
    locks.push(lock as { mayStay: boolean })
    return lock
  })
  const id = await createUpload(engine, 8)
  await append(engine, id, 0, 'ab')
  locks.at(-1)!.mayStay = false
  expect(await append(engine, id, 2, 'cd')).toBe('open 4')
  expect([locks.length, open.mock.calls.length]).toEqual([3, 2])
  locks.at(-1)!.mayStay = false
  const ask = vi.spyOn(locker, 'untilFree')
  expect(await engine.offset(id, request())).toMatchObject({ record: { mark: { offset: 4 } } })
  expect(ask).toHaveBeenCalledOnce()
})

it('nothing stays open on a network file system', async () => {
  const nfs = (async () => ({ type: 0x6969 })) as unknown as typeof nodeFileSystem.statfs
  const folder = { fileSystem: { ...nodeFileSystem, statfs: nfs } }
  const { engine, directory, locker } = await start({ audiences: [] }, folder)
  const id = await createUpload(engine, 8)
  expect(await append(engine, id, 0, 'a')).toBe('open 1')
  expect([locker.size, await openFilesIn(directory)]).toEqual([0, []])
})

describe('in a folder that others write to', () => {
  it('one that is sent in pieces is never opened after it was made', async () => {
    const { engine, bytes, open, locker } = await start({ audiences: [] }, { isShared: true })
    const id = await createUpload(engine, 6)
    for (const offset of [0, 2]) expect(await append(engine, id, offset, 'ab')).toBe(`open ${offset + 2}`)
    expect([open.mock.calls.length, locker.size]).toEqual([0, 1])
    expect(await append(engine, id, 4, 'ab')).toBe('finished 6')
    expect(await text(bytes, id)).toBe('ababab')
  })

  it("one that a server has taken over, while this one did not know that its lock was lost, is that one's", async () => {
    const { engine, bytes, directory } = await start({}, { isShared: true })
    // Other locks: as of a Redis that was emptied.
    const { engine: other } = await start({}, { isShared: true, directory })
    const id = await createUpload(engine, 8)
    expect(await append(engine, id, 0, 'ab')).toBe('open 2')
    expect(await append(other, id, 2, 'CD')).toBe('open 4')
    expect(await append(engine, id, 2, 'cd')).not.toMatch(/open|finished/)
    expect(await engine.offset(id, request())).toMatchObject({ record: { mark: { offset: 4 } } })
    expect(await append(engine, id, 4, 'efgh')).toBe('finished 8')
    expect(await text(bytes, id)).toBe('abCDefgh')
    expect(await append(other, id, 4, 'EFGH')).not.toMatch(/open/)
  })
})
