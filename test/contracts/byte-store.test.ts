import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import path from 'node:path'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { cutOffBefore, filesIn } from '../stores/file/support.ts'
import { makeFolder } from '../support/folder.ts'
import { describeAdoption } from './adoption-contract.ts'
import { describeAppender } from './appender-contract.ts'
import { type ByteStoreUnderTest, describeByteStore } from './byte-store-contract.ts'
import { headOf } from './byte-store-values.ts'
import { describeConcatenation } from './concatenation-contract.ts'
import { describeNames } from './names-contract.ts'

for (const durability of ['finish', 'checkpoint', 'none'] as const) {
  for (const isShared of [true, false]) {
    const name = `FileBytes, ${durability}, ${isShared ? 'shared' : 'alone'}`
    const start = async (): Promise<ByteStoreUnderTest> => {
      const folder = await makeFolder()
      const options = { directory: folder.path, durability, isShared }
      const store = new FileBytes(options)
      const other = isShared ? new FileBytes(options) : store
      await store.start()
      await other.start()
      return {
        store,
        other,
        async cutOffCreations() {
          const ids: string[] = []
          for (let steps = 0; ; steps++) {
            const id = steps % 2 ? `custom${steps}` : randomUUID().replaceAll('-', '')
            const dying = new FileBytes({ ...options, fileSystem: cutOffBefore(steps) })
            const appender = await dying.create(headOf(id), 5).catch(() => undefined)
            if (appender) {
              await appender.close()
              await store.remove(id)
              return ids
            }
            ids.push(id)
          }
        },
        async cutOffRemovals(id, look) {
          let hasBegun = false
          for (let steps = 0; ; steps++) {
            const fileSystem = cutOffBefore(steps)
            const dying = new FileBytes({ ...options, fileSystem })
            const isRemoved = await dying.remove(id).then(
              () => true,
              () => false,
            )
            // It has begun when its first write was made: the tombstone.
            hasBegun ||= fileSystem.operations.slice(0, steps).some(({ name }) => name === 'handle.write')
            if (hasBegun) await look()
            // Each attempt would leave one more claim to read for the next one, which would never come any further.
            else await rm(path.join(folder.path, `.${id}.1.mark`), { force: true })
            if (isRemoved) return
          }
        },
        remains: () => filesIn(folder.path),
        async stop() {
          await store.close()
          await other.close()
          await folder.remove()
        },
      }
    }
    describeByteStore(name, start)
    describeAppender(name, start)
    describeConcatenation(name, start)
    describeAdoption(name, start)
    describeNames(name, start)
  }
}
