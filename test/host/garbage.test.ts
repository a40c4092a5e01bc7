/**
 * What requests leave behind that grows old, as V8's own trace tells of it. Garbage is collected while it is young unless
 * something that has grown old seems to need it: a hidden class made for one object, an old table of a Map. The limits
 * are twice what was seen; docs/decisions/garbage-of-requests.md says what goes beyond them.
 */
import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { startServer } from '../support/server-process.ts'

const clients = 16
const KiB = 1024
const common = 'Host: x\r\nTus-Resumable: 1.0.0\r\n'
const body = 'x'.repeat(4096)
const bytes = `${common}Content-Type: application/offset+octet-stream\r\nContent-Length: 4096\r\n`

/** Sends one request, and gives the head of its answer. */
type Ask = (request: string) => Promise<string>
/** Gives what a client is to do again and again. */
type Begin = (ask: Ask) => Promise<() => Promise<void>>

describe('what outlives a request', () => {
  it.each<[string, number, number, Begin]>([
    // 0.4 KiB in most processes and 1.3 in the others, from their beginning to their end; why is not known.
    ['a HEAD', 6000, 3 * KiB, asking],
    ['a creation with its bytes', 4000, 4 * KiB, creatingWhole],
    ['a creation and a PATCH', 2000, 8 * KiB, creatingAndAppending],
  ])('is little of %s', async (_, count, limit, begin) => {
    const args = ['--durability', 'none', '--log-level', 'warn']
    const server = await startServer({ dir: await temporaryFolder(), args, nodeArgs: ['--trace-gc'] })
    onTestFinished(async () => void (await server.stop()))
    await run(server.port, count / 4, begin)
    const rounds: number[] = []
    for (let round = 0; round < 3; round++) {
      const told = server.output().length
      await run(server.port, count, begin)
      const { grown, scavenges } = readTrace(server.output().slice(told))
      expect(scavenges).toBeGreaterThan(5)
      rounds.push(grown / count)
    }
    // What grows once, some megabytes in one of the rounds, is not of a request.
    expect(Math.min(...rounds)).toBeLessThan(limit)
  })
})

const asking: Begin = async (ask) => {
  const path = await create(ask)
  return async () => expect(await ask(`HEAD ${path} HTTP/1.1\r\n${common}\r\n`)).toContain(' 200 ')
}

const creatingWhole: Begin = async (ask) => {
  const request = `POST /files/ HTTP/1.1\r\n${bytes}Upload-Length: 4096\r\n\r\n${body}`
  return async () => expect(await ask(request)).toContain(' 201 ')
}

const creatingAndAppending: Begin = async (ask) => async () => {
  const request = `PATCH ${await create(ask)} HTTP/1.1\r\n${bytes}Upload-Offset: 0\r\n\r\n${body}`
  expect(await ask(request)).toContain(' 204 ')
}

async function create(ask: Ask): Promise<string> {
  const answer = await ask(
    `POST /files/ HTTP/1.1\r\n${common}Upload-Length: 4096\r\nContent-Length: 0\r\n\r\n`,
  )
  return /\r\nlocation: http:\/\/x(\S+)/i.exec(answer)![1]!
}

/** Many at a time, or nothing would be there for a collection to come upon. */
async function run(port: number, count: number, begin: Begin): Promise<void> {
  let left = count
  const client = async () => {
    const socket = connect(port, '127.0.0.1').setEncoding('latin1')
    onTestFinished(() => void socket.destroy())
    await once(socket, 'connect')
    const ask: Ask = async (request) => {
      const answer = once(socket, 'data')
      socket.write(request)
      return (await answer)[0] as string
    }
    const work = await begin(ask)
    while (left-- > 0) await work()
    socket.destroy()
  }
  await Promise.all(Array.from({ length: clients }, client))
}

/** How much larger the heap was after each collection of the young than after the collection before, bytes. */
function readTrace(trace: string): { grown: number; scavenges: number } {
  let grown = 0
  let scavenges = 0
  let before: number | undefined
  for (const [, kind, , after] of trace.matchAll(
    /(Scavenge|Mark-Compact).*? ([\d.]+) \([\d.]+\) -> ([\d.]+) /g,
  )) {
    if (kind === 'Scavenge' && before !== undefined) {
      grown += (Number(after) - before) * KiB * KiB
      scavenges++
    }
    before = Number(after)
  }
  return { grown, scavenges }
}
