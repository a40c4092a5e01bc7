// An upload that is made empty, and let go of by the one who made it.

import { describe, expect, it } from 'vitest'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { codeOf, headOf } from '../../contracts/byte-store-values.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { errno, faulty, filesIn, storeIn } from './support.ts'

const id = 'c'.repeat(32)

describe('an upload that is made empty', () => {
  it('is there, at rest, and the next writer goes on in its files', async () => {
    const folder = await temporaryFolder()
    const store = await storeIn(folder)
    const made = await store.createEmpty(headOf(id, { metadata: 'name YQ==' }), 3)
    expect(made).toMatchObject({ mark: { state: 'open', offset: 0, length: 3, generation: 0 } })
    expect(await store.look(id)).toEqual(made)
    const other = await storeIn(folder)
    const appender = (await other.open(id))!
    expect(appender.record.mark.generation).toBe(0)
    await appender.write([Buffer.from('abc')], 0)
    expect((await appender.finish(3)).mark).toMatchObject({ state: 'finished', offset: 3 })
    await appender.close()
    expect(await filesIn(folder)).toEqual([`.${id}.0.mark`, id])
  })

  it('may have no length yet', async () => {
    const store = await storeIn(await temporaryFolder())
    expect((await store.createEmpty(headOf(id), undefined)).mark.length).toBeUndefined()
    expect((await store.look(id))?.mark).toMatchObject({ offset: 0 })
  })

  it('is exclusive', async () => {
    const store = await storeIn(await temporaryFolder())
    await store.createEmpty(headOf(id), 3)
    expect(await codeOf(store.createEmpty(headOf(id), 4))).toBe('exists')
    expect((await store.look(id))?.mark.length).toBe(3)
  })

  it.each([
    ['none', 0],
    ['finish', 0],
    ['checkpoint', 3],
  ] as const)('with durability %s is synced as an empty one is, in %i steps', async (durability, syncs) => {
    const fileSystem = faulty(() => undefined)
    const store = new FileBytes({ directory: await temporaryFolder(), durability, fileSystem })
    await store.start()
    fileSystem.operations.length = 0
    await store.createEmpty(headOf(id), 3)
    expect(fileSystem.operations.filter(({ name }) => /sync/.test(name))).toHaveLength(syncs)
  })

  it('stays empty when it can not be synced, for others may have come upon it', async () => {
    const folder = await temporaryFolder()
    const fileSystem = faulty(({ name }) => {
      if (name === 'handle.datasync') throw errno('EIO')
      return undefined
    })
    const store = new FileBytes({ directory: folder, durability: 'checkpoint', fileSystem })
    await store.start()
    expect(await codeOf(store.createEmpty(headOf(id), 3))).toBe('io')
    expect((await (await storeIn(folder)).look(id))?.mark).toMatchObject({ state: 'open', offset: 0 })
  })
})
