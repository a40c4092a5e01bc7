// The client vanishes without a word: its connection stays open, and nothing comes through it any more. Whoever comes
// next, on the other server, has the upload within milliseconds; nobody waits for a lease, asks again, or spins.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it, onTestFinished, vi } from 'vitest'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { expectAllWell, type Finished } from './last-look.ts'
import { contentOf } from './ledger-client.ts'
import { send } from './wire-request.ts'

const KiB = 1024
const bytes = 256 * KiB
const sentBytes = 100 * KiB
const runs = 100
/** A waiter asks again by itself after so long, when no message reached it. */
const askAgainMs = 1_000

it('100 vanished clients are succeeded on the other server, by message', async () => {
  const fleet = await startFleet({ args: ['--lease', '30s', '--log-level', 'debug'] })
  const uploads: Finished[] = []
  const tookMs: number[] = []
  for (let run = 0; run < runs; run++) {
    const upload = await vanishInTheMiddle(fleet, `vanished ${run}`)
    tookMs.push(await goOn(fleet.urls[1]!, upload))
    uploads.push(upload)
  }

  tookMs.sort((a, b) => a - b)
  const [p50, p99] = [tookMs[runs / 2]!, tookMs[runs - 2]!]
  console.log(`take-over: p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms`)
  // Whoever had to ask again would have waited for a second each time, and for 30 until the lease was over.
  expect(p50).toBeLessThan(askAgainMs)
  await vi.waitFor(() => expect(displacedIn(fleet, 0).sort()).toEqual(uploads.map(({ id }) => id).sort()), {
    timeout: 10_000,
  })
  expect(displacedIn(fleet, 1)).toEqual([])
  await expectAllWell(fleet, uploads)
}, 90_000)

it('no server spins while 20 clients have vanished', async () => {
  const fleet = await startFleet({ args: ['--lease', '30s'] })
  const uploads = []
  for (let i = 0; i < 20; i++) uploads.push(await vanishInTheMiddle(fleet, `stalled ${i}`))
  const before = await Promise.all(fleet.servers.map(({ pid }) => cpuTicksOf(pid)))
  await sleep(1_000)
  const after = await Promise.all(fleet.servers.map(({ pid }) => cpuTicksOf(pid)))
  // A second is 100 ticks of a core. Much less than half of them is anything but a loop.
  for (const [index, ticks] of after.entries()) expect(ticks - before[index]!).toBeLessThan(40)
  await Promise.all(uploads.map((upload) => goOn(fleet.urls[1]!, upload)))
  await expectAllWell(fleet, uploads)
}, 60_000)

/** Begins an upload at the first server; the wire falls silent when the server has begun to receive. */
async function vanishInTheMiddle(
  fleet: Fleet,
  seed: string,
): Promise<Required<Pick<Finished, 'seed'>> & Finished> {
  const [server] = fleet.servers
  const created = await send('POST', `${server!.url}/files/`, { headers: { 'Upload-Length': bytes } })
  expect(created).toMatchObject({ status: 201 })
  const { pathname: path } = new URL((created as { location: string }).location)
  const wire = await startTcpProxy(server!.port)
  onTestFinished(() => wire.close())
  const client = net.connect(wire.port, '127.0.0.1')
  client.on('error', () => undefined)
  await once(client, 'connect')
  client.write(
    [
      `PATCH ${path} HTTP/1.1`,
      `Host: 127.0.0.1:${server!.port}`,
      'Tus-Resumable: 1.0.0',
      'Upload-Offset: 0',
      'Content-Type: application/offset+octet-stream',
      `Content-Length: ${bytes}`,
      // The server answers this once it holds the upload and wants the body.
      'Expect: 100-continue',
      '\r\n',
    ].join('\r\n'),
  )
  const [answer] = await once(client, 'data')
  expect(String(answer)).toMatch(/^HTTP\/1.1 100/)
  client.write(contentOf(seed, 0, sentBytes))
  await vi.waitFor(() => expect(wire.sentBytes).toBeGreaterThanOrEqual(sentBytes), { interval: 1 })
  wire.isSilent = true
  client.destroy()
  return { path, id: path.split('/').at(-1)!, bytes, seed }
}

/** As a client that comes back by another way. Returns how long it waited for the upload to be its own. */
async function goOn(url: string, { path, seed }: { path: string; seed: string }): Promise<number> {
  const askedAt = performance.now()
  const head = await send('HEAD', `${url}${path}`)
  const tookMs = performance.now() - askedAt
  expect(head).toMatchObject({ status: 200 })
  const { offset } = head as { offset: number }
  const patch = await send('PATCH', `${url}${path}`, {
    headers: {
      'Upload-Offset': offset,
      'Content-Type': 'application/offset+octet-stream',
      'Content-Length': bytes - offset,
    },
    body: [contentOf(seed, offset, bytes)],
  })
  expect(patch).toMatchObject({ status: 204, offset: bytes })
  return tookMs
}

/** Ids of the uploads that a server says it gave to another request. */
function displacedIn(fleet: Fleet, index: number): unknown[] {
  const lines = fleet.servers[index]!.logs()
  return lines.filter(({ msg }) => msg === 'an upload went to another request').map(({ id }) => id)
}

/** Processor time that a process has used, in hundredths of a second (Linux). */
async function cpuTicksOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  // The name may hold spaces; what follows its closing parenthesis does not. utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}
