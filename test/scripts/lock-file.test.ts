import { existsSync } from 'node:fs'
import { readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { withLockFile } from '../../scripts/lock-file.mjs'
import { startChild } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'

const lockFileModule = new URL('../../scripts/lock-file.mjs', import.meta.url).href

async function lockPath(): Promise<string> {
  return join(await temporaryFolder(), 'deep', 'prepare.lock')
}

/** A process that notes that it holds the lock, and later that it lets go. */
function holder(path: string, journal: string, holdMs: number) {
  const program = `
    import { appendFileSync } from 'node:fs'
    import { setTimeout as sleep } from 'node:timers/promises'
    import { withLockFile } from ${JSON.stringify(lockFileModule)}
    await withLockFile(${JSON.stringify(path)}, async () => {
      appendFileSync(${JSON.stringify(journal)}, 'in ')
      await sleep(${holdMs})
      appendFileSync(${JSON.stringify(journal)}, 'out ')
    })`
  return startChild(process.execPath, ['--input-type=module', '--eval', program])
}

it('lets one process in at a time', async () => {
  const path = await lockPath()
  const journal = join(await temporaryFolder(), 'journal')
  const children = Array.from({ length: 4 }, () => holder(path, journal, 20))
  for (const child of children) expect((await child.exited).code, child.output()).toBe(0)
  expect(await readFile(journal, 'utf8')).toBe('in out '.repeat(4))
  expect(existsSync(path)).toBe(false)
})

it('takes over the lock of a process that was killed, once, however many wait for it', async () => {
  const path = await lockPath()
  const folder = await temporaryFolder()
  const victim = holder(path, join(folder, 'victim'), 60_000)
  await expect.poll(() => existsSync(join(folder, 'victim')), { timeout: 10_000 }).toBe(true)
  victim.kill('SIGKILL')
  await victim.exited
  expect(existsSync(path)).toBe(true)

  const children = Array.from({ length: 4 }, () => holder(path, join(folder, 'journal'), 20))
  for (const child of children) expect((await child.exited).code, child.output()).toBe(0)
  expect(await readFile(join(folder, 'journal'), 'utf8')).toBe('in out '.repeat(4))
  expect(existsSync(path)).toBe(false)
})

it('does not take a later process of the same pid for the holder', async () => {
  const path = join(await temporaryFolder(), 'prepare.lock')
  await writeFile(path, JSON.stringify({ pid: process.pid, startedAt: 'long ago' }))
  expect(await withLockFile(path, async () => 'done')).toBe('done')
})

it('takes over a lock that was never filled, when that has lasted', async () => {
  const path = join(await temporaryFolder(), 'prepare.lock')
  await writeFile(path, '')
  await utimes(path, 1, 1)
  expect(await withLockFile(path, async () => 'done')).toBe('done')
})

it('is free again after work that failed', async () => {
  const path = await lockPath()
  const work = () => Promise.reject(new Error('no disk'))
  await expect(withLockFile(path, work)).rejects.toThrow('no disk')
  expect(existsSync(path)).toBe(false)
})
