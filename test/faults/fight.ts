// Clients that fight for one upload. Each sends its own bytes for whatever range it is asked for, and keeps at it until
// the upload is finished; the outcome says which range was acknowledged to whom.

import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { chance } from '../support/seed.ts'
import { contentOf } from './ledger-client.ts'
import { type Ended, send } from './wire-request.ts'

const KiB = 1024
const pieceBytes = 8 * KiB

export type FightOptions = {
  urls: readonly string[]
  name: string
  clients: number
  bytes: number
  deadlineMs: number
}

export type Fought = {
  id: string
  path: string
  bytes: number
  /** What must be stored, where a range was acknowledged; what is stored, elsewhere. */
  content: Buffer
  /** Ranges that were acknowledged to nobody; there are some only when answers were lost. */
  gaps: [start: number, end: number][]
  /** How often a client had to let go of the upload in the middle of a body. */
  displacements: number
  /** Requests that got no answer. */
  cuts: number
}

type Range = { start: number; end: number; client: number }

export async function fight({ urls, name, clients, bytes, deadlineMs }: FightOptions): Promise<Fought> {
  const created = await send('POST', `${urls[0]}/files/`, { headers: { 'Upload-Length': bytes } })
  expect(created).toMatchObject({ status: 201 })
  const { pathname: path } = new URL((created as { location: string }).location)
  const deadline = performance.now() + deadlineMs
  const ranges: Range[] = []
  let displacements = 0
  let cuts = 0

  await Promise.all(Array.from({ length: clients }, (_, client) => contend(client)))

  return { id: path.split('/').at(-1)!, path, bytes, ...(await judge()), displacements, cuts }

  async function contend(client: number): Promise<void> {
    const random = chance(`fighter ${name} ${client}`)
    const ask = async (method: string, options = {}): Promise<Ended> => {
      if (performance.now() > deadline) throw new Error(`the fight ${name} had no end`)
      const ended = await send(method, `${random.pick(urls)}${path}`, options)
      if (ended.is === 'cut') cuts++
      return ended
    }
    for (;;) {
      await sleep(random.between(0, 300))
      const head = await ask('HEAD')
      if (head.is === 'cut') continue
      expect([200, 423], 'HEAD').toContain(head.status)
      if (head.status === 423) continue
      const start = head.offset!
      if (start === bytes) return
      const end = Math.min(bytes, start + random.between(32 * KiB, 512 * KiB))
      const patch = await ask('PATCH', {
        headers: {
          'Upload-Offset': start,
          'Content-Type': 'application/offset+octet-stream',
          'Content-Length': end - start,
        },
        body: pieces(client, start, end),
        bytesPerSecond: 512 * KiB,
      })
      if (patch.is === 'cut') continue
      expect([204, 409, 423], `PATCH: ${patch.body}`).toContain(patch.status)
      if (patch.status === 409 || patch.offset === undefined) continue
      if (patch.status === 423) displacements++
      expect(patch.offset).toBeGreaterThanOrEqual(start)
      expect(patch.offset).toBeLessThanOrEqual(end)
      if (patch.offset > start) ranges.push({ start, end: patch.offset, client })
    }
  }

  function* pieces(client: number, start: number, end: number): Generator<Buffer> {
    for (let at = start; at < end; at += pieceBytes)
      yield contentOf(`${name} ${client}`, at, Math.min(end, at + pieceBytes))
  }

  async function judge(): Promise<Pick<Fought, 'content' | 'gaps'>> {
    const stored = await fetch(`${urls[0]}${path}`)
    expect(stored.status).toBe(200)
    const content = Buffer.from(await stored.arrayBuffer())
    expect(content.length).toBe(bytes)
    const gaps: Fought['gaps'] = []
    let reached = 0
    for (const { start, end, client } of ranges.toSorted((a, b) => a.start - b.start)) {
      expect(start, 'a range that was acknowledged to two').toBeGreaterThanOrEqual(reached)
      if (start > reached) gaps.push([reached, start])
      const isOwn = content.subarray(start, end).equals(contentOf(`${name} ${client}`, start, end))
      expect(isOwn, `bytes ${start} to ${end} are those of client ${client}`).toBe(true)
      reached = end
    }
    if (reached < bytes) gaps.push([reached, bytes])
    return { content, gaps }
  }
}
