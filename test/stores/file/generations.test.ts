import { readFile, writeFile } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { nodeFileSystem } from '../../../stores/file/file-system.ts'
import { codeOf, headOf, randomBytes } from '../../contracts/byte-store-values.ts'
import { type Child, startChild, stopChild, untilReady } from '../../support/child.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { errno, faulty, filesIn, storeIn } from './support.ts'

const block = 64 * 1024
const script = fileURLToPath(new URL('writer-process.ts', import.meta.url))

describe('the successor of a writer', () => {
  it('that was killed in the middle of writes goes on in place, from its last mark', async () => {
    const { folder, store, make } = await start()
    for (let run = 0; run < 6; run++) {
      const id = `k${run}`
      await make(id, 1 << 30)
      const child = await writer(folder, id, 'write', `marked ${(1 + run * 7) * block}`)
      child.kill('SIGKILL')
      await child.exited
      const acknowledged = Math.max(
        ...[...child.stdout().matchAll(/marked (\d+)\n/g)].map((m) => Number(m[1])),
      )
      const next = (await store.open(id))!
      const { offset, generation } = next.record.mark
      expect(generation).toBe(0)
      expect(next.rewound).toBeUndefined()
      expect(offset).toBeGreaterThanOrEqual(acknowledged)
      const content = await buffer(await store.read(next.record, 0, offset))
      expect(content.equals(writtenBy(offset))).toBe(true)
      await next.close()
      await store.remove(id)
    }
    expect(await filesIn(folder)).toEqual([])
  })

  it('that was stopped, and writes late, gives nothing of that to anybody', async () => {
    const { folder, store, make } = await start()
    const run = async (n: number) => {
      const id = `s${n}`
      const length = 4 * block + n
      await make(id, length)
      const child = await writer(folder, id, n % 2 ? 'finish' : 'commit', 'waiting')
      child.kill('SIGSTOP')
      const next = (await store.open(id))!
      expect(next.record.mark).toMatchObject({ offset: 2 * block, generation: 1 })
      const rest = randomBytes(length - 2 * block, n + 7)
      const half = rest.length >> 1
      // The other one wakes up before, in the middle of, or after our writes.
      const wake = async () => {
        child.kill('SIGUSR2')
        child.kill('SIGCONT')
        await child.exited
      }
      if (n % 3 === 0) await wake()
      await next.write([rest.subarray(0, half)], 2 * block)
      const meanwhile = n % 3 === 1 ? wake() : undefined
      await next.commit({ offset: 2 * block + half })
      await next.write([rest.subarray(half)], 2 * block + half)
      await meanwhile
      const record = await next.finish(length)
      await next.close()
      if (n % 3 === 2) await wake()
      expect(child.output()).toContain('failed superseded')
      expect(child.output()).not.toContain('acknowledged')
      expect(await store.look(id)).toEqual(record)
      const content = await readFile(record.storage!.path)
      expect(content.equals(Buffer.concat([writtenBy(2 * block), rest]))).toBe(true)
      await store.remove(id)
    }
    for (let n = 0; n < 20; n += 2) await Promise.all([run(n), run(n + 1)])
    expect(await filesIn(folder)).toEqual([])
  }, 120_000)

  it('may itself fall silent, and so may its successor: the last one’s bytes count', async () => {
    const { folder, store, make, another } = await start()
    await make('a', 6)
    const writers = [(await store.open('a'))!]
    for (let n = 0; n < 5; n++) {
      const last = writers.at(-1)!
      await last.write([Buffer.from(`${n}`)], n)
      await last.commit({ offset: n + 1 })
      const next = (await (await another()).open('a'))!
      expect(next.record.mark).toMatchObject({ offset: n + 1, generation: n + 1 })
      writers.push(next)
    }
    for (const [n, old] of writers.slice(0, -1).entries()) {
      await old.write([Buffer.from('XXXXXX')], 0)
      expect(await codeOf(n % 2 ? old.finish(6) : old.commit({ offset: 5 }))).toBe('superseded')
      await old.close()
    }
    const last = writers.at(-1)!
    await last.write([Buffer.from('5')], 5)
    const record = await last.finish(6)
    await last.close()
    expect(await readFile(record.storage!.path, 'utf8')).toBe('012345')
    expect((await filesIn(folder)).filter((file) => file.endsWith('data'))).toEqual(['.a.5.data'])
    await store.remove('a')
    expect(await filesIn(folder)).toEqual([])
  })

  it('of one whose claim was never completed goes on all the same', async () => {
    const { folder, store, make, another } = await start()
    for (const isLastReleased of [true, false]) {
      await make('a', 6)
      const first = (await store.open('a'))!
      await first.write([Buffer.from('abc')], 0)
      await first.commit({ offset: 3 })
      const broken = new FileBytes({
        directory: folder,
        fileSystem: faulty(({ name }) => {
          if (name === 'copyFile') throw errno('ENOSPC')
          return undefined
        }),
      })
      await broken.start()
      // Every failed attempt would leave one more claim, were it not used again.
      for (let n = 0; n < 3; n++) expect(await codeOf(broken.open('a'))).toBe('full')
      expect(await codeOf(first.commit({ offset: 3 }))).toBe('superseded')
      if (isLastReleased) await first.close()
      const next = (await (await another()).open('a'))!
      expect(next.record.mark.offset).toBe(3)
      await next.write([Buffer.from('def')], 3)
      const record = await next.finish(6)
      await Promise.all([first.close(), next.close()])
      expect(await readFile(record.storage!.path, 'utf8')).toBe('abcdef')
      await store.remove('a')
      expect(await filesIn(folder)).toEqual([])
    }
  })

  it('that is gone is not followed in place while somebody else has a claim: nothing would ever be acknowledged', async () => {
    const { folder, store, make } = await start()
    await make('b', 1 << 30)
    const killed = await writer(folder, 'b', 'write', `marked ${block}`)
    // Another server claimed it, and was killed before it could copy anything.
    await writeFile(`${folder}/.b.1.mark`, '')
    killed.kill('SIGKILL')
    await killed.exited
    const next = (await store.open('b'))!
    const { offset, generation } = next.record.mark
    expect([generation, next.rewound]).toEqual([2, undefined])
    await next.write([Buffer.from('on')], offset)
    expect((await next.commit({ offset: offset + 2 })).mark.offset).toBe(offset + 2)
    await next.close()
  })

  it('leaves no more claims than attempts that could not be undone', async () => {
    const { folder, store, make } = await start()
    const id = 'a'.repeat(32)
    await make(id, 6)
    const first = (await store.open(id))!
    const broken = new FileBytes({
      directory: folder,
      fileSystem: faulty(({ name }) => {
        if (name === 'copyFile') throw errno('ENOSPC')
        return undefined
      }),
    })
    for (let n = 0; n < 10; n++) expect(await codeOf(broken.open(id))).toBe('full')
    expect(await filesIn(folder)).toEqual([`.${id}.0.mark`, `.${id}.1.mark`, id])
    await first.close()
  })

  it('follows in place when it is the same store and the last write has returned, though another writer came between', async () => {
    const { folder, make } = await start()
    const alone = new FileBytes({ directory: folder, isShared: false })
    await make('a', 9)
    const first = (await alone.open('a'))!
    const second = (await alone.open('a'))!
    // The end of the first must not look like the end of the second.
    await first.close()
    const third = (await alone.open('a'))!
    expect(third.record.mark.generation).toBe(2)
    await second.write([Buffer.from('LATE')], 0)
    expect(await codeOf(second.commit({ offset: 4 }))).toBe('superseded')
    await Promise.all([second.close(), third.close()])
    const fourth = (await alone.open('a'))!
    expect(fourth.record.mark.generation).toBe(2)
    await fourth.close()
  })
})

describe('a take-over', () => {
  it('that a finish overtakes finds the upload finished, and leaves it so', async () => {
    const { folder, store, make } = await start()
    let finished: Promise<string | undefined> | undefined
    for (const when of ['before the claim', 'while copying', 'after copying']) {
      await make('a', 6)
      const first = (await store.open('a'))!
      await first.write([Buffer.from('abcdef')], 0)
      const finish = async () => {
        finished ??= codeOf(first.finish(6))
        await finished
      }
      finished = undefined
      const racing = new FileBytes({
        directory: folder,
        fileSystem: {
          ...nodeFileSystem,
          open: async (file, flags) => {
            if (when === 'before the claim' && flags === 'wx+') await finish()
            return nodeFileSystem.open(file, flags)
          },
          copyFile: async (from, to, mode) => {
            if (when === 'while copying') await finish()
            await nodeFileSystem.copyFile(from, to, mode)
            if (when === 'after copying') await finish()
          },
        },
      })
      expect(await racing.open('a'), when).toBeUndefined()
      expect(await finished, when).toBe(when === 'before the claim' ? undefined : 'superseded')
      const record = (await store.look('a'))!
      expect(record.mark.state).toBe('finished')
      expect(await readFile(record.storage!.path, 'utf8')).toBe('abcdef')
      await first.close()
      await store.sweepOrphans(-1)
      expect(await store.look('a')).toEqual(record)
      await store.remove('a')
      expect(await filesIn(folder)).toEqual([])
    }
  })

  it('that was cut off at any step loses nothing that was acknowledged, and what it leaves is swept', async () => {
    const { folder, store, make, another } = await start()
    for (let steps = 0, isDone = false; !isDone; steps++) {
      const id = steps % 2 ? `a${steps}` : `${steps}`.padStart(32, 'a')
      await make(id, 6)
      const silent = (await store.open(id))!
      await silent.write([Buffer.from('abc')], 0)
      await silent.commit({ offset: 3 })
      const dying = new FileBytes({
        directory: folder,
        fileSystem: faulty(({ count, name }) => {
          if (count >= steps && name !== 'handle.close') throw errno('EIO')
          return undefined
        }),
      })
      const taken = await dying.open(id).catch(() => undefined)
      isDone = taken !== undefined && steps > 40
      expect((await store.look(id))!.mark).toMatchObject({ state: 'open', offset: 3 })
      const next = (await (await another()).open(id))!
      expect(next.record.mark.offset).toBe(3)
      expect(next.rewound).toBeUndefined()
      await next.write([Buffer.from('def')], 3)
      const record = await next.finish(6)
      await Promise.all([silent.close(), next.close()])
      await store.sweepOrphans(-1)
      expect(await readFile(record.storage!.path, 'utf8')).toBe('abcdef')
      const data = (await filesIn(folder)).filter((file) => !file.endsWith('.mark'))
      expect(data).toHaveLength(1)
      await store.remove(id)
      expect(await filesIn(folder)).toEqual([])
    }
  })

  it('under which the upload is removed fails, and leaves nothing but what the sweep finds', async () => {
    const { folder, store, make } = await start()
    for (const step of ['claim', 'copy'] as const) {
      const id = 'b'.repeat(32)
      await make(id, 6)
      const silent = (await store.open(id))!
      const racing = new FileBytes({
        directory: folder,
        fileSystem: {
          ...nodeFileSystem,
          open: async (file, flags) => {
            if (step === 'claim' && flags === 'wx+') await store.remove(id)
            return nodeFileSystem.open(file, flags)
          },
          copyFile: async (from, to, mode) => {
            await nodeFileSystem.copyFile(from, to, mode)
            if (step === 'copy') await store.remove(id)
          },
        },
      })
      const appender = await racing.open(id).catch(() => undefined)
      expect(appender).toBeUndefined()
      expect(await store.look(id)).toBeUndefined()
      await silent.close()
      await store.sweepOrphans(-1)
      expect(await filesIn(folder)).toEqual([])
    }
  })

  it('finds an upload in the file of an id that looks like somebody’s mark', async () => {
    const { store, make } = await start()
    for (const id of ['a', 'a.1', 'a.1.data', 'a.0.mark']) await make(id, 2)
    for (const id of ['a', 'a.1', 'a.1.data', 'a.0.mark']) {
      expect((await store.look(id))!.head.id).toBe(id)
      expect(await store.remove(id)).toBe(true)
    }
  })
})

async function start() {
  const folder = await temporaryFolder()
  const another = () => storeIn(folder)
  const store = await another()
  const make = async (id: string, length: number) => (await store.create(headOf(id), length)).close()
  return { folder, store, another, make }
}

async function writer(folder: string, id: string, mode: string, until: string): Promise<Child> {
  const child = startChild(process.execPath, ['--import', 'tsx', script, folder, id, mode])
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await stopChild(child)
  })
  const isReady = async () => child.stdout().includes(`${until}\n`)
  await untilReady(child, isReady, { name: 'the other server', withinMs: 20_000 })
  return child
}

/** What the other process writes up to `offset`. */
function writtenBy(offset: number): Buffer {
  const blocks = Array.from({ length: offset / block }, (_, n) => Buffer.alloc(block, 1 + (n % 250)))
  return Buffer.concat(blocks)
}
