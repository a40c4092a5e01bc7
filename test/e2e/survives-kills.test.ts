import { randomUUID } from 'node:crypto'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { type Exchange, startUpload } from '../support/tus-client.ts'

const MiB = 1024 * 1024
const size = 64 * MiB

describe.each([
  ['embedded', () => []],
  ['with Redis', () => ['--redis-url', inject('redisUrl'), '--redis-key-prefix', `${randomUUID()}:`]],
])('tus-js-client, %s', (name, args) => {
  it('finishes 64 MiB though the server is killed at three moments', async () => {
    const content = randomBytes(`kills ${name}`, size)
    const server = await startServer({ dir: await temporaryFolder(), args: args() })
    onTestFinished(async () => void (await server.stop()))
    const wire = await startWire(server.port)
    const kills = killMoments(`kills ${name}`)
    let restarted: Promise<void> = Promise.resolve()

    const { done, exchanges } = startUpload(content, {
      endpoint: `${wire.url}/files/`,
      onProgress: (sent) => {
        if (sent < (kills[0] ?? Number.POSITIVE_INFINITY)) return
        kills.shift()
        restarted = server.kill('SIGKILL').then(() => server.restart())
      },
    })
    const url = await done
    await restarted

    expect(kills).toEqual([])
    expect(offsetsThatWentBack(exchanges)).toEqual([])
    expect(resumes(exchanges).length).toBeGreaterThanOrEqual(3)
    expect(await sha256(await download(url))).toBe(await sha256(content))
    // Each kill may cost what was under way since the last checkpoint, never the upload.
    expect(wire.sentBytes).toBeLessThan(2 * size)
  })
})

it('finishes on another server what was begun on one that was killed', async () => {
  const content = randomBytes('two servers', size)
  const dir = await temporaryFolder()
  const args = ['--redis-url', inject('redisUrl'), '--redis-key-prefix', `${randomUUID()}:`]
  const [a, b] = await Promise.all([startServer({ dir, args }), startServer({ dir, args })])
  onTestFinished(async () => void (await Promise.all([a.stop(), b.stop()])))
  const wire = await startWire(a.port)
  let killed: Promise<unknown> | undefined

  const { done, exchanges } = startUpload(content, {
    endpoint: `${wire.url}/files/`,
    onProgress: (sent) => {
      if (killed !== undefined || sent < size / 2) return
      wire.target = b.port
      killed = a.kill('SIGKILL')
    },
  })
  const url = await done

  await killed
  expect(offsetsThatWentBack(exchanges)).toEqual([])
  expect(resumes(exchanges).length).toBeGreaterThanOrEqual(1)
  // A line is written when its response is closed, a moment after the client has it.
  await vi.waitFor(() => expect(requestsTo(b)).toContain('PATCH'))
  expect(await sha256(await download(url))).toBe(await sha256(content))
})

it('goes on from the last kept byte after a cut connection, without sending it again', async () => {
  const content = randomBytes('cut', size)
  const server = await startServer({ dir: await temporaryFolder() })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startWire(server.port)
  let isCut = false

  const { done, exchanges } = startUpload(content, {
    endpoint: `${wire.url}/files/`,
    onProgress: (sent) => {
      if (isCut || sent < size / 2) return
      isCut = true
      wire.cut()
    },
  })
  const url = await done

  // What had reached the server counts: only what was on the wire at the moment of the cut is sent twice.
  expect(resumes(exchanges)[0]).toBeGreaterThan(16 * MiB)
  expect(wire.sentBytes).toBeLessThan(size + 32 * MiB)
  expect(await sha256(await download(url))).toBe(await sha256(content))
})

/** A wire of 60 MiB/s, so that there is a middle of the upload to be killed in. */
async function startWire(port: number): Promise<TcpProxy> {
  const wire = await startTcpProxy(port)
  wire.bytesPerSecond = 60 * MiB
  onTestFinished(() => wire.close())
  return wire
}

/** Three moments, in bytes sent, that differ from test to test and are the same in every run. */
function killMoments(seed: string): number[] {
  const random = randomBytes(seed, 3)
  return [12, 28, 46].map((begin, index) => (begin + (random[index]! / 255) * 12) * MiB)
}

/** Offsets that the server answered after it had answered a higher one. */
function offsetsThatWentBack(exchanges: readonly Exchange[]): number[] {
  let highest = 0
  return exchanges.flatMap(({ answeredOffset }) => {
    if (answeredOffset === undefined) return []
    if (answeredOffset < highest) return [answeredOffset]
    highest = answeredOffset
    return []
  })
}

/** Where the client went on, each time it had asked. */
function resumes(exchanges: readonly Exchange[]): number[] {
  return exchanges.flatMap(({ method, status, answeredOffset }) =>
    method === 'HEAD' && status === 200 && answeredOffset !== undefined ? [answeredOffset] : [],
  )
}

function requestsTo(server: ServerProcess): unknown[] {
  return server.logs().map((line) => line.method)
}

async function download(url: string): Promise<Buffer> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  return Buffer.from(await response.arrayBuffer())
}
