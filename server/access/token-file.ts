/**
 * The file of tokens on disk. It is replaced as a whole, by a rename, so a server that reads it meanwhile sees the old
 * tokens or the new ones; and by one command at a time, so no revocation is lost to another command's addition.
 */
import { randomUUID } from 'node:crypto'
import { chown, mkdir, open, readFile, realpath, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { formatTokens, parseTokens, type TokenLine } from './tokens.ts'

/** A command that was killed leaves its lock; changes take milliseconds. */
const staleLockMs = 10_000

export async function readTokens(path: string): Promise<TokenLine[]> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw error
  })
  return [...parseTokens(text).values()].map(({ line }) => line)
}

/** Reads, changes and replaces the file. It is made when it is not there. */
export async function changeTokens(path: string, change: (lines: TokenLine[]) => TokenLine[]): Promise<void> {
  await mkdir(dirname(resolve(path)), { recursive: true })
  // A link stays one: what it leads to is replaced.
  const target = await realpath(path).catch(() => resolve(path))
  const unlock = await lock(`${target}.lock`)
  try {
    await replace(target, formatTokens(change(await readTokens(target))))
  } finally {
    await unlock()
  }
}

async function replace(path: string, text: string): Promise<void> {
  // The server may run as another user than whoever runs the command: the file stays that user's.
  const like = await stat(path).catch(() => undefined)
  const owner = like ?? (await stat(dirname(path)))
  const temporary = join(dirname(path), `.tokens-${randomUUID()}`)
  try {
    const file = await open(temporary, 'wx', (like?.mode ?? 0o600) & 0o777)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await chown(temporary, owner.uid, owner.gid).catch(() => undefined)
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

async function lock(path: string): Promise<() => Promise<void>> {
  for (;;) {
    try {
      await (await open(path, 'wx', 0o600)).close()
      return () => rm(path, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }))
      if (Date.now() - mtimeMs > staleLockMs) await rm(path, { force: true })
      else await sleep(20)
    }
  }
}
