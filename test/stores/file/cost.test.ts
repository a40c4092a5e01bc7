/**
 * How many file operations an upload costs. Every one is a hop to a thread, and small uploads are made of nothing else;
 * whoever adds one changes a number here, and says what it buys.
 */
import { expect, it } from 'vitest'
import { FileBytes, type FileBytesOptions } from '../../../stores/file/file-bytes.ts'
import { headOf } from '../../contracts/byte-store-values.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { faulty } from './support.ts'

const id = 'c'.repeat(32)
const none = { durability: 'none' } as const

// Of the twelve of a shared `open` six keep apart from others who open: opening made and closed, mark read again, two
// looks for a successor, opening taken away. Six more of removing an open one: a generation of its own and its tombstone.
it.each<[string, Partial<FileBytesOptions>, Record<string, number>]>([
  [
    'shared, not synced',
    none,
    { create: 3, commit: 3, close: 2, look: 4, open: 12, finish: 4, remove: 10, removeOpen: 16 },
  ],
  [
    'alone, not synced',
    { ...none, isShared: false },
    { create: 3, commit: 1, close: 2, look: 4, open: 6, finish: 2, remove: 10, removeOpen: 10 },
  ],
  [
    'shared',
    {},
    { create: 3, commit: 3, close: 2, look: 4, open: 12, finish: 10, remove: 11, removeOpen: 17 },
  ],
])('the file operations of an upload: %s', async (_, options, expected) => {
  const fileSystem = faulty(() => undefined)
  const store = new FileBytes({ directory: await temporaryFolder(), fileSystem, ...options })
  await store.start()
  const cost: Record<string, number> = {}
  const counted = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    fileSystem.operations.length = 0
    const result = await work()
    cost[name] = fileSystem.operations.length
    return result
  }
  const first = await counted('create', () => store.create(headOf(id), 6))
  await first.write([Buffer.from('abc')], 0)
  await counted('commit', () => first.commit({ offset: 3, last: true }))
  await counted('close', () => first.close())
  await counted('look', () => store.look(id))
  const next = (await counted('open', () => store.open(id)))!
  await next.write([Buffer.from('def')], 3)
  await counted('finish', () => next.finish(6))
  await next.close()
  await counted('remove', () => store.remove(id))
  await (await store.create(headOf(id), 6)).close()
  await counted('removeOpen', () => store.remove(id))
  expect(cost).toEqual(expected)
})
