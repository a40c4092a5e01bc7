// Promise 6: who must be told of a finished upload is told at least once, under one stable event id, by any server.

import { existsSync } from 'node:fs'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { type Fleet, startFleet } from './fleet.ts'

const preload = new URL('die-at.mjs', import.meta.url).href
const withinMs = 20_000

async function mortalFleet(dieAt: 'before-finish' | 'before-telling', redisUrl?: 'embedded') {
  const deadly = join(await temporaryFolder(), 'deadly')
  const fleet = await startFleet({
    nodeArgs: ['--import', preload],
    env: { DIE_AT: dieAt, DIE_WHILE: deadly },
    ...(redisUrl && { redisUrl }),
  })
  return { fleet, deadly, letLive: () => rm(deadly), armDeath: () => writeFile(deadly, '') }
}

const tus = { 'Tus-Resumable': '1.0.0' }

async function create(url: string, length: number): Promise<string> {
  const answer = await fetch(`${url}/files`, {
    method: 'POST',
    headers: { ...tus, 'Upload-Length': `${length}` },
  })
  expect(answer.status).toBe(201)
  return new URL(answer.headers.get('location')!).pathname
}

function patch(url: string, path: string, offset: number, body: string): Promise<Response> {
  const headers = { ...tus, 'Upload-Offset': `${offset}`, 'Content-Type': 'application/offset+octet-stream' }
  return fetch(`${url}${path}`, { method: 'PATCH', headers, body })
}

async function offsetOf(url: string, path: string): Promise<number> {
  const answer = await fetch(`${url}${path}`, { method: 'HEAD', headers: tus })
  expect(answer.status).toBe(200)
  return Number(answer.headers.get('upload-offset'))
}

/** Dies over a PATCH that brings the last bytes. */
async function dieOver(fleet: Fleet, path: string, offset: number, body: string): Promise<void> {
  const [server] = fleet.servers
  await expect(patch(server!.url, path, offset, body)).rejects.toThrow()
  await server!.exited
}

/** Every time that the finish of this upload was told. */
async function toldOf(fleet: Fleet, path: string) {
  return (await fleet.finishes()).filter(({ upload }) => path.endsWith(upload))
}

async function expectToldOnce(fleet: Fleet, path: string): Promise<void> {
  await vi.waitFor(async () => expect(await toldOf(fleet, path)).not.toEqual([]), { timeout: withinMs })
  await vi.waitFor(async () => expect(await notesIn(fleet)).toEqual([]), { timeout: withinMs })
  const told = await toldOf(fleet, path)
  expect(told).toMatchObject([{ size: 6, event: expect.stringMatching(/^[0-9a-f]{32}$/) }])
}

async function notesIn({ folder }: Fleet): Promise<string[]> {
  const outbox = join(folder, '.tidemark', 'outbox')
  return existsSync(outbox) ? readdir(outbox) : []
}

describe('a server that dies after the finish and before anybody was told', () => {
  it('leaves that to another server, which tells it without being asked', async () => {
    const { fleet, armDeath, letLive } = await mortalFleet('before-telling')
    const path = await create(fleet.urls[0]!, 6)
    expect((await patch(fleet.urls[0]!, path, 0, 'abc')).status).toBe(204)
    await armDeath()
    await dieOver(fleet, path, 3, 'def')
    expect(await offsetOf(fleet.urls[1]!, path)).toBe(6)
    expect(await toldOf(fleet, path)).toEqual([])
    await letLive()
    await expectToldOnce(fleet, path)
    expect((await toldOf(fleet, path))[0]!.pid).toBe(fleet.servers[1]!.pid)
  })

  it('tells it by itself when it is started again', async () => {
    const { fleet, armDeath, letLive } = await mortalFleet('before-telling', 'embedded')
    const path = await create(fleet.urls[0]!, 6)
    await armDeath()
    await dieOver(fleet, path, 0, 'abcdef')
    await letLive()
    await fleet.restart(0)
    await expectToldOnce(fleet, path)
  })

  it('is told under the same id, however many die over it', async () => {
    const { fleet, armDeath, letLive } = await mortalFleet('before-telling')
    const path = await create(fleet.urls[0]!, 6)
    await armDeath()
    await dieOver(fleet, path, 0, 'abcdef')
    const [note] = await notesIn(fleet)
    // The next one tries, and dies as well.
    await fleet.servers[1]!.exited
    expect(await notesIn(fleet)).toEqual([note])
    await letLive()
    await fleet.restart(1)
    await expectToldOnce(fleet, path)
    expect((await toldOf(fleet, path))[0]!.event).toBe(note?.replace('.json', ''))
  })

  it('has told of an upload also when that was terminated meanwhile', async () => {
    const { fleet, armDeath, letLive } = await mortalFleet('before-telling')
    const path = await create(fleet.urls[0]!, 6)
    await armDeath()
    await dieOver(fleet, path, 0, 'abcdef')
    await letLive()
    const answer = await fetch(`${fleet.urls[1]}${path}`, { method: 'DELETE', headers: tus })
    expect(answer.status).toBe(204)
    await expectToldOnce(fleet, path)
  })
})

it('a server that dies before the finish has told nothing; the one that finishes tells it, once', async () => {
  const { fleet, armDeath, letLive } = await mortalFleet('before-finish')
  const path = await create(fleet.urls[0]!, 6)
  expect((await patch(fleet.urls[0]!, path, 0, 'abc')).status).toBe(204)
  await armDeath()
  await dieOver(fleet, path, 3, 'def')
  await letLive()
  expect(await notesIn(fleet)).toHaveLength(1)
  expect(await offsetOf(fleet.urls[1]!, path)).toBe(3)
  expect(await toldOf(fleet, path)).toEqual([])
  expect((await patch(fleet.urls[1]!, path, 3, 'def')).status).toBe(204)
  await expectToldOnce(fleet, path)
})
