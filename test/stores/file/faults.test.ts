import { execFileSync } from 'node:child_process'
import { readFile, rename, rm, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { codeOf, headOf, randomBytes } from '../../contracts/byte-store-values.ts'
import { startChild, stopChild } from '../../support/child.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { mayMount, mounted } from '../../support/small-disk.ts'
import { errno, faulty, filesIn, start, storeIn } from './support.ts'

const mib = 1024 * 1024

describe('a full disk', () => {
  it('takes no more bytes and no more uploads, but every mark; and all goes on when there is room', async () => {
    const { folder, store } = await start()
    let isFull = false
    const full = await storeIn(folder, {
      fileSystem: faulty(({ name }) => {
        if (isFull && name === 'handle.writev') throw errno('ENOSPC')
        return undefined
      }),
    })
    const appender = await full.create(headOf('a'), 6)
    await appender.write([Buffer.from('abc')], 0)
    isFull = true
    expect(await codeOf(appender.write([Buffer.from('def')], 3))).toBe('full')
    expect((await appender.commit({ offset: 3, last: true })).mark.offset).toBe(3)
    await appender.close()
    const next = (await store.open('a'))!
    await next.write([Buffer.from('def')], 3)
    await next.finish(6)
    await next.close()
    expect(await readFile(join(folder, 'a'), 'utf8')).toBe('abcdef')
  })

  it('leaves nothing of a creation that found no room, and never touches the bytes of another', async () => {
    for (const step of ['open', 'handle.write']) {
      const folder = await temporaryFolder()
      const store = await storeIn(folder, {
        fileSystem: faulty(({ name, file }) => {
          if (name === step && file === (step === 'open' ? 'a' : '.a.0.mark')) throw errno('ENOSPC')
          return undefined
        }),
      })
      expect(await codeOf(store.create(headOf('a'), 6))).toBe('full')
      expect(await filesIn(folder)).toEqual([])
      const other = await storeIn(folder)
      await (await other.create(headOf('a'), 6)).close()
      expect(await codeOf(store.create(headOf('a'), 6))).toBe('exists')
      expect(await filesIn(folder)).toEqual(['.a.0.mark', 'a'])
    }
  })

  it.runIf(mayMount())('of a small real file system: marks, finishing and removing go on', async () => {
    const folder = await mounted('size=256k')
    const store = await storeIn(folder)
    const content = randomBytes(mib)
    const appender = await store.create(headOf('a'), content.length)
    await appender.write([content.subarray(0, 1000)], 0)
    await appender.commit({ offset: 1000 })
    expect(await codeOf(appender.write([content.subarray(1000)], 1000))).toBe('full')
    expect(await store.freeBytes()).toBe(0)
    await appender.commit({ offset: 1000 })
    await appender.close()
    expect(await codeOf(store.create(headOf('b'), 1))).toBe('full')
    expect(await filesIn(folder)).toEqual(['.a.0.mark', 'a'])
    const again = (await store.open('a'))!
    expect(again.record.mark.offset).toBe(1000)
    expect(again.rewound).toBeUndefined()
    await again.close()
    expect((await buffer(await store.read(again.record, 0, 1000))).equals(content.subarray(0, 1000))).toBe(
      true,
    )
    // A silent writer's successor needs room for a copy; it fails cleanly until there is some.
    const silent = (await store.open('a'))!
    const other = await storeIn(folder)
    for (let n = 0; n < 3; n++) expect(await codeOf(other.open('a'))).toBe('full')
    await silent.close()
    expect((await store.look('a'))!.mark).toMatchObject({ state: 'open', offset: 1000 })
    expect(await store.remove('a')).toBe(true)
    expect(await filesIn(folder)).toEqual([])
    await (await store.create(headOf('c'), 1)).close()
  })

  it('a limit on the size of files counts as full too, and what was written before it is kept', async () => {
    const { folder } = await start()
    const script = fileURLToPath(new URL('limited-process.ts', import.meta.url))
    const child = startChild('sh', [
      '-c',
      // In blocks of 512 bytes, as POSIX wants it; bash counts 1024. Either is less than 2 MiB.
      'ulimit -f 2048; exec "$@"',
      'sh',
      process.execPath,
      '--import',
      'tsx',
      script,
      folder,
    ])
    onTestFinished(async () => void (await stopChild(child)))
    await child.exited
    expect(child.output()).toBe('full 65536\n')
    expect((await (await storeIn(folder)).look('a'))!.mark.offset).toBe(65_536)
  })
})

describe('storage', () => {
  it('that writes less than it was given is given the rest', async () => {
    const { folder } = await start()
    let writes = 0
    const store = await storeIn(folder, {
      fileSystem: faulty(({ name }) => {
        if (name !== 'handle.writev') return undefined
        writes += 1
        return { atMostBytes: 1 + (writes % 7) * 11 }
      }),
    })
    const buffers = Array.from({ length: 60 }, (_, n) => randomBytes(n * 3, n + 1))
    const whole = Buffer.concat(buffers)
    const appender = await store.create(headOf('a'), whole.length)
    await appender.write(buffers, 0)
    await appender.finish(whole.length)
    await appender.close()
    expect(writes).toBeGreaterThan(60)
    expect((await readFile(join(folder, 'a'))).equals(whole)).toBe(true)
  })

  it('that takes nothing at all is an error, not an endless loop', async () => {
    const { folder } = await start()
    const store = await storeIn(folder, {
      fileSystem: faulty(({ name }) => (name === 'handle.writev' ? { atMostBytes: 0 } : undefined)),
    })
    const appender = await store.create(headOf('a'), 3)
    expect(await codeOf(appender.write([Buffer.from('abc')], 0))).toBe('io')
    await appender.close()
  })

  it('that lost bytes sets the upload back to what is there, and says so', async () => {
    const { folder, store } = await start()
    for (const [silently, generation] of [
      [false, 0],
      [true, 1],
    ] as const) {
      const first = await store.create(headOf('a'), 9)
      await first.write([Buffer.from('abcdef')], 0)
      await first.commit({ offset: 6 })
      if (!silently) await first.close()
      await truncate(join(folder, 'a'), 2)
      const other = await storeIn(folder)
      const appender = (await other.open('a'))!
      expect(appender.rewound).toEqual({ from: 6, to: 2 })
      expect(appender.record.mark).toMatchObject({ offset: 2, generation })
      expect((await other.look('a'))!.mark.offset).toBe(2)
      await Promise.all([first.close(), appender.close()])
      await store.remove('a')
    }
  })

  it('that lost the whole file sets the upload back to its beginning, also for the successor of a silent writer', async () => {
    const { folder, store } = await start()
    for (const silently of [false, true]) {
      const first = await store.create(headOf('a'), 9)
      await first.write([Buffer.from('abcdef')], 0)
      await first.commit({ offset: 6 })
      if (!silently) await first.close()
      await unlink(join(folder, 'a'))
      const appender = (await (await storeIn(folder)).open('a'))!
      expect(appender.rewound).toEqual({ from: 6, to: 0 })
      await Promise.all([first.close(), appender.close()])
      await store.remove('a')
    }
  })

  it('that lost bytes of a finished upload serves none of it', async () => {
    const { folder, store } = await start()
    const appender = await store.create(headOf('a'), 6)
    await appender.write([Buffer.from('abcdef')], 0)
    const record = await appender.finish(6)
    await appender.close()
    await truncate(join(folder, 'a'), 5)
    expect(await codeOf(store.read(record, 0, 6))).toBe('damaged')
    expect(String(await buffer(await store.read(record, 0, 5)))).toBe('abcde')
    await unlink(join(folder, 'a'))
    expect(await codeOf(store.read(record, 0, 1))).toBe('io')
    expect(await store.look('a')).toEqual(record)
  })

  it('whose folder is away does not look like one without uploads', async () => {
    const { folder, store } = await start()
    await (await store.create(headOf('a'), 6)).close()
    const away = `${folder}-away`
    await rename(folder, away)
    onTestFinished(() => rm(away, { recursive: true, force: true }))
    const expectUnavailable = async () => {
      for (const id of ['a', 'never', 'in/a']) {
        expect(await codeOf(store.look(id))).toBe('unavailable')
        expect(await codeOf(store.open(id))).toBe('unavailable')
        expect(await codeOf(store.create(headOf(id), 1))).toBe('unavailable')
      }
    }
    await expectUnavailable()
    await writeFile(folder, 'a file in its place')
    await expectUnavailable()
    await rm(folder)
    await rename(away, folder)
    expect((await store.look('a'))!.mark.offset).toBe(0)
  })

  it('whose folder is a file can not be started', async () => {
    const folder = await temporaryFolder()
    await writeFile(join(folder, 'file'), '')
    for (const directory of [join(folder, 'file'), join(folder, 'file', 'below')])
      expect(await codeOf(new FileBytes({ directory }).start())).toBe('io')
  })

  it.runIf(mayMount())('that can only be read still answers, and refuses the rest', async () => {
    const folder = await mounted('size=1m')
    const store = await storeIn(folder)
    const open = await store.create(headOf('open'), 6)
    await open.write([Buffer.from('abc')], 0)
    await open.commit({ offset: 3, last: true })
    await open.close()
    const sealed = await store.create(headOf('sealed'), 3)
    await sealed.write([Buffer.from('abc')], 0)
    const record = await sealed.finish(3)
    await sealed.close()
    execFileSync('mount', ['-o', 'remount,ro', folder])
    expect((await store.look('open'))!.mark.offset).toBe(3)
    expect(String(await buffer(await store.read(record, 0, 3)))).toBe('abc')
    expect(await codeOf(store.create(headOf('new'), 1))).toBe('io')
    expect(await codeOf(store.open('open'))).toBe('io')
    expect(await codeOf(store.remove('sealed'))).toBe('io')
    expect(await store.look('sealed')).toEqual(record)
  })

  it('a part of an id that is the name of an upload is taken, and the other way round', async () => {
    const { folder, store } = await start()
    await (await store.create(headOf('a'), 1)).close()
    await (await store.create(headOf('b/c'), 1)).close()
    const files = await filesIn(folder)
    expect(await codeOf(store.create(headOf('a/b'), 1))).toBe('exists')
    expect(await codeOf(store.create(headOf('b'), 1))).toBe('exists')
    expect(await store.look('a/b')).toBeUndefined()
    expect(await filesIn(folder)).toEqual(files)
  })
})

/** A small file system of its own; gone when the test is. */
