/**
 * A disk that is full, seen by clients: a real server on a small file system of its own, or under a limit on the size
 * of files. What fits is kept and told, marks can always be written, and all goes on when there is room.
 */
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readdirSync, statfsSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { mayMount, mounted } from '../support/small-disk.ts'
import { startUpload } from '../support/tus-client.ts'

const MiB = 1024 * 1024
const version = { 'Tus-Resumable': '1.0.0' }
const asBytes = { ...version, 'Content-Type': 'application/offset+octet-stream' }

/** A place with little room, and how it gets more. */
interface Place {
  readonly server: ServerProcess
  readonly directory: string
  /** Leaves no room at all for anything new. */
  fill(): Promise<void>
  makeRoom(): Promise<void>
}

type Start = (args: string[]) => Promise<Place>

/** 8 MiB, as a file system of its own. */
async function onSmallDisk(args: string[]): Promise<Place> {
  const disk = await mounted('size=8m')
  const directory = join(disk, 'uploads')
  const server = await startServer({ dir: directory, args })
  onTestFinished(async () => void (await server.stop()))
  const ballast = join(disk, 'ballast')
  return {
    server,
    directory,
    async fill() {
      const { bavail, bsize } = statfsSync(disk)
      await writeFile(ballast, Buffer.alloc(bavail * bsize))
    },
    async makeRoom() {
      await rm(ballast, { force: true })
      execFileSync('mount', ['-o', 'remount,size=64m', disk])
    },
  }
}

/** No file may be longer than 8 MiB, as by `ulimit -f`. */
async function underLimit(args: string[]): Promise<Place> {
  const directory = join(await temporaryFolder(), 'uploads')
  const server = await startServer({ dir: directory, args })
  onTestFinished(async () => void (await server.stop()))
  const limit = (bytes: number | 'unlimited') =>
    void execFileSync('prlimit', ['--pid', String(server.pid), `--fsize=${bytes}:unlimited`])
  limit(8 * MiB)
  return {
    server,
    directory,
    // Not even a mark: a file of no bytes at all can be made under every limit.
    fill: async () => limit(0),
    makeRoom: async () => limit('unlimited'),
  }
}

const places: [string, Start][] = [['a limit on the size of files', underLimit]]
if (mayMount()) places.unshift(['a small disk', onSmallDisk])
const coordinators: [string, () => string[]][] = [
  ['embedded', () => []],
  ['with Redis', () => ['--redis-url', inject('redisUrl'), '--redis-key-prefix', `${randomUUID()}:`]],
]
const cases = places.flatMap(([place, start]) =>
  coordinators.map(([coordinator, args]) => ({
    name: `${place}, ${coordinator}`,
    start: () => start(args()),
  })),
)

describe.each(cases)('$name', ({ start }) => {
  it('an append that does not fit is refused with 507; what fits is kept and told, and goes on when there is room', async () => {
    const { server, makeRoom } = await start()
    const content = randomBytes('append', 12 * MiB)
    const url = await create(server, { 'Upload-Length': String(content.length) })
    const refused = await append(url, 0, content)
    expect([refused.status, refused.text]).toEqual([507, expect.stringMatching(/no room/)])
    const kept = await offsetOf(url)
    expect(kept).toBeGreaterThanOrEqual(4 * MiB)
    expect(kept).toBeLessThanOrEqual(8 * MiB)
    // Still full: the same again, and nothing is lost by asking.
    expect((await append(url, kept, content.subarray(kept))).status).toBe(507)
    const now = await offsetOf(url)
    expect(now).toBeGreaterThanOrEqual(kept)

    await makeRoom()
    expect((await append(url, now, content.subarray(now))).status).toBe(204)
    expect(await sha256(await download(url))).toBe(await sha256(content))
    expectUnharmed(server)
  })

  it('a creation that finds no room leaves nothing, and what was there goes on', async () => {
    const { server, directory, fill, makeRoom } = await start()
    const content = randomBytes('there before', 1000)
    const url = await create(server, { 'Upload-Length': '1000' })
    expect((await append(url, 0, content.subarray(0, 400))).status).toBe(204)
    await fill()
    const before = filesIn(directory)
    const refusals = await Promise.all(
      [
        post(server, { 'Upload-Length': '10' }),
        post(server, { 'Upload-Defer-Length': '1' }),
        post(server, { ...asBytes, 'Upload-Length': '100000' }, Buffer.alloc(100_000)),
        post(server, { ...asBytes, 'Upload-Defer-Length': '1' }, Buffer.alloc(100_000)),
      ].map(async (answer) => [(await answer).status, (await answer).headers.get('location')]),
    )
    expect(refusals).toEqual(Array(4).fill([507, null]))
    expect(filesIn(directory)).toEqual(before)
    expect(await offsetOf(url)).toBe(400)

    await makeRoom()
    expect((await append(url, 400, content.subarray(400))).status).toBe(204)
    expect(await sha256(await download(url))).toBe(await sha256(content))
    await create(server, { 'Upload-Length': '10' })
    expectUnharmed(server)
  })

  it('a final that does not fit leaves its parts whole, and is made when there is room', async () => {
    const { server, makeRoom } = await start()
    const [one, two] = ['one', 'two'].map((seed) => randomBytes(seed, 2 * MiB))
    const urls = await Promise.all(
      [one!, two!].map(async (content) => {
        const url = await create(server, {
          'Upload-Length': String(content.length),
          'Upload-Concat': 'partial',
        })
        expect((await append(url, 0, content)).status).toBe(204)
        return url
      }),
    )
    // Five times two parts: more than the disk has, and more than a file may be long.
    const paths = Array.from({ length: 5 }, () => urls.map((url) => new URL(url).pathname)).flat()
    const ask = () => post(server, { 'Upload-Concat': `final;${paths.join(' ')}` })
    const refused = await ask()
    expect(refused.status).toBe(507)
    for (const url of urls) expect(await offsetOf(url)).toBe(2 * MiB)

    await makeRoom()
    const made = await ask()
    expect(made.status).toBe(201)
    const expected = Buffer.concat(Array.from({ length: 5 }, () => [one!, two!]).flat())
    const final = new URL(made.headers.get('location')!, server.url).href
    expect(await sha256(await download(final))).toBe(await sha256(expected))
    expectUnharmed(server)
  })

  it('tus-js-client goes on by itself when there is room', async () => {
    const { server, makeRoom } = await start()
    const content = randomBytes('client', 12 * MiB)
    let isRoom: Promise<void> | undefined
    const { done, exchanges } = startUpload(content, {
      endpoint: `${server.url}/files/`,
      onAfterResponse: async (_, response) => {
        if (response.getStatus() !== 507) return
        isRoom ??= makeRoom()
        await isRoom
      },
    })
    const url = await done
    expect(exchanges.filter(({ status }) => status === 507).length).toBeGreaterThan(0)
    expect(exchanges.filter(({ method }) => method === 'POST')).toHaveLength(1)
    expect(exchanges.filter(({ method, status }) => method === 'HEAD' && status! >= 500)).toEqual([])
    // What fitted was not sent again.
    expect(exchanges.findLast(({ method }) => method === 'PATCH')!.offset).toBeGreaterThanOrEqual(4 * MiB)
    expect(await sha256(await download(url))).toBe(await sha256(content))
    expectUnharmed(server)
  })
})

function post(server: ServerProcess, headers: Record<string, string>, body?: Buffer): Promise<Response> {
  return fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: { ...version, ...headers },
    body: body ?? null,
  })
}

async function create(server: ServerProcess, headers: Record<string, string>): Promise<string> {
  const response = await post(server, headers)
  expect(response.status).toBe(201)
  return new URL(response.headers.get('location')!, server.url).href
}

async function append(url: string, offset: number, body: Buffer) {
  const headers = { ...asBytes, 'Upload-Offset': String(offset) }
  const response = await fetch(url, { method: 'PATCH', headers, body })

  return { status: response.status, text: await response.text() }
}

async function offsetOf(url: string): Promise<number> {
  const response = await fetch(url, { method: 'HEAD', headers: version })
  expect(response.status).toBe(200)
  return Number(response.headers.get('upload-offset'))
}

async function download(url: string): Promise<Uint8Array> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  return new Uint8Array(await response.arrayBuffer())
}

/** All that belongs to uploads; what is Tidemark's own may change whenever it likes. */
function filesIn(directory: string): string[] {
  return (readdirSync(directory, { recursive: true }) as string[])
    .filter((file) => !file.startsWith('.tidemark'))
    .sort()
}

function expectUnharmed(server: ServerProcess): void {
  const crashed = server.logs().filter(({ level }) => level === 'fatal' || level === 60)
  expect(crashed).toEqual([])
}
