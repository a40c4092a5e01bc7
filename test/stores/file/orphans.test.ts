import { mkdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { FileStore as TusFileStore } from '@tus/file-store'
import { Upload } from '@tus/utils'
import { describe, expect, it } from 'vitest'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { encodeHead } from '../../../stores/file/mark-codec.ts'
import { headOf } from '../../contracts/byte-store-values.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { cutOffBefore, errno, faulty, filesIn, storeIn } from './support.ts'

const own = '0123456789abcdef0123456789abcdef'
const claimOf = (head: ReturnType<typeof headOf>) => Buffer.concat([Buffer.alloc(1024), encodeHead(head)])
const claim = claimOf(headOf('x'))
const longClaim = claimOf(headOf('x', { metadata: `a ${'YQ'.repeat(1500)}` }))

describe('the sweep', () => {
  it('removes each kind of leftover', async () => {
    const kinds: Record<string, Record<string, string | Buffer>> = {
      'the claim of a creation': { '.x.0.mark': '' },
      'claim and empty file of a creation': { '.x.0.mark': '', x: '' },
      'a creation that was cut off while the mark was written': { '.x.0.mark': claim, x: '' },
      'the claim of a take-over that came after a removal': { '.x.1.mark': claim },
      'the same with a long head': { '.x.1.mark': longClaim },
      'the same, empty': { '.x.2.mark': '' },
      'the opening of an upload that was removed': { '.x.0.opening': '' },
      'the copy of a take-over that came after a removal': { [`.${own}.1.data`]: 'copied' },
      'the same with its claim': { [`.${own}.1.data`]: 'copied', [`.${own}.1.mark`]: claim },
      'all of it in a folder': { 'a/b/.x.0.mark': '', 'a/b/x': '', 'a/b/.x.1.mark': '' },
    }
    for (const [kind, files] of Object.entries(kinds)) {
      const { folder, store } = await start()
      for (const [file, content] of Object.entries(files)) await put(folder, file, content)
      expect(await store.sweepOrphans(60_000), kind).toBe(0)
      expect(await filesIn(folder)).toHaveLength(Object.keys(files).length)
      await sweepAll(store)
      expect(await filesIn(folder), kind).toEqual([])
    }
  })

  it('tells age by the clock of the files', async () => {
    const { folder, store } = await start()
    for (const file of ['.old.0.mark', '.young.0.mark']) await put(folder, file, '')
    const hourAgo = Date.now() / 1000 - 3600
    await utimes(join(folder, '.old.0.mark'), hourAgo, hourAgo)
    expect(await store.sweepOrphans(1800_000)).toBe(1)
    expect(await filesIn(folder)).toEqual(['.young.0.mark'])
  })

  it('never touches what is not its own', async () => {
    const { folder, store } = await start()
    const tus = new TusFileStore({ directory: folder })
    const other = own.replace('0', 'f')
    for (const id of [own, other]) await tus.create(new Upload({ id, offset: 0, size: 5 }))
    await writeFile(join(folder, other), 'hello')
    const foreign = {
      'notes.txt': 'mine',
      empty: '',
      '.bashrc': '',
      '.notes.1.data': 'mine',
      '.notes.0.mark': 'a mark of my own',
      '.notes.0.opening': 'mine',
      '.notes.mark': '',
      '.x..data': '',
      'photos/2024/.index.3.mark': 'mine',
      'photos/2024/a.jpg': 'mine',
      [`photos/${own}`]: '',
      [`${own}0`]: '',
      '.cache/.x.0.mark': '',
    }
    for (const [file, content] of Object.entries(foreign)) await put(folder, file, content)
    // Somebody's file in the place of bytes, beside the claim of a creation that was cut off.
    await put(folder, '.photo.jpg.0.mark', '')
    await put(folder, 'photo.jpg', 'mine')
    const before = await contentsOf(folder)
    await sweepAll(store)
    before.delete('.photo.jpg.0.mark')
    expect(await contentsOf(folder)).toEqual(before)
    expect((await tus.getUpload(own)).size).toBe(5)
    expect((await tus.getUpload(other)).offset).toBe(5)
  })

  it('takes bytes beside an empty mark for its own where it named and made both, as a loss of power leaves them', async () => {
    const { folder, store } = await start()
    const foreign = own.replace('0', 'f')
    await put(folder, foreign, 'was there before the claim')
    await new Promise((resolve) => setTimeout(resolve, 20))
    for (const id of [own, foreign, 'named']) await put(folder, `.${id}.0.mark`, '')
    for (const id of [own, 'named']) await put(folder, id, 'abc')
    await sweepAll(store)
    expect(await filesIn(folder)).toEqual([foreign, 'named'].sort())
  })

  it('never touches an upload that is there, whatever state and generation it is in', async () => {
    const { folder, store, uploadOf } = await start()
    await uploadOf('one', 1)
    await uploadOf('three', 3)
    await uploadOf(own, 2)
    const sealed = (await store.open('three'))!
    await sealed.write([Buffer.from('def')], 3)
    await sealed.finish(6)
    await sealed.close()
    const before = await contentsOf(folder)
    await sweepAll(store)
    expect(await contentsOf(folder)).toEqual(before)
  })

  it('takes away the opening that a crash left once its generation is over: until then its maker may be alive', async () => {
    const { folder, store, uploadOf, another } = await start()
    await uploadOf('x', 1)
    await put(folder, '.x.0.opening', '')
    expect(await store.sweepOrphans(-1)).toBe(0)
    const next = (await (await another()).open('x'))!
    expect(next.record.mark).toMatchObject({ generation: 1, offset: 3 })
    await next.close()
    expect(await store.sweepOrphans(-1)).toBe(1)
    expect(await filesIn(folder)).toEqual(['.x.0.mark', '.x.1.data', '.x.1.mark'])
    const last = (await (await another()).open('x'))!
    expect(last.record.mark).toMatchObject({ generation: 1, offset: 3 })
    await last.close()
  })

  it('ends a removal that was cut off at any step, which never comes back to life meanwhile', async () => {
    for (const generations of [1, 2, 4]) {
      for (const id of ['x', own, 'a/x']) {
        for (const isSilent of [false, true]) {
          for (let unlinks = 0, isCut = true; isCut; unlinks++) {
            const { folder, store, another, uploadOf } = await start()
            const silent = await uploadOf(id, generations, isSilent)
            let left = unlinks
            const dying = new FileBytes({
              directory: folder,
              fileSystem: faulty(({ name }) => {
                if (name === 'unlink' && left-- <= 0) throw errno('EIO')
                return undefined
              }),
            })
            isCut = await dying.remove(id).then(
              () => false,
              () => true,
            )
            const expectGone = async () => {
              const reader = await another()
              expect((await reader.look(id))?.mark.state ?? 'terminated').toBe('terminated')
              expect(await reader.open(id)).toBeUndefined()
            }
            await expectGone()
            // The sweep may be cut off just as well, at each of its own steps.
            for (let steps = 0; steps < 40; steps += 3) {
              await new FileBytes({ directory: folder, fileSystem: cutOffBefore(steps) })
                .sweepOrphans(-1)
                .catch(() => undefined)
              await expectGone()
            }
            await sweepAll(store)
            await silent?.close()
            expect(await filesIn(folder)).toEqual([])
            const again = await store.create(headOf(id), 3)
            expect((await store.look(id))!.mark).toMatchObject({ state: 'open', offset: 0, generation: 0 })
            await again.close()
          }
        }
      }
    }
  })

  it('and a writer who comes too late cannot bring an upload back to life', async () => {
    const { folder, store, uploadOf } = await start()
    const silent = (await uploadOf('x', 2, true))!
    let isCut = true
    const dying = new FileBytes({
      directory: folder,
      fileSystem: faulty(({ name }) => {
        if (isCut && name === 'unlink') throw errno('EIO')
        return undefined
      }),
    })
    await dying.remove('x').catch(() => undefined)
    await silent.write([Buffer.from('def')], 3)
    for (let n = 0; n < 4; n++) await silent.commit({ offset: 4 }).catch(() => undefined)
    await silent.finish(6).catch(() => undefined)
    await silent.close()
    expect((await store.look('x'))!.mark.state).toBe('terminated')
    isCut = false
    expect(await dying.remove('x')).toBe(false)
    expect(await filesIn(folder)).toEqual([])
  })
})

async function start() {
  const folder = await temporaryFolder()
  const another = () => storeIn(folder)
  const store = await another()
  /** An upload of three bytes, of six, that was taken over until it had so many generations. */
  const uploadOf = async (id: string, generations: number, isSilent = false) => {
    let appender = await store.create(headOf(id), 6)
    await appender.write([Buffer.from('abc')], 0)
    await appender.commit({ offset: 3 })
    for (let n = 1; n < generations; n++) {
      const next = (await (await another()).open(id))!
      await appender.close()
      appender = next
    }
    if (isSilent) return appender
    await appender.close()
    return undefined
  }
  return { folder, store, another, uploadOf }
}

async function sweepAll(store: FileBytes): Promise<void> {
  for (let n = 0; n < 3; n++) await store.sweepOrphans(-1)
  expect(await store.sweepOrphans(-1)).toBe(0)
}

async function put(folder: string, file: string, content: string | Buffer): Promise<void> {
  await mkdir(join(folder, file, '..'), { recursive: true })
  await writeFile(join(folder, file), content)
}

async function contentsOf(folder: string): Promise<Map<string, string>> {
  const files = await filesIn(folder)
  return new Map(
    await Promise.all(
      files.map(async (file) => [file, await readFile(join(folder, file), 'latin1')] as const),
    ),
  )
}
