import { constants } from 'node:fs'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { Pace, quickFiles } from '../../../stores/file/quick-files.ts'
import { temporaryFolder } from '../../support/folder.ts'

/** A pace on a clock of its own, and what ran where. */
function aPace() {
  const at = { nowMs: 0 }
  const pace = new Pace(() => at.nowMs)
  /** One small operation that takes so long where it runs in place. */
  const run = (takesMs: number) =>
    pace.run(
      () => {
        at.nowMs += takesMs
        return 'in place'
      },
      async () => 'in a thread',
    )
  return { at, pace, run }
}

describe('small operations', () => {
  it('run in place while they are quick', async () => {
    const { run } = aPace()
    for (let i = 0; i < 100; i++) expect(await run(1)).toBe('in place')
  })

  it('run in threads for a while after two of twenty were slow', async () => {
    const { at, run } = aPace()
    expect(await run(5)).toBe('in place')
    for (let i = 0; i < 19; i++) expect(await run(1)).toBe('in place')
    expect(await run(5)).toBe('in place')
    expect(await run(0)).toBe('in a thread')
    at.nowMs += 999
    expect(await run(0)).toBe('in a thread')
    at.nowMs += 1
    expect(await run(0)).toBe('in place')
  })

  it('run in place though one is slow now and then, as it is where others have the processor', async () => {
    const { run } = aPace()
    for (let i = 0; i < 10; i++) {
      expect(await run(20)).toBe('in place')
      for (let j = 0; j < 20; j++) expect(await run(1)).toBe('in place')
    }
  })

  it('run in threads for a while after one was very slow', async () => {
    const { run } = aPace()
    expect(await run(50)).toBe('in place')
    expect(await run(0)).toBe('in a thread')
  })

  it('run in threads for longer and longer while the disk stays slow, and never for more than a minute', async () => {
    const { at, run } = aPace()
    const rests: number[] = []
    for (let i = 0; i < 9; i++) {
      expect(await run(50)).toBe('in place')
      const from = at.nowMs
      while ((await run(0)) === 'in a thread') at.nowMs += 500
      rests.push(at.nowMs - from)
    }
    expect(rests).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000])
  })

  it('are trusted again once the disk was quick for a while', async () => {
    const { at, run } = aPace()
    await run(50)
    at.nowMs += 10_000
    await run(50)
    at.nowMs += 1_000
    expect(await run(0)).toBe('in place')
  })

  it('count as slow also when they fail', async () => {
    const { at, pace, run } = aPace()
    const failing = pace.run(
      () => {
        at.nowMs += 50
        throw new Error('no room')
      },
      async () => undefined,
    )
    await expect(failing).rejects.toThrow('no room')
    expect(await run(0)).toBe('in a thread')
  })

  it('always run in threads where another machine is asked', async () => {
    const { pace, run } = aPace()
    pace.isRemote = true
    expect(await run(0)).toBe('in a thread')
  })
})

describe.each([
  ['in place', false],
  ['in threads', true],
])('a file whose operations run %s', (_, isRemote) => {
  async function aFile(flags: string | number = 'wx+') {
    const files = quickFiles()
    files.pace.isRemote = isRemote
    const file = path.join(await temporaryFolder(), 'file')
    if (flags === 'r') await writeFile(file, '0123456789')
    return { files, file, handle: await files.open(file, flags) }
  }

  it('is written at positions, whatever the size, and read back', async () => {
    const { handle, file } = await aFile()
    const large = Buffer.alloc(200_000, 'b')
    expect(await handle.write(Buffer.from('xaay'), 1, 2, 0)).toEqual({ bytesWritten: 2 })
    expect(await handle.writev([large.subarray(0, 50_000), large.subarray(50_000)], 2)).toEqual({
      bytesWritten: 200_000,
    })
    expect(await handle.writev([Buffer.from('c'), Buffer.from('d')], 200_002)).toEqual({ bytesWritten: 2 })
    expect((await handle.stat()).size).toBe(200_004)
    const read = Buffer.alloc(10)
    expect(await handle.read(read, 2, 4, 199_999)).toEqual({ bytesRead: 4 })
    expect(read.subarray(2, 6).toString()).toBe('bbbc')
    await handle.datasync()
    await handle.sync()
    await handle.truncate(3)
    await handle.close()
    expect(await readFile(file, 'utf8')).toBe('aab')
  })

  it('says what the system says', async () => {
    const { files, file, handle } = await aFile()
    await expect(files.open(file, 'wx')).rejects.toMatchObject({ code: 'EEXIST' })
    await expect(files.open(`${file}-not`, 'r')).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(files.stat(`${file}-not`)).rejects.toMatchObject({ code: 'ENOENT' })
    expect((await files.stat(file)).size).toBe(0)
    await handle.close()
    const again = await files.open(file, constants.O_RDWR | constants.O_CREAT)
    await again.close()
  })

  it('is no file any more once it was closed: its number may be another one`s', async () => {
    const { handle, file } = await aFile()
    await handle.close()
    await handle.close()
    expect(handle.fd).toBe(-1)
    await expect(handle.write(Buffer.from('a'), 0, 1, 0)).rejects.toMatchObject({ code: 'EBADF' })
    await expect(handle.stat()).rejects.toMatchObject({ code: 'EBADF' })
    expect(() => handle.createReadStream({ start: 0, end: 1, highWaterMark: 1 })).toThrow('EBADF')
    await truncate(file, 0)
  })

  it('is closed when what is under way has returned', async () => {
    const { handle, file } = await aFile()
    const writing = handle.writev([Buffer.alloc(8 * 1024 * 1024, 'w')], 0)
    await handle.close()
    expect((await readFile(file)).length).toBe(8 * 1024 * 1024)
    expect(await writing).toEqual({ bytesWritten: 8 * 1024 * 1024 })
  })

  it('is streamed, and closed by the stream', async () => {
    const { handle } = await aFile('r')
    const stream = handle.createReadStream({ start: 2, end: 5, highWaterMark: 2 })
    expect((await buffer(stream)).toString()).toBe('2345')
    await handle.close()
  })
})
