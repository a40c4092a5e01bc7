/**
 * One process at a time on a folder, because the embedded locker and records know of no other process.
 *
 * The one idea: `.owner/` holds numbered entries, each made exclusively and in one step, and the highest one counts.
 * Whoever finds it given up, or its process dead, may make the next number; of two who try, one succeeds. Nothing has
 * to be cleaned up after a kill. An entry is a symbolic link to nothing, whose target says who it is: making one is
 * atomic together with its text.
 *
 * Whether the owner lives is seen by its pid and start time from inside its own pid namespace, and otherwise
 * (another container, another boot) by the socket it listens on: a kernel that refuses the connection knows that
 * nobody listens. In doubt it lives.
 *
 * An owner may have **guests**: further processes that it lets use the folder. They have entries of their own, and the
 * folder is nobody else's before all of them are gone too.
 */
import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, readlink, symlink, unlink } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { StoreError } from '../contracts.ts'
import { canSee, decodeIdentity, encodeIdentity, isProvablyDead, ownIdentity } from '../process-identity.ts'

interface Owner {
  /** As `encodeIdentity` writes it. */
  readonly process: string
  /** Milliseconds since the epoch. */
  readonly since: number
  readonly describe: string
  /** Name of its socket beside the entry; undefined when the file system has none. */
  readonly socket?: string
}
/** The highest entry: `unreadable` counts as held, by nobody knows whom. */
type Entry =
  | { readonly number: number; readonly is: 'free' }
  | { readonly number: number; readonly is: 'owned'; readonly owner: Owner }
  | { readonly number: number; readonly is: 'unreadable' }

const FREE = 'free'

/** Guests of a dead owner end by themselves, and are waited for. */
const guestsMayTakeMs = 5_000

export class FolderOwner {
  readonly #directory: string
  readonly #number: number
  readonly #doorbell: Doorbell | undefined
  #released: Promise<void> | undefined

  private constructor(directory: string, number: number, doorbell: Doorbell | undefined) {
    this.#directory = directory
    this.#number = number
    this.#doorbell = doorbell
  }

  /**
   * Takes the folder, or fails with `unavailable` and says who has it.
   * `describe` is what others are told about this process, for example its address.
   */
  static async take(folder: string, options: { readonly describe: string }): Promise<FolderOwner> {
    const directory = join(folder, '.owner')
    await mkdir(directory, { recursive: true })
    // Listening comes first: an entry whose socket refuses is dead.
    const doorbell = await Doorbell.hang(directory)
    let owner: FolderOwner
    try {
      const number = await takeNext(folder, directory, describeOwn(options.describe, doorbell))
      owner = new FolderOwner(directory, number, doorbell)
    } catch (error) {
      await doorbell?.remove()
      throw error
    }
    try {
      await untilNoGuests(folder, directory)
      return owner
    } catch (error) {
      await owner.release()
      throw error
    }
  }

  /** Takes the entries of guests away that were killed. */
  async forgetDeadGuests(): Promise<void> {
    await livingGuest(this.#directory)
  }

  /** Gives the folder up; safe to call twice. */
  release(): Promise<void> {
    this.#released ??= this.#release()
    return this.#released
  }

  async #release(): Promise<void> {
    // The number goes on: whoever was about to replace an older entry must find this one's successor.
    await symlink(FREE, join(this.#directory, String(this.#number + 1)))
    await removeEntry(this.#directory, String(this.#number))
    await this.#doorbell?.remove()
  }
}

/** One more process on a folder that its owner shares with it. */
export class FolderGuest {
  readonly #path: string
  readonly #doorbell: Doorbell | undefined

  private constructor(path: string, doorbell: Doorbell | undefined) {
    this.#path = path
    this.#doorbell = doorbell
  }

  /**
   * Says that this process uses the folder. Whoever enters then asks the owner whether it is alive, and touches nothing
   * before it has said so: whoever succeeds a dead owner looks for guests after its death.
   */
  static async enter(folder: string, options: { readonly describe: string }): Promise<FolderGuest> {
    const directory = join(folder, '.owner')
    const doorbell = await Doorbell.hang(directory)
    const path = join(directory, `guest-${randomBytes(9).toString('base64url')}`)
    await symlink(describeOwn(options.describe, doorbell), path)
    return new FolderGuest(path, doorbell)
  }

  async leave(): Promise<void> {
    await unlink(this.#path).catch(() => {})
    await this.#doorbell?.remove()
  }
}

function describeOwn(describe: string, doorbell: Doorbell | undefined): string {
  const me: Owner = {
    process: encodeIdentity(ownIdentity()),
    since: Date.now(),
    describe: describe.slice(0, 500),
    ...(doorbell && { socket: doorbell.name }),
  }
  return JSON.stringify(me)
}

async function untilNoGuests(folder: string, directory: string): Promise<void> {
  const deadline = performance.now() + guestsMayTakeMs
  for (;;) {
    const guest = await livingGuest(directory)
    if (guest === undefined) return
    if (performance.now() > deadline) throw taken(folder, guest)
    await sleep(20)
  }
}

/** Any guest that may be alive; the entries of those that are dead are taken away. */
async function livingGuest(directory: string): Promise<Entry | undefined> {
  let alive: Entry | undefined
  for (const name of await readdir(directory)) {
    if (!name.startsWith('guest-')) continue
    const text = await readlink(join(directory, name)).catch(() => undefined)
    if (text === undefined) continue
    const entry = parseEntry(0, text)
    if (await isDead(directory, entry)) await removeEntry(directory, name)
    else alive = entry
  }
  return alive
}

async function takeNext(folder: string, directory: string, text: string): Promise<number> {
  for (;;) {
    const highest = await readHighest(directory)
    if (highest === undefined) continue
    if (highest.is !== 'free' && !(await isDead(directory, highest))) throw taken(folder, highest)
    const number = highest.number + 1
    try {
      await symlink(text, join(directory, String(number)))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue
      throw new StoreError('io', `The folder ${folder} cannot be taken.`, { cause: error })
    }
    // Entries are only removed by the maker of a higher one. When this number had been used and removed before, a
    // higher one is there, and counts.
    const numbers = await listNumbers(directory)
    if (Math.max(...numbers) > number) {
      await unlink(join(directory, String(number))).catch(() => {})
      continue
    }
    for (const old of numbers) if (old < number) await removeEntry(directory, String(old))
    return number
  }
}

/** Undefined when it was replaced while it was read. */
async function readHighest(directory: string): Promise<Entry | undefined> {
  const number = Math.max(0, ...(await listNumbers(directory)))
  if (number === 0) return { number, is: 'free' }
  let text: string
  try {
    text = await readlink(join(directory, String(number)))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    return { number, is: 'unreadable' }
  }
  return parseEntry(number, text)
}

function parseEntry(number: number, text: string): Entry {
  if (text === FREE) return { number, is: 'free' }
  try {
    const owner = JSON.parse(text) as Owner
    const isOwner = typeof owner.process === 'string' && Number.isSafeInteger(owner.since)
    return isOwner ? { number, is: 'owned', owner } : { number, is: 'unreadable' }
  } catch {
    return { number, is: 'unreadable' }
  }
}

async function listNumbers(directory: string): Promise<number[]> {
  return (await readdir(directory)).filter((name) => /^[1-9]\d*$/.test(name)).map(Number)
}

async function removeEntry(directory: string, name: string): Promise<void> {
  const path = join(directory, name)
  // Somebody else may tidy up at the same time.
  const text = await readlink(path).catch(() => '')
  const socket = /"socket":"([\w-]+\.sock)"/.exec(text)?.[1]
  await unlink(path).catch(() => {})
  if (socket !== undefined) await unlink(join(directory, socket)).catch(() => {})
}

async function isDead(directory: string, entry: Entry): Promise<boolean> {
  if (entry.is !== 'owned') return false
  const identity = decodeIdentity(entry.owner.process)
  if (identity === undefined) return false
  if (isProvablyDead(identity)) return true
  if (canSee(identity) && identity.startTime !== '0') return false
  if (entry.owner.socket !== undefined) return !(await mayListen(directory, entry.owner.socket))
  // Without a socket another boot is all there is to go by.
  return identity.bootId !== ownIdentity().bootId && !identity.bootId.startsWith('@')
}

function taken(folder: string, entry: Entry): StoreError {
  const advice = `If that process is gone for certain, remove ${join(folder, '.owner')}.`
  if (entry.is !== 'owned') {
    return new StoreError('unavailable', `The folder ${folder} is in use; nobody knows by whom. ${advice}`)
  }
  const { describe, since } = entry.owner
  const pid = decodeIdentity(entry.owner.process)?.pid
  const who = `process ${pid} (${describe}) since ${new Date(since).toISOString()}`
  return new StoreError('unavailable', `The folder ${folder} is in use by ${who}. ${advice}`)
}

// ---------------------------------------------------------------------------------------------------------- sockets

/** A socket beside the entry, on which nothing is said: that it listens is the message. */
class Doorbell {
  readonly name: string
  readonly #directory: string
  readonly #server: Server
  readonly #handle: FileHandle

  private constructor(directory: string, name: string, server: Server, handle: FileHandle) {
    this.#directory = directory
    this.name = name
    this.#server = server
    this.#handle = handle
  }

  /** Undefined where the file system knows no sockets. */
  static async hang(directory: string): Promise<Doorbell | undefined> {
    const name = `${randomBytes(9).toString('base64url')}.sock`
    const handle = await open(directory, 'r')
    const server = createServer((socket) => socket.destroy())
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        // Exclusive, or a worker of node:cluster would leave the listening to its parent.
        server.listen({ path: shortPath(directory, handle, name), exclusive: true }, resolve)
      })
    } catch {
      await handle.close()
      return undefined
    }
    server.on('error', () => {})
    server.unref()
    return new Doorbell(directory, name, server, handle)
  }

  async remove(): Promise<void> {
    // The server unlinks its path when it closes, and the path leads through the handle.
    await new Promise((resolve) => this.#server.close(resolve))
    await unlink(join(this.#directory, this.name)).catch(() => {})
    await this.#handle.close()
  }
}

/** False only when the kernel says that nobody listens there. */
async function mayListen(directory: string, name: string): Promise<boolean> {
  let handle: FileHandle
  try {
    handle = await open(directory, 'r')
  } catch {
    return true
  }
  try {
    return await new Promise<boolean>((resolve) => {
      const socket = connect(shortPath(directory, handle, name))
      socket.once('connect', () => {
        socket.destroy()
        resolve(true)
      })
      socket.once('error', (error: NodeJS.ErrnoException) => {
        resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT')
      })
    })
  } finally {
    await handle.close()
  }
}

/** The path of a socket may have 108 bytes at most; on Linux an open folder is a short name for any folder. */
function shortPath(directory: string, handle: FileHandle, name: string): string {
  return process.platform === 'linux' ? `/proc/self/fd/${handle.fd}/${name}` : join(directory, name)
}
