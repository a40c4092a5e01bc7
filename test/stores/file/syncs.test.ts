import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import type { FileBytes } from '../../../stores/file/file-bytes.ts'
import { nodeFileSystem } from '../../../stores/file/file-system.ts'
import { codeOf, headOf } from '../../contracts/byte-store-values.ts'
import { deferred } from '../../support/deferred.ts'
import { errno, type Fault, faulty, forge, start, storeIn } from './support.ts'

const mib = 1024 * 1024

describe('a failed sync', () => {
  const failing = (when: (name: string, file: string) => boolean): Fault => {
    let isBroken = true
    return ({ name, file }) => {
      if (!isBroken || !when(name, file)) return undefined
      // The kernel tells it once; a second sync would succeed, and mean nothing.
      isBroken = false
      throw errno('EIO')
    }
  }

  it('when finishing sets the upload back to what was synced, and is never merely tried again', async () => {
    const { folder } = await start()
    const store = await storeIn(folder, {
      fileSystem: faulty(failing((name, file) => name === 'handle.datasync' && file === 'a')),
    })
    const appender = await store.create(headOf('a'), 6)
    await appender.write([Buffer.from('abcdef')], 0)
    await appender.commit({ offset: 5 })
    expect(await codeOf(appender.finish(6))).toBe('io')
    expect((await store.look('a'))!.mark).toMatchObject({ state: 'open', offset: 0, syncedOffset: 0 })
    expect(await codeOf(appender.finish(6))).toBe('io')
    expect(await codeOf(appender.commit({ offset: 5 }))).toBe('io')
    await appender.close()
    const next = (await store.open('a'))!
    expect(next.record.mark.offset).toBe(0)
    await next.write([Buffer.from('ABCDEF')], 0)
    await next.finish(6)
    await next.close()
    expect(await readFile(join(folder, 'a'), 'utf8')).toBe('ABCDEF')
  })

  it('at a checkpoint goes back to the checkpoint before', async () => {
    const { folder } = await start()
    let isBroken = false
    const store = await storeIn(folder, {
      durability: 'checkpoint',
      fileSystem: faulty(({ name, file }) => {
        if (isBroken && name === 'handle.datasync' && file === 'a') throw errno('EIO')
        return undefined
      }),
    })
    const appender = await store.create(headOf('a'), 9)
    await appender.write([Buffer.from('abcdef')], 0)
    await appender.commit({ offset: 3 })
    isBroken = true
    expect(await codeOf(appender.commit({ offset: 6 }))).toBe('io')
    isBroken = false
    expect(await codeOf(appender.commit({ offset: 6 }))).toBe('io')
    await appender.close()
    expect((await store.look('a'))!.mark).toMatchObject({ offset: 3, syncedOffset: 3 })
  })

  it('in the background sets the upload back before anything else is acknowledged', async () => {
    for (const ending of ['commit', 'finish', 'close'] as const) {
      const { folder } = await start()
      const store = await storeIn(folder, {
        fileSystem: faulty(failing((name, file) => name === 'handle.datasync' && file === 'a')),
      })
      const length = 65 * mib
      const appender = await store.create(headOf('a'), length)
      await appender.write([Buffer.alloc(64 * mib)], 0)
      await appender.commit({ offset: 64 * mib })
      await appender.write([Buffer.alloc(mib)], 64 * mib)
      if (ending === 'finish') expect(await codeOf(appender.finish(length))).toBe('io')
      if (ending === 'commit')
        await expect
          .poll(() => codeOf(appender.commit({ offset: 64 * mib }).then(() => undefined)))
          .toBe('io')
      await appender.close()
      expect((await store.look('a'))!.mark).toMatchObject({ state: 'open', offset: 0 })
    }
  })

  it('of the mark of a finished upload takes the finish back', async () => {
    const { folder } = await start()
    let syncs = 0
    const store = await storeIn(folder, {
      // Its first sync comes before it says so.
      fileSystem: faulty(
        failing((name, file) => name === 'handle.datasync' && file === '.a.0.mark' && ++syncs > 1),
      ),
    })
    const appender = await store.create(headOf('a'), 6)
    await appender.write([Buffer.from('abcdef')], 0)
    await appender.commit({ offset: 5 })
    expect(await codeOf(appender.finish(6))).toBe('io')
    await appender.close()
    expect((await store.look('a'))!.mark).toMatchObject({ state: 'open', offset: 5 })
    const next = (await store.open('a'))!
    expect((await next.finish(6)).mark.state).toBe('finished')
    await next.close()
  })
})

describe('what is synced, and when', () => {
  const operationsOf = async (durability: 'finish' | 'checkpoint' | 'none', type?: number) => {
    const { folder } = await start()
    const fileSystem = faulty(() => undefined)
    if (type !== undefined)
      fileSystem.statfs = (async () => ({ type })) as unknown as typeof fileSystem.statfs
    const store = await storeIn(folder, { durability, fileSystem })
    const appender = await store.create(headOf('in/a'), 6)
    await appender.write([Buffer.from('abcdef')], 0)
    await appender.commit({ offset: 5 })
    const syncs = () =>
      fileSystem.operations
        .splice(0)
        .filter(({ name }) => name.endsWith('sync') || name === 'handle.write')
        .map(({ name, file }) => `${name.slice(7)} ${file}`)
    const committed = syncs()
    await appender.finish(6)
    await appender.close()
    return [committed, syncs()].map((list) => list.map((line) => line.replace(/tidemark-test-\w+/, 'top')))
  }
  const mark = 'write .a.0.mark'

  it('`finish`: bytes and head, then names, then the mark, before a finished upload is acknowledged', async () => {
    const names = ['sync in', 'sync top']
    expect(await operationsOf('finish')).toEqual([
      [mark, mark],
      ['datasync a', 'datasync .a.0.mark', ...names, mark, 'datasync .a.0.mark'],
    ])
  })

  it('`checkpoint`: the same before every mark, head and names once; and so on a network file system', async () => {
    const synced = 'datasync .a.0.mark'
    expect(await operationsOf('checkpoint')).toEqual([
      [mark, 'datasync a', synced, 'sync in', 'sync top', mark, synced],
      ['datasync a', mark, synced],
    ])
    // There a mark is synced once more, before its writer looks for a successor: who takes over must be able to see it.
    expect(await operationsOf('finish', 0x6969)).toEqual([
      [mark, 'datasync a', synced, 'sync in', 'sync top', mark, synced, synced],
      ['datasync a', mark, synced, synced],
    ])
  })

  it('`none`: nothing', async () => {
    expect(await operationsOf('none')).toEqual([[mark, mark], [mark]])
  })

  it('a writer does not let go while a sync in the background is still to move its mark', async () => {
    const { folder, store } = await start()
    const { promise: isTime, resolve: goOn } = deferred()
    const slow = faulty(() => undefined)
    const { open } = slow
    slow.open = async (file, flags) => {
      const handle = await open(file, flags)
      const datasync = handle.datasync.bind(handle)
      handle.datasync = () => isTime.then(datasync)
      return handle
    }
    const first = await (await storeIn(folder, { fileSystem: slow })).create(headOf('a'), 65 * mib)
    await first.write([Buffer.alloc(64 * mib)], 0)
    await first.commit({ offset: 64 * mib })
    await first.commit({ offset: 64 * mib, last: true })
    const next = (await store.open('a'))!
    expect(next.record.mark.generation).toBe(1)
    goOn()
    await first.close()
    await next.commit({ offset: 64 * mib })
    await next.close()
  })

  it('what was synced stays synced when a successor copies it', async () => {
    const { folder, store } = await start()
    await (await store.create(headOf('a'), 9)).close()
    await forge(folder, 'a', { offset: 0, syncedOffset: 0 })
    const synced = await storeIn(folder, { durability: 'checkpoint' })
    const silent = (await synced.open('a'))!
    await silent.write([Buffer.from('abc')], 0)
    await silent.commit({ offset: 3 })
    const fileSystem = faulty(() => undefined)
    const next = (await (await storeIn(folder, { fileSystem })).open('a'))!
    expect(next.record.mark).toMatchObject({ offset: 3, syncedOffset: 3, generation: 1 })
    const steps = fileSystem.operations.map(({ name, file }) => `${name} ${file}`)
    expect(steps).toContain('handle.datasync .a.1.data')
    expect(steps.indexOf('handle.datasync .a.1.mark')).toBeLessThan(steps.indexOf('unlink a'))
    await Promise.all([silent.close(), next.close()])
  })
})

describe('after the machine was started again', () => {
  const halfSynced = { offset: 6, syncedOffset: 4 }
  const forged = async (folder: string, store: FileBytes, slot: object) => {
    const appender = await store.create(headOf('a'), 9)
    await appender.write([Buffer.from('abcdef')], 0)
    await appender.commit({ offset: 6 })
    await appender.close()
    await forge(folder, 'a', slot)
  }

  it('an upload goes on from its synced offset on a file system of this machine', async () => {
    for (const isReleased of [true, false]) {
      const { folder, store } = await start()
      await forged(folder, store, { ...halfSynced, isReleased })
      expect((await store.look('a'))!.mark.offset).toBe(4)
      const appender = (await store.open('a'))!
      expect(appender.rewound).toEqual({ from: 6, to: 4 })
      expect(appender.record.mark.offset).toBe(4)
      await appender.write([Buffer.from('EFGHI')], 4)
      const record = await appender.finish(9)
      await appender.close()
      expect(await readFile(record.storage!.path, 'utf8')).toBe('abcdEFGHI')
    }
  })

  it('the mark of another machine is trusted on a network file system', async () => {
    const { folder, store } = await start()
    await forged(folder, store, { ...halfSynced, isReleased: true })
    for (const type of [0x6969, 0xff534d42 | 0, 0x65735546]) {
      const statfs = (async () => ({ type })) as unknown as typeof nodeFileSystem.statfs
      const remote = await storeIn(folder, { fileSystem: { ...nodeFileSystem, statfs } })
      expect((await remote.look('a'))!.mark.offset).toBe(6)
    }
  })

  it('a finished upload is not touched', async () => {
    const { folder, store } = await start()
    const appender = await store.create(headOf('a'), 6)
    await appender.write([Buffer.from('abcdef')], 0)
    const record = await appender.finish(6)
    await appender.close()
    await forge(folder, 'a', { syncedOffset: 0 })
    expect((await store.look('a'))!.mark).toMatchObject({ state: 'finished', offset: 6 })
    expect(await store.open('a')).toBeUndefined()
    expect(String(await buffer(await store.read(record, 0, 6)))).toBe('abcdef')
    expect(await store.remove('a')).toBe(true)
  })
})
