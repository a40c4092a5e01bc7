import { readdir, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { expect, it } from 'vitest'
import type { Note } from '../../../stores/contracts.ts'
import { FileBytes, type FileBytesOptions } from '../../../stores/file/file-bytes.ts'
import { headOf } from '../../contracts/byte-store-values.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { errno, faulty } from './support.ts'

const eventId = 'e'.repeat(32)

function note(change: Partial<Note> = {}): Note {
  const mark = {
    state: 'finished',
    offset: 3,
    syncedOffset: 3,
    length: 3,
    generation: 0,
    sequence: 4,
  } as const
  const record = { head: headOf('a/b'), mark: { ...mark, movedAt: 5 } }
  return {
    event: { id: eventId, kind: 'finished', at: 6, record },
    waiting: ['listeners'],
    teller: 'nobody',
    notBefore: 7,
    failures: 0,
    isTrue: false,
    ...change,
  }
}

async function outboxIn(options: Partial<FileBytesOptions> = {}) {
  const directory = options.directory ?? (await temporaryFolder())
  const store = new FileBytes({ directory, durability: 'none', ...options })
  await store.start()
  return { directory, store, outbox: store.outbox, folder: path.join(directory, '.tidemark', 'outbox') }
}

it('is empty before the first note, and makes no folder for that', async () => {
  const { directory, outbox } = await outboxIn()
  expect(await outbox.list()).toEqual([])
  expect(await outbox.get(eventId)).toBeUndefined()
  await outbox.remove(eventId)
  expect(await readdir(directory)).toEqual([])
})

it('shows a note to every store on the folder, until it is removed', async () => {
  const { directory, outbox } = await outboxIn()
  const { outbox: other } = await outboxIn({ directory })
  await outbox.put(note())
  expect(await other.list()).toEqual([eventId])
  expect(await other.get(eventId)).toEqual(note())
  await other.remove(eventId)
  expect(await outbox.list()).toEqual([])
})

it('replaces a note of the same event as a whole', async () => {
  const { outbox } = await outboxIn()
  await outbox.put(note())
  await outbox.put(note({ failures: 2, waiting: ['somebody'] }))
  expect(await outbox.get(eventId)).toEqual(note({ failures: 2, waiting: ['somebody'] }))
  expect(await outbox.list()).toEqual([eventId])
})

it('is no part of the uploads in the folder', async () => {
  const { store, outbox } = await outboxIn()
  await outbox.put(note())
  const seen: string[] = []
  for await (const { head } of store.walk()) seen.push(head.id)
  expect(seen).toEqual([])
  expect(await store.sweepOrphans(-1)).toBe(0)
  expect(await outbox.list()).toEqual([eventId])
})

it.each(['handle.write', 'rename'])(
  'keeps the note before when %s fails, and leaves nothing aside',
  async (step) => {
    let isBroken = false
    const fileSystem = faulty(({ name }) => {
      if (isBroken && name === step) throw errno('ENOSPC')
      return undefined
    })
    const { outbox, folder } = await outboxIn({ fileSystem })
    await outbox.put(note())
    isBroken = true
    await expect(outbox.put(note({ failures: 1 }))).rejects.toMatchObject({ code: 'full' })
    expect(await outbox.get(eventId)).toEqual(note())
    expect(await readdir(folder)).toEqual([`${eventId}.json`])
  },
)

it.each(['', '{"event":', '{}', '[]', 'null', '{"event":{"id":"other"},"waiting":[]}'])(
  'takes a note that was never completed, as %j, for none',
  async (text) => {
    const { outbox, folder } = await outboxIn()
    await outbox.put(note())
    await writeFile(path.join(folder, `${eventId}.json`), text)
    expect(await outbox.get(eventId)).toBeUndefined()
    expect(await outbox.list()).toEqual([eventId])
  },
)

it('is swept of what a writer that was cut off left aside', async () => {
  const { store, outbox, folder } = await outboxIn()
  await outbox.put(note())
  await writeFile(path.join(folder, `.${eventId}.0123456789ab`), '{"eve')
  expect(await outbox.list()).toEqual([eventId])
  expect(await store.sweepOrphans(3_600_000)).toBe(0)
  expect(await store.sweepOrphans(-1)).toBe(1)
  expect(await readdir(folder)).toEqual([`${eventId}.json`])
})

it('is synced before the note counts, unless nothing is', async () => {
  const synced = async (durability: 'none' | 'finish' | 'checkpoint') => {
    const fileSystem = faulty(() => undefined)
    const { outbox } = await outboxIn({ fileSystem, durability })
    fileSystem.operations.length = 0
    await outbox.put(note())
    return fileSystem.operations.map(({ name }) => name).filter((name) => /sync|rename/.test(name))
  }
  expect(await synced('none')).toEqual(['rename'])
  // The text, then the names: outbox, .tidemark, uploads.
  expect(await synced('finish')).toEqual([
    'handle.datasync',
    'rename',
    'handle.sync',
    'handle.sync',
    'handle.sync',
  ])
  expect(await synced('checkpoint')).toEqual(await synced('finish'))
})

it('does not make the folder of uploads, which may not be mounted', async () => {
  const { directory, outbox } = await outboxIn({ directory: path.join(await temporaryFolder(), 'mount') })
  await rm(directory, { recursive: true })
  await expect(outbox.put(note())).rejects.toMatchObject({ code: 'io' })
})
