/**
 * What a request costs, counted and not timed: hops to a thread, commits of the embedded database, writes to the socket,
 * timers, promises, copies. Speed is lost one of them at a time. These are limits: whoever needs more raises one here,
 * and says what it buys; whoever needs less lowers it.
 */
import { createHook } from 'node:async_hooks'
import { once } from 'node:events'
import fs from 'node:fs'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { pino } from 'pino'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { buildApp } from '../../server/app.ts'
import { assemble } from '../../server/assemble.ts'
import { loadConfig } from '../../server/config.ts'
import { Metrics } from '../../server/metrics/metrics.ts'
import { Pace } from '../../stores/file/quick-files.ts'
import { temporaryFolder } from '../support/folder.ts'

const MiB = 1024 * 1024
const common = 'Host: x\r\nTus-Resumable: 1.0.0\r\n'
const bytesType = 'Content-Type: application/offset+octet-stream\r\n'

interface Cost {
  /** Work for libuv's threads: file operations, random bytes. */
  hops: number
  /** Operations on files, but for those of LMDB. */
  files: number
  /** Write batches of LMDB, each of which is a transaction. */
  commits: number
  /** Calls that write to the client's socket. */
  writes: number
  timers: number
  promises: number
}

const kinds: Record<string, keyof Cost> = {
  FSREQPROMISE: 'hops',
  FSREQCALLBACK: 'hops',
  FILEHANDLECLOSEREQ: 'hops',
  RANDOMBYTESREQUEST: 'hops',
  write: 'commits',
  Timeout: 'timers',
  PROMISE: 'promises',
}

/** What this process does, the client's part of it included, which is one promise and no more for each request. */
const cost: Cost = { hops: 0, files: 0, commits: 0, writes: 0, timers: 0, promises: 0 }
const hook = createHook({
  init(_id, type) {
    const kind = kinds[type]
    if (kind !== undefined) cost[kind]++
  },
})

/**
 * A server as it runs with its defaults, less syncing, whose work costs the same number of steps on every disk. Small
 * file operations are done in place, as on a disk that is never slow.
 */
async function start() {
  vi.spyOn(Pace.prototype, 'run').mockImplementation(async (inPlace) => {
    cost.files++
    return inPlace()
  })
  const args = ['--upload-dir', await temporaryFolder(), '--durability', 'none', '--log-level', 'warn']
  const config = loadConfig(args, {})
  const logger = pino({ level: 'warn' })
  const metrics = new Metrics({ version: '1', hasRedis: false })
  const uploads = await assemble(config, logger, { metrics })
  const app = buildApp({ config, logger, uploads, requests: metrics.requests })
  await app.listen({ host: '127.0.0.1', port: 0 })
  app.server.on('connection', countWrites)
  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  onTestFinished(async () => {
    vi.restoreAllMocks()
    hook.disable()
    socket.destroy()
    await app.close()
  })
  await once(socket, 'connect')

  const ask = async (head: string, body: Uint8Array = Buffer.alloc(0)) => {
    const answer = new Promise<Buffer>((resolve) => socket.once('data', resolve))
    socket.cork()
    socket.write(`${head}\r\n`)
    socket.write(body)
    socket.uncork()
    return (await answer).toString('latin1')
  }
  const create = async (length: number) => {
    const answer = await ask(
      `POST /files/ HTTP/1.1\r\n${common}Upload-Length: ${length}\r\nContent-Length: 0\r\n`,
    )
    return answer.match(/\r\nlocation: http:\/\/x(\S+)/i)![1]!
  }
  return { ask, create }
}

/** Under a connection lies its handle, whose methods are one system call each. */
function countWrites(socket: Socket): void {
  const handle = (socket as unknown as { _handle: Record<string, (...args: unknown[]) => unknown> })._handle
  for (const name of ['writev', 'writeBuffer', 'writeUtf8String', 'writeLatin1String', 'writeAsciiString']) {
    const real = handle[name]!.bind(handle)
    handle[name] = (...args) => {
      cost.writes++
      return real(...args)
    }
  }
}

/** The cost of one, as the mean of several: what one of them does after its answer is counted with the next. */
async function costOf(count: number, work: (index: number) => Promise<void>): Promise<Cost> {
  // The first ones do what is done once in the life of a server.
  for (let i = 0; i < 3; i++) await work(i)
  const before = { ...cost }
  hook.enable()
  for (let i = 3; i < count + 3; i++) await work(i)
  hook.disable()
  const entries = Object.entries(before) as [keyof Cost, number][]
  return Object.fromEntries(entries.map(([kind, n]) => [kind, (cost[kind] - n) / count])) as unknown as Cost
}

function expectAtMost(actual: Cost, limits: Cost): void {
  // Now and then one of them does a little more.
  const isAbove = ([kind, limit]: [string, number]) => Math.round(actual[kind as keyof Cost]) > limit
  const above = Object.entries(limits).filter(isAbove)
  expect(above, `it costs ${JSON.stringify(actual)}`).toEqual([])
}

const small = Buffer.alloc(4096, 'x')
const count = 20

describe('a request costs no more than it did:', () => {
  it('a small upload in one request', async () => {
    const { ask } = await start()
    const headers = `${common}${bytesType}Upload-Length: 4096\r\nContent-Length: 4096\r\n`
    const actual = await costOf(count, async () => {
      expect(await ask(`POST /files/ HTTP/1.1\r\n${headers}`, small)).toContain('HTTP/1.1 201')
    })
    expectAtMost(actual, { hops: 0, files: 7, commits: 2, writes: 1, timers: 1, promises: 104 })
  })

  it('a creation', async () => {
    const { create } = await start()
    const actual = await costOf(count, async () => void (await create(4096)))
    expectAtMost(actual, { hops: 0, files: 3, commits: 2, writes: 1, timers: 1, promises: 94 })
  })

  it('a PATCH that finishes', async () => {
    const { ask, create } = await start()
    const paths: string[] = []
    for (let i = 0; i < count + 3; i++) paths.push(await create(4096))
    const headers = `${common}${bytesType}Upload-Offset: 0\r\nContent-Length: 4096\r\n`
    const actual = await costOf(count, async (i) => {
      expect(await ask(`PATCH ${paths[i]} HTTP/1.1\r\n${headers}`, small)).toContain('HTTP/1.1 204')
    })
    expectAtMost(actual, { hops: 0, files: 8, commits: 1, writes: 1, timers: 2, promises: 165 })
  })

  it('a PATCH of an upload that is sent in pieces', async () => {
    const { ask, create } = await start()
    const path = await create(4096 * (count + 4))
    const actual = await costOf(count, async (i) => {
      const headers = `${common}${bytesType}Upload-Offset: ${i * 4096}\r\nContent-Length: 4096\r\n`
      expect(await ask(`PATCH ${path} HTTP/1.1\r\n${headers}`, small)).toContain('HTTP/1.1 204')
    })
    expectAtMost(actual, { hops: 0, files: 5, commits: 1, writes: 1, timers: 2, promises: 130 })
  })

  it('a HEAD on an open upload, and on a finished one', async () => {
    const { ask, create } = await start()
    const [open, finished] = [await create(4096), await create(0)]
    const head = (path: string) =>
      costOf(count, async () => {
        expect(await ask(`HEAD ${path} HTTP/1.1\r\n${common}`)).toContain('HTTP/1.1 200')
      })
    expectAtMost(await head(open), { hops: 0, files: 4, commits: 0, writes: 1, timers: 1, promises: 70 })
    expectAtMost(await head(finished), { hops: 0, files: 4, commits: 0, writes: 1, timers: 1, promises: 70 })
  })

  it('a MiB of a large PATCH, which is copied nowhere, and whose memory is given back', async () => {
    const { ask, create } = await start()
    const size = 32
    const body = Buffer.alloc(size * MiB, 'y')
    const headers = `${common}${bytesType}Upload-Offset: 0\r\nContent-Length: ${size * MiB}\r\n`
    const paths = [await create(size * MiB), await create(size * MiB)]
    const patch = async (path: string) => {
      expect(await ask(`PATCH ${path} HTTP/1.1\r\n${headers}`, body)).toContain('HTTP/1.1 204')
    }
    await patch(paths[0]!)
    const copies = countCopies()
    const writes = vi.spyOn(fs, 'writev')
    hook.enable()
    const before = { ...cost }
    await patch(paths[1]!)
    hook.disable()
    const each = (kind: keyof Cost) => (cost[kind] - before[kind]) / size
    // A write for each MiB, and what a small PATCH needs too; a mark every 8 MiB.
    expect(each('hops')).toBeLessThan(2)
    expect(each('promises')).toBeLessThan(30)
    expect(each('timers')).toBeLessThan(0.2)
    // Headers and marks are small, and so is their number.
    expect(copies.bytes()).toBeLessThan(64 * 1024)
    expect(copies.count()).toBeLessThan(30)
    // The last batch is freed when its PATCH is being answered; the first piece of all came with the headers, and is small.
    const pieces = writes.mock.calls.slice(0, -2).flatMap(([, buffers]) => buffers)
    expect(pieces.length).toBeGreaterThan((size * MiB) / (65 * 1024) / 2)
    const heldBytes = pieces.reduce((bytes, { byteLength }) => bytes + byteLength, 0)
    expect(heldBytes).toBeLessThan(MiB)
  })
})

/** Every buffer that is made, and every copy into one, until the test ends. */
function countCopies() {
  let count = 0
  let bytes = 0
  const note = (n: number) => {
    count++
    bytes += n
  }
  const watch = (name: 'alloc' | 'allocUnsafe' | 'allocUnsafeSlow') => {
    const real = Buffer[name].bind(Buffer) as (size: number, ...rest: never[]) => Buffer<ArrayBuffer>
    vi.spyOn(Buffer, name).mockImplementation((size: number, ...rest: never[]) => {
      note(size)
      return real(size, ...rest)
    })
  }
  for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow'] as const) watch(name)
  const concat = Buffer.concat.bind(Buffer)
  vi.spyOn(Buffer, 'concat').mockImplementation((list, length) => {
    const made = concat(list, length)
    note(made.length)
    return made
  })
  const copy = Buffer.prototype.copy
  vi.spyOn(Buffer.prototype, 'copy').mockImplementation(function (this: Buffer, ...args) {
    const copied = copy.apply(this, args)
    note(copied)
    return copied
  })
  const set = Uint8Array.prototype.set
  vi.spyOn(Uint8Array.prototype, 'set').mockImplementation(function (this: Uint8Array, ...args) {
    note(args[0].length)
    return set.apply(this, args)
  })
  onTestFinished(() => void vi.restoreAllMocks())
  return { count: () => count, bytes: () => bytes }
}
