// What watchers are owed, with records and bytes that are plain values.

import { expect, it, onTestFinished, vi } from 'vitest'
import { Counting } from '../../server/uploads/counting.ts'
import { type Happening, type Watcher, Watching } from '../../server/uploads/watching.ts'
import type { ByteStore, RecordNews, RecordStore, UploadRecord } from '../../stores/contracts.ts'
import { StoreError } from '../../stores/contracts.ts'
import { record } from '../contracts/records-contract.ts'

const at = 1_800_000_000_000

it('owes a watcher that takes nothing the latest of each upload, and nothing older', async () => {
  const { watching, put, watcher, told } = start()
  const reader = watcher()
  const watch = await watching.watch({ is: 'owner', owner: 'ann' }, reader)
  reader.isReady = false
  for (let sequence = 1; sequence <= 1000; sequence++) put(of('a', { sequence, offset: sequence }))
  put(of('b', { sequence: 1, state: 'finished', offset: 3, length: 3 }))
  await collected()
  expect(told(reader)).toEqual([])
  reader.isReady = true
  watch.resume()
  await vi.waitFor(() => expect(told(reader)).toEqual(['created a 1000', 'created b 3', 'finished b 3']))
})

it('shows everything anew to who was owed too much', async () => {
  const { watching, put, watcher, told } = start()
  const reader = watcher()
  const watch = await watching.watch({ is: 'all' }, reader)
  reader.isReady = false
  for (let n = 0; n < 1500; n++) put(of(`u${n}`, { offset: n }))
  reader.isReady = true
  watch.resume()
  await vi.waitFor(() => expect(reader.snapshots).toBe(2))
  // What comes after that is told as ever.
  put(of('u1', { sequence: 2, offset: 9 }))
  await vi.waitFor(() => expect(told(reader)).toEqual(['progress u1 9']))
})

it('shows everything anew when something may have been missed, with one look for all who see the same', async () => {
  const { watching, say, watcher, list } = start()
  const readers = Array.from({ length: 50 }, () => watcher())
  for (const reader of readers) await watching.watch({ is: 'owner', owner: 'ann' }, reader)
  list.mockClear()
  say({ is: 'missed' })
  say({ is: 'missed' })
  await vi.waitFor(() => expect(readers.every(({ snapshots }) => snapshots === 2)).toBe(true))
  expect(list).toHaveBeenCalledTimes(1)
})

it('looks again by itself when the records were away', async () => {
  const { watching, say, watcher, list } = start()
  const reader = watcher()
  await watching.watch({ is: 'owner', owner: 'ann' }, reader)
  list.mockRejectedValueOnce(new StoreError('unavailable', 'away'))
  say({ is: 'missed' })
  await vi.waitFor(() => expect(reader.snapshots).toBe(2), { timeout: 10_000 })
  await expect(
    (async () => {
      list.mockRejectedValueOnce(new StoreError('unavailable', 'away'))
      await watching.watch({ is: 'owner', owner: 'ann' }, watcher())
    })(),
  ).rejects.toMatchObject({ code: 'unavailable' })
  expect(watching.size).toBe(1)
})

it('never shows an offset that goes back, in whatever order copies come', async () => {
  const { watching, put, watcher, told } = start()
  const reader = watcher()
  await watching.watch({ is: 'all' }, reader)
  for (const sequence of [3, 1, 2, 5, 4]) {
    put(of('a', { sequence, offset: sequence }))
    await collected()
  }
  expect(told(reader)).toEqual(['created a 3', 'progress a 5'])
})

it('takes the copies that a walk puts again for no news', async () => {
  const { watching, put, watcher, told, kept } = start()
  const old = { movedAt: at - 86_400_000 }
  kept.set('old', of('old', { ...old, state: 'finished', offset: 3, length: 3 }, at - 86_400_000))
  const reader = watcher()
  await watching.watch({ is: 'owner', owner: 'ann' }, reader)
  put(kept.get('old')!)
  put(of('unseen', { ...old, state: 'finished', offset: 3, length: 3 }, at - 86_400_000))
  put(of('new', { offset: 1 }))
  put(of('new', { offset: 1 }))
  await vi.waitFor(() => expect(told(reader)).toEqual(['created new 1']))
})

it('looks at nothing, and hears nothing, while nobody watches', async () => {
  const { watching, watcher, hearing } = start()
  expect(hearing()).toBe(0)
  const one = await watching.watch({ is: 'all' }, watcher())
  const two = await watching.watch({ is: 'named', ids: ['a'], isShown: () => true }, watcher())
  expect(hearing()).toBe(1)
  one.stop()
  one.stop()
  two.stop()
  expect(hearing()).toBe(0)
})

interface Reader extends Watcher {
  isReady: boolean
  snapshots: number
  readonly happenings: Happening[]
}

function start() {
  const kept = new Map<string, UploadRecord>()
  const listeners = new Set<(news: RecordNews) => void>()
  const list = vi.fn(async () => ({ records: [...kept.values()].slice(0, 100) }))
  const records = {
    list,
    get: async (id: string) => kept.get(id),
    watch: (listener: (news: RecordNews) => void) => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  } as unknown as RecordStore
  const bytes = { look: async (id: string) => kept.get(id) } as unknown as ByteStore
  const now = () => at
  const counting = new Counting({ bytes, records, expiry: { afterMs: 0, mode: 'sliding' }, now })
  const watching = new Watching({ counting, records, now, collectMs: 10 })
  onTestFinished(() => watching.close())
  const say = (news: RecordNews) => {
    for (const listener of listeners) listener(news)
  }
  return {
    ...{ watching, kept, list, say },
    hearing: () => listeners.size,
    put: (copy: UploadRecord) => {
      kept.set(copy.head.id, copy)
      say({ is: 'put', record: copy })
    },
    watcher: (): Reader => {
      const reader: Reader = {
        isReady: true,
        snapshots: 0,
        happenings: [],
        snapshot: () => void reader.snapshots++,
        happened: (happening) => void reader.happenings.push(happening),
        ended: () => undefined,
      }
      return reader
    },
    told: ({ happenings }: Reader) =>
      happenings.map(({ kind, id, count }) => `${kind} ${id} ${count?.offset}`),
  }
}

function of(id: string, mark: Partial<UploadRecord['mark']>, createdAt = at): UploadRecord {
  const made = record(id, { movedAt: createdAt, ...mark }, createdAt)
  return { ...made, head: { ...made.head, owner: 'ann' } }
}

/** Longer than news are collected. */
const collected = () => new Promise((resolve) => setTimeout(resolve, 50))
