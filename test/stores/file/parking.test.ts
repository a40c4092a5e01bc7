import { readdirSync, readlinkSync } from 'node:fs'
import { readFile, rename, unlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { Parking } from '../../../stores/file/parking.ts'
import { Pace, quickFiles } from '../../../stores/file/quick-files.ts'
import { temporaryFolder } from '../../support/folder.ts'

async function someFiles(limit: number, count: number) {
  const files = quickFiles(new Pace(), new Parking(limit))
  const folder = await temporaryFolder()
  const paths = Array.from({ length: count }, (_, i) => path.join(folder, `file-${i}`))
  const handles = await Promise.all(paths.map((file) => files.open(file, 'wx+')))
  return { folder, paths, handles }
}

/** What this process has open in a folder. */
function openIn(folder: string): string[] {
  const targets = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return targets.filter((file) => file.startsWith(`${folder}/`)).map((file) => path.basename(file))
}

describe('files beyond the limit', () => {
  it('are closed, the first ones first, and written to as if they were open', async () => {
    const { folder, paths, handles } = await someFiles(2, 4)
    expect(openIn(folder).sort()).toEqual(['file-2', 'file-3'])
    for (const [i, handle] of handles.entries()) await handle.write(Buffer.from(`bytes ${i}`), 0, 7, 0)
    for (const [i, handle] of handles.entries()) await handle.write(Buffer.from('!'), 0, 1, 7 + i)
    expect(openIn(folder)).toHaveLength(2)
    for (const [i, file] of paths.entries())
      expect((await readFile(file, 'utf8')).replaceAll('\0', '')).toBe(`bytes ${i}!`)
    for (const handle of handles) await handle.close()
    expect(openIn(folder)).toEqual([])
  })

  it('are out of reach once they were removed, or others have their names', async () => {
    const { paths, handles } = await someFiles(1, 3)
    await unlink(paths[0]!)
    await writeFile(`${paths[1]}-new`, 'of somebody else')
    await rename(`${paths[1]}-new`, paths[1]!)
    await expect(handles[0]!.write(Buffer.from('late'), 0, 4, 0)).rejects.toMatchObject({ code: 'ESTALE' })
    await expect(handles[1]!.write(Buffer.from('late'), 0, 4, 0)).rejects.toMatchObject({ code: 'ESTALE' })
    expect(await readFile(paths[1]!, 'utf8')).toBe('of somebody else')
    for (const handle of handles) await handle.close()
  })

  it('stay open while they are being written to', async () => {
    const { folder, handles } = await someFiles(1, 1)
    const large = Buffer.alloc(4 * 1024 * 1024, 'w')
    const writing = handles[0]!.writev([large], 0)
    const { handles: others } = await someFiles(1, 1)
    expect(openIn(folder)).toEqual(['file-0'])
    expect(await writing).toEqual({ bytesWritten: large.length })
    await Promise.all([...handles, ...others].map((handle) => handle.close()))
  })
})

it('twenty uploads at once need two open files where no more are allowed, and are all kept', async () => {
  const directory = await temporaryFolder()
  const bytes = new FileBytes({
    directory,
    isShared: false,
    fileSystem: quickFiles(new Pace(), new Parking(2)),
  })
  await bytes.start()
  const ids = Array.from({ length: 20 }, (_, i) => i.toString(16).padStart(32, '0'))
  const heads = ids.map((id) => ({ id, createdAt: 1, dialect: 'tus' as const }))
  const appenders = await Promise.all(heads.map((head) => bytes.create(head, 6)))
  for (const appender of appenders) await appender.write([Buffer.from('abc')], 0)
  for (const appender of appenders) await appender.commit({ offset: 3 })
  for (const appender of appenders) await appender.write([Buffer.from('def')], 3)
  expect(openIn(directory).length).toBeLessThanOrEqual(2)
  for (const appender of appenders) await appender.finish(6)
  for (const appender of appenders) await appender.close()
  for (const id of ids) {
    const record = await bytes.look(id)
    expect(record?.mark.state).toBe('finished')
    expect((await buffer(await bytes.read(record!, 0, 6))).toString()).toBe('abcdef')
  }
  await bytes.close()
})
