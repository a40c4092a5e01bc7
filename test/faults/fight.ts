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
  /** Requests that were answered 503. */
  unavailable: number
  /** Creations that got no answer. */
  lostCreations: number
}

type Range = { start: number; end: number; client: number }

export async function fight({ urls, name, clients, bytes, deadlineMs }: FightOptions): Promise<Fought> {
  const deadline = performance.now() + deadlineMs
  const ranges: Range[] = []
  let displacements = 0
  let cuts = 0
  let unavailable = 0
  let lostCreations = 0

  const path = await create()
  await Promise.all(Array.from({ length: clients }, (_, client) => contend(client)))
  const judged = await judge()
  const id = path.split('/').at(-1)!
  return { id, path, bytes, ...judged, displacements, cuts, unavailable, lostCreations }

  async function create(): Promise<string> {
    for (const random = chance(`fight ${name}`); ; await sleep(100)) {
      if (performance.now() > deadline) throw new Error(`the fight ${name} had no beginning`)
      const headers = { 'Upload-Length': bytes }
      const created = await send('POST', `${random.pick(urls)}/files/`, { headers })
      if (created.is === 'cut') lostCreations++
      else if (created.status === 503) unavailable++
      else {
        expect(created).toMatchObject({ status: 201 })
        return new URL(created.location!).pathname
      }
    }
  }

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
      expect([204, 409, 423, 503], `PATCH: ${patch.body}`).toContain(patch.status)
      if (patch.status === 503) unavailable++
      if (patch.status === 409 || patch.status === 503 || patch.offset === undefined) continue
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

  async function download(): Promise<Buffer> {
    for (const random = chance(`judge ${name}`); ; await sleep(100)) {
      if (performance.now() > deadline) throw new Error(`what was fought for, ${path}, could not be had`)
      const stored = await fetch(`${random.pick(urls)}${path}`).catch(() => undefined)
      const content = await stored?.arrayBuffer().catch(() => undefined)
      if (stored?.status === 200 && content !== undefined) return Buffer.from(content)
    }
  }

  async function judge(): Promise<Pick<Fought, 'content' | 'gaps'>> {
    const content = await download()
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
