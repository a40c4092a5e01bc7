import { mkdir, readdir, rename } from 'node:fs/promises'
import path from 'node:path'
import { expect, it } from 'vitest'
import { FileBytes, type FileBytesOptions } from '../../../stores/file/file-bytes.ts'
import { codeOf, headOf } from '../../contracts/byte-store-values.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { faulty } from './support.ts'

const name = 'c3'.repeat(32)

async function storeIn(options: Partial<FileBytesOptions> = {}) {
  const directory = options.directory ?? (await temporaryFolder())
  const store = new FileBytes({ directory, durability: 'none', ...options })
  await store.start()
  return { directory, store }
}

it('syncs the names of all folders before a lasting link is relied upon, and of others none', async () => {
  const synced: string[] = []
  const fileSystem = faulty(({ name, file }) => {
    if (name === 'handle.sync') synced.push(file)
    return undefined
  })
  for (const [durability, lasting, count] of [
    ['finish', true, 5],
    ['finish', false, 0],
    ['none', true, 0],
  ] as const) {
    const { store } = await storeIn({ durability, fileSystem })
    synced.length = 0
    await store.names.add(name, 'a', { lasting, now: 1 })
    // The link's folder, the one above it, names, .tidemark, and the upload folder itself.
    expect(synced).toHaveLength(count)
  }
})

it('sweeps links of uploads that are gone, and none that may be about to be made', async () => {
  const now = 10_000_000
  const { store } = await storeIn({ now: () => now })
  const appender = await store.create(headOf('there'), 5)
  await appender.close()
  for (const [id, at] of [
    ['there', 1],
    ['gone', 1],
    ['made-soon', now - 1],
  ] as const)
    await store.names.add(name, id, { lasting: false, now: at })
  expect(await store.sweepOrphans(60_000)).toBe(1)
  expect((await store.names.list(name)).map(({ id }) => id).toSorted()).toEqual(['made-soon', 'there'])
})

it('makes no folder where that of the uploads is not mounted', async () => {
  const { directory, store } = await storeIn()
  const elsewhere = path.join(await temporaryFolder(), 'away')
  await rename(directory, elsewhere)
  expect(await codeOf(store.names.add(name, 'a', { lasting: true, now: 1 }))).toBe('io')
  await mkdir(directory)
  expect(await readdir(directory)).toEqual([])
})
