// An upload that is made of bytes that are all there: finished, or not to be found.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { codeOf, headOf, randomBytes } from '../../contracts/byte-store-values.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { errno, faulty, filesIn, storeIn } from './support.ts'

const id = 'c'.repeat(32)
const body = randomBytes(4096)

describe('an upload that comes whole', () => {
  it('is finished, and holds what was sent', async () => {
    const store = await storeIn(await temporaryFolder())
    const made = await store.createFinished(headOf(id, { metadata: 'name YQ==' }), body)
    expect(made).toMatchObject({ mark: { state: 'finished', offset: 4096, length: 4096, generation: 0 } })
    expect(await store.look(id)).toEqual(made)
    expect((await buffer(await store.read(made, 0, 4096))).equals(body)).toBe(true)
    expect(await store.open(id)).toBeUndefined()
    expect(await store.remove(id)).toBe(true)
    expect(await store.look(id)).toBeUndefined()
  })

  it('is exclusive', async () => {
    const folder = await temporaryFolder()
    const store = await storeIn(folder)
    await store.createFinished(headOf(id), body)
    expect(await codeOf(store.createFinished(headOf(id), randomBytes(10)))).toBe('exists')
    expect((await store.look(id))?.mark.offset).toBe(4096)
    await writeFile(join(folder, 'd'.repeat(32)), 'of somebody else')
    expect(await codeOf(store.createFinished(headOf('d'.repeat(32)), body))).toBe('exists')
    expect(await filesIn(folder)).toEqual([`.${id}.0.mark`, id, 'd'.repeat(32)])
  })

  it('is found by nobody before all of it is written, at whatever step they look', async () => {
    const folder = await temporaryFolder()
    const other = await storeIn(folder)
    const seen: Promise<string>[] = []
    const fileSystem = faulty(({ name }) => {
      seen.push(other.look(id).then((record) => `${name}: ${record?.mark.state ?? 'nothing'}`))
      return undefined
    })
    const store = await storeIn(folder, { fileSystem })
    seen.length = 0
    await store.createFinished(headOf(id), body)
    const states = (await Promise.all(seen)).map((each) => each.split(': ')[1])
    expect(states[0]).toBe('nothing')
    expect(states.every((state) => state === 'nothing' || state === 'finished')).toBe(true)
    expect(states).toEqual(states.toSorted((a, b) => (a === b ? 0 : a === 'nothing' ? -1 : 1)))
  })

  it('leaves nothing when any step fails, and can be made anew', async () => {
    for (let failing = 0; ; failing++) {
      const folder = await temporaryFolder()
      let steps = Number.NEGATIVE_INFINITY
      const fileSystem = faulty(({ name }) => {
        if (name === 'handle.close' || name === 'unlink') return undefined
        if (steps++ === failing) throw errno('EIO')
        return undefined
      })
      const store = await storeIn(folder, { fileSystem })
      steps = 0
      const code = await codeOf(store.createFinished(headOf(id), body))
      if (code === undefined) {
        // Opened twice, written three times, synced three times and the folder with its own opening.
        expect(failing).toBeGreaterThan(6)
        return
      }
      expect(code).toBe('io')
      expect(await store.look(id)).toBeUndefined()
      expect(await filesIn(folder)).toEqual([])
      await store.createFinished(headOf(id), body)
    }
  })
})
