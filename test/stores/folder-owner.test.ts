import { execFileSync } from 'node:child_process'
import { mkdir, readdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FolderGuest, FolderOwner } from '../../stores/local/folder-owner.ts'
import { encodeIdentity, ownIdentity } from '../../stores/process-identity.ts'
import { type Child, startChild, stopChild } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'

const me = { describe: 'http://127.0.0.1:1080' }
const program = new URL('own-folder.ts', import.meta.url).pathname

describe('the owner of a folder', () => {
  it('is one process at a time, and the next one is told who it is', async () => {
    const folder = await temporaryFolder()
    const owner = await FolderOwner.take(folder, me)
    const said = await FolderOwner.take(folder, { describe: 'another' }).catch((error) => error)
    expect(said).toMatchObject({ code: 'unavailable' })
    expect(said.message).toContain(`process ${process.pid} (http://127.0.0.1:1080) since 20`)

    const other = await start(folder)
    expect(other.stdout()).toContain(`refused: The folder ${folder} is in use by process ${process.pid}`)
    await owner.release()
    expect((await start(folder)).stdout()).toBe('took it\n')
  })

  it('leaves one small entry behind when it gives the folder up, however often', async () => {
    const folder = await temporaryFolder()
    for (let round = 0; round < 5; round++) {
      const owner = await FolderOwner.take(folder, me)
      await Promise.all([owner.release(), owner.release()])
    }
    expect(await readdir(join(folder, '.owner'))).toEqual(['10'])
  })

  it('is the successor at once when the owner was killed', async () => {
    const folder = await temporaryFolder()
    for (let round = 0; round < 3; round++) {
      const owner = await start(folder)
      expect(owner.stdout()).toBe('took it\n')
      owner.kill('SIGKILL')
      await owner.exited
    }
    const owner = await FolderOwner.take(folder, me)
    // The entry and the socket of the owner, and nothing of the dead.
    expect(await readdir(join(folder, '.owner'))).toHaveLength(2)
    await owner.release()
  })

  it('stays the owner while it is stopped', async () => {
    const folder = await temporaryFolder()
    const owner = await start(folder)
    owner.kill('SIGSTOP')
    await expect(FolderOwner.take(folder, me)).rejects.toMatchObject({ code: 'unavailable' })
    owner.kill('SIGCONT')
  })

  it('is exactly one of many who start at once, also after a kill', async () => {
    const folder = await temporaryFolder()
    for (let round = 0; round < 2; round++) {
      const starters = await Promise.all([1, 2, 3, 4].map(() => start(folder)))
      const owners = starters.filter((child) => child.stdout() === 'took it\n')
      expect(owners).toHaveLength(1)
      owners[0]!.kill('SIGKILL')
      await owners[0]!.exited
    }
    const inProcess = await Promise.allSettled(Array.from({ length: 20 }, () => FolderOwner.take(folder, me)))
    const took = inProcess.filter((result) => result.status === 'fulfilled')
    expect(took).toHaveLength(1)
    await took[0]!.value.release()
  })

  it('can be had in a folder whose path is longer than a socket path may be', async () => {
    const folder = join(await temporaryFolder(), 'x'.repeat(150))
    const owner = await FolderOwner.take(folder, me)
    expect((await readdir(join(folder, '.owner'))).some((name) => name.endsWith('.sock'))).toBe(true)
    await expect(FolderOwner.take(folder, me)).rejects.toMatchObject({ code: 'unavailable' })
    await owner.release()
    expect(await readdir(join(folder, '.owner'))).toEqual(['2'])
  })

  it('is nobody whom one cannot know when the entry makes no sense', async () => {
    const folder = await temporaryFolder()
    await mkdir(join(folder, '.owner'))
    for (const [n, text] of ['{"process"', '{}', 'null'].entries()) {
      await symlink(text, join(folder, '.owner', String(n + 7)))
      await expect(FolderOwner.take(folder, me)).rejects.toThrow(/nobody knows by whom.*remove .*\.owner/)
    }
  })

  it('is judged dead after another boot, when nobody listens any more', async () => {
    const folder = await temporaryFolder()
    await mkdir(join(folder, '.owner'))
    const earlier = encodeIdentity({ ...ownIdentity(), bootId: '00000000-0000-0000-0000-000000000000' })
    const entry = { process: earlier, since: 0, describe: 'before', socket: 'gone.sock' }
    await symlink(JSON.stringify(entry), join(folder, '.owner', '7'))
    await (await FolderOwner.take(folder, me)).release()
    await symlink(JSON.stringify({ ...entry, socket: undefined }), join(folder, '.owner', '10'))
    await (await FolderOwner.take(folder, me)).release()
  })
})

describe('a guest of the owner of a folder', () => {
  it('keeps the folder from others after the owner was killed, until it leaves', async () => {
    const folder = await temporaryFolder()
    const owner = await start(folder)
    const guest = await FolderGuest.enter(folder, { describe: 'a worker' })
    owner.kill('SIGKILL')
    await owner.exited

    const said = await FolderOwner.take(folder, me).catch((error) => error)
    expect(said).toMatchObject({ code: 'unavailable' })
    expect(said.message).toContain(`in use by process ${process.pid} (a worker) since 20`)

    let hasLeft = false
    const taking = FolderOwner.take(folder, me).then(async (successor) => {
      expect(hasLeft).toBe(true)
      await successor.release()
    })
    await new Promise((resolve) => setTimeout(resolve, 100))
    hasLeft = true
    await guest.leave()
    await taking
    expect((await readdir(join(folder, '.owner'))).filter((name) => !/^\d+$/.test(name))).toEqual([])
  }, 20_000)

  it('that was killed keeps nobody waiting, and leaves nothing behind', async () => {
    const folder = await temporaryFolder()
    const owner = await FolderOwner.take(folder, me)
    const guest = await start(folder, ['guest'])
    expect(guest.stdout()).toBe('took it\n')
    guest.kill('SIGKILL')
    await guest.exited
    const before = await readdir(join(folder, '.owner'))
    await owner.forgetDeadGuests()
    // The entry, and its socket.
    expect(await readdir(join(folder, '.owner'))).toHaveLength(before.length - 2)
    await owner.release()
  })
})

describe.runIf(canUnshare())('the owner of a folder, in containers', () => {
  it('is seen to live, and to be dead, from another pid namespace that has the same pids', async () => {
    const folder = await temporaryFolder()
    const owner = await startContained(folder)
    expect(owner.stdout()).toBe('took it\n')
    const second = await startContained(folder)
    expect(second.stdout()).toContain('refused: ')
    await expect(FolderOwner.take(folder, me)).rejects.toMatchObject({ code: 'unavailable' })

    owner.kill('SIGKILL')
    await owner.exited
    const restarted = await startContained(folder)
    expect(restarted.stdout()).toBe('took it\n')
  })
})

function start(folder: string, more: string[] = []): Promise<Child> {
  return untilSaid(startChild(process.execPath, ['--import', 'tsx', program, folder, ...more]))
}

/** The process is pid 1 of its own namespace, as in a container. */
function startContained(folder: string): Promise<Child> {
  const unshare = ['--pid', '--fork', '--mount-proc', '--kill-child']
  return untilSaid(startChild('unshare', [...unshare, process.execPath, '--import', 'tsx', program, folder]))
}

async function untilSaid(child: Child): Promise<Child> {
  onTestFinished(async () => {
    await stopChild(child, 0)
  })
  await expect.poll(() => child.stdout() !== '' || child.hasExited(), { timeout: 20_000 }).toBe(true)
  return child
}

function canUnshare(): boolean {
  try {
    execFileSync('unshare', ['--pid', '--fork', '--mount-proc', 'true'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
