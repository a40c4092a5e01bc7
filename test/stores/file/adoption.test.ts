import { stat } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { contentOf, makeSource } from '../../contracts/adoption-contract.ts'
import { headOf } from '../../contracts/byte-store-values.ts'
import { cutOffBefore, errno, faulty, filesIn, start, storeIn } from './support.ts'

const held = () => true

it('is one more name for the same file, and no copy', async () => {
  const { store } = await start()
  const source = await makeSource(store)
  const appender = await store.create(headOf('new'), source.mark.length)
  const record = await (await store.linkFrom(appender.record, source))!.finish(held)
  await appender.close()
  const [one, two] = await Promise.all([source, record].map(({ storage }) => stat(storage!.path)))
  expect([two!.ino, two!.nlink]).toEqual([one!.ino, 2])
})

for (const durability of ['finish', 'none'] as const)
  for (const isShared of [true, false])
    it(`a crash at any step hurts no upload and leaves nothing for ever (${durability}, ${isShared ? 'shared' : 'alone'})`, async () => {
      for (let steps = 0, isDone = false; !isDone; steps++) {
        const { folder, store } = await start()
        const source = await makeSource(store)
        const kept = await contentOf(store, 'source')
        const options = { directory: folder, durability, isShared }
        const fileSystem = cutOffBefore(steps)
        const dying = new FileBytes({ ...options, fileSystem })
        isDone = await adopt(dying, source).then(
          () => true,
          () => false,
        )
        const next = await storeIn(folder, { durability, isShared })
        const found = await next.look('new')
        if (found?.mark.state === 'finished') expect((await contentOf(next, 'new')).equals(kept)).toBe(true)
        // Whoever goes on in what was left writes to no file of another upload.
        const appender = await next.open('new')
        await appender?.write([Buffer.alloc(source.mark.length!, 'x')], 0)
        await appender?.finish(source.mark.length!)
        await appender?.close()
        expect((await contentOf(next, 'source')).equals(kept)).toBe(true)
        await next.remove('new')
        await next.sweepOrphans(-1)
        await next.remove('source')
        expect(await filesIn(folder)).toEqual([])
      }
    })

for (const code of ['EMLINK', 'EXDEV', 'ENOSPC', 'ENOENT', 'EPERM'])
  it(`a link that fails with ${code} leaves the upload as it was`, async () => {
    const { folder, store } = await start()
    const source = await makeSource(store)
    const fileSystem = faulty(({ name }) => {
      if (name === 'link') throw errno(code)
      return undefined
    })
    const unable = await storeIn(folder, { fileSystem })
    const appender = await unable.create(headOf('new'), 3)
    expect(await unable.linkFrom(appender.record, source)).toBeUndefined()
    await appender.write([Buffer.from('abc')], 0)
    expect((await appender.finish(3)).mark).toMatchObject({ state: 'finished', generation: 0 })
    await appender.close()
  })

async function adopt(store: FileBytes, source: Parameters<FileBytes['linkFrom']>[1]): Promise<void> {
  const appender = await store.create(headOf('new'), source.mark.length)
  try {
    const adoption = await store.linkFrom(appender.record, source)
    if (adoption === undefined) throw new Error('not linked')
    await adoption.finish(held)
  } finally {
    await appender.close()
  }
}
