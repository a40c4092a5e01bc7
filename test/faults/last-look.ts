// What must be true at the end of every fault test, whatever happened in it: the content of every upload is what was
// sent, each was told to be finished once, and nothing is left over in Redis, in the folder or in the servers.

import { createHash } from 'node:crypto'
import { readdir, readlink, stat } from 'node:fs/promises'
import { get } from 'node:http'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import { expect, vi } from 'vitest'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import type { Finish } from '../support/finishes.ts'
import type { Fleet } from './fleet.ts'
import { contentOf, type LedgerUpload } from './ledger-client.ts'
import { send } from './wire-request.ts'

/** What is known of an upload that was finished, whoever sent it. */
export type Finished = Pick<LedgerUpload, 'id' | 'path' | 'bytes'> & {
  /** Of the content of `contentOf`; else `sha256` says what it must be. */
  seed?: string
  sha256?: string
  lostCreations?: number
}

export type LastLook = {
  /** Uploads that are there, and not finished. */
  unfinished?: readonly string[]
  /** Uploads that were finished and then terminated. */
  finishedAndGone?: readonly string[]
  /** Whether a server was stopped in the middle of anything, and went on: it may tell again what another one has told. */
  wasStopped?: boolean
  /** How long what is on its way may take: 15 s. */
  patienceMs?: number
}

const blockBytes = 256 * 1024

export async function expectAllWell(
  fleet: Fleet,
  uploads: readonly Finished[],
  look: LastLook = {},
): Promise<void> {
  const patience = { timeout: look.patienceMs ?? 15_000, interval: 50 }
  for (const [index, upload] of uploads.entries()) {
    const url = fleet.urls[index % fleet.urls.length]!
    const expected = upload.sha256 ?? hashOf(upload.seed ?? '', upload.bytes)
    expect(await hashOfDownload(`${url}${upload.path}`), `content of ${upload.path}`).toBe(expected)
  }
  const known = new Set([...uploads.map(({ id }) => id), ...(look.unfinished ?? [])])
  for (const id of await expectOnlyLostCreations(fleet, known, uploads)) known.add(id)
  const finished = [...uploads.map(({ id }) => id), ...(look.finishedAndGone ?? [])]
  await vi.waitFor(() => expectOneFinishEach(fleet, uploads, finished, look), patience)
  await vi.waitFor(async () => expect(await openFiles(fleet), 'files held open').toEqual([]), patience)
  await vi.waitFor(async () => expect(await strangeKeys(fleet, known), 'left in Redis').toEqual([]), patience)
  await vi.waitFor(
    async () => expect(await strangeFiles(fleet, known), 'left in the folder').toEqual([]),
    patience,
  )
}

function hashOf(seed: string, bytes: number): string {
  const hash = createHash('sha256')
  for (let at = 0; at < bytes; at += blockBytes)
    hash.update(contentOf(seed, at, Math.min(bytes, at + blockBytes)))
  return hash.digest('hex')
}

function hashOfDownload(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, (response) => {
      if (response.statusCode !== 200) reject(new Error(`GET ${url} was answered ${response.statusCode}`))
      const hash = createHash('sha256')
      response.on('data', (chunk: Buffer) => hash.update(chunk))
      response.once('end', () => resolve(hash.digest('hex')))
      response.once('error', reject)
    }).once('error', reject)
  })
}

/** A creation that got no answer may have made an upload, which is empty. Returns the ids of those. */
async function expectOnlyLostCreations(
  fleet: Fleet,
  known: ReadonlySet<string>,
  uploads: readonly Finished[],
): Promise<string[]> {
  const unknown = [...(await filesOfUploads(fleet)).keys()].filter((id) => !known.has(id))
  const lost = uploads.reduce((sum, { lostCreations = 0 }) => sum + lostCreations, 0)
  expect(unknown.length, `uploads that nobody knows: ${unknown}`).toBeLessThanOrEqual(lost)
  for (const id of unknown) {
    const ended = await send('HEAD', `${fleet.urls[0]}/files/${id}`)
    // One whose creation was killed in the middle is not there; what it left is swept.
    const isEmpty = ended.is === 'answered' && (ended.status === 404 || ended.offset === 0)
    expect(isEmpty, `${id} is empty: ${JSON.stringify(ended)}`).toBe(true)
  }
  return unknown
}

/** A server that lives tells once; for one that was killed or stopped it is told anew, by the same event id. */
async function expectOneFinishEach(
  fleet: Fleet,
  uploads: readonly Finished[],
  finished: readonly string[],
  { wasStopped = false }: LastLook,
): Promise<void> {
  const mayRepeat = fleet.wasKilled || wasStopped
  const finishes = await fleet.finishes()
  const strange = uploads.flatMap(({ id, bytes }) => {
    const told = finishes.filter(({ upload }) => upload === id)
    const count = mayRepeat ? new Set(told.map(nameOf)).size : told.length
    return count === 1 && told[0]!.size === bytes ? [] : [{ id, told }]
  })
  expect(strange, 'uploads that were not told to be finished, once').toEqual([])
  expect(finishes.filter(({ upload }) => !finished.includes(upload))).toEqual([])
}

/** Lines without an event id are events of their own. */
function nameOf(finish: Finish): unknown {
  return finish.event ?? finish
}

/** Files of uploads that servers hold open (Linux). */
async function openFiles(fleet: Fleet): Promise<string[]> {
  const found = await Promise.all(
    fleet.servers
      .flatMap(({ pid }, index) => [pid, ...fleet.workersOf(index)])
      .map(async (pid) => {
        const folder = `/proc/${pid}/fd`
        const links = await Promise.all(
          (await readdir(folder)).map((fd) => readlink(join(folder, fd)).catch(() => '')),
        )
        return links.filter((link) => link.startsWith(`${fleet.folder}/`) && !isOwnOfServers(link, fleet))
      }),
  )
  return found.flat()
}

/** Database and entry of the owner, of a server that has the folder for itself. */
function isOwnOfServers(path: string, { folder }: Fleet): boolean {
  const top = path.slice(folder.length + 1).split('/')[0]
  return top === '.tidemark' || top === '.owner'
}

async function strangeKeys(fleet: Fleet, known: ReadonlySet<string>): Promise<string[]> {
  if (!fleet.redis) return []
  const { url, prefix } = fleet.redis
  const connection = new RedisConnection({ url })
  try {
    await connection.connect()
    return (await connection.runOnEach((redis) => strangeKeysAt(redis, prefix, known))).flat()
  } finally {
    await connection.close()
  }
}

async function strangeKeysAt(redis: Redis, prefix: string, known: ReadonlySet<string>): Promise<string[]> {
  const strange: string[] = []
  for (const key of await redis.keys(`${prefix}*`)) {
    const name = key.slice(prefix.length)
    const id = /^record:\{(.+)\}$/.exec(name)?.[1]
    // A fence outlives its lock, so that the next one is higher; Redis itself ends it.
    if (name.startsWith('fence:') && (await redis.pttl(key)) > 0) continue
    // When all uploads were last looked at; it is of no upload.
    if (name === 'walk') continue
    if (name.startsWith('index:')) {
      const members = (await redis.type(key)) === 'zset' ? await redis.zrange(key, 0, -1) : ['no sorted set']
      strange.push(...members.filter((member) => !known.has(member)).map((member) => `${name} ${member}`))
    } else if (id === undefined || !known.has(id)) strange.push(name)
  }
  return strange
}

type UploadFiles = { marks: number[]; data: number[] }

/** Of every upload that has any file: the generations of its marks and of its bytes. */
async function filesOfUploads(fleet: Fleet, strange: string[] = []): Promise<Map<string, UploadFiles>> {
  const uploads = new Map<string, UploadFiles>()
  const filesOf = (id: string) => {
    const files = uploads.get(id) ?? { marks: [], data: [] }
    uploads.set(id, files)
    return files
  }
  for (const name of await readdir(fleet.folder)) {
    const [, hidden, generation, kind] = /^\.([0-9a-f]{32})\.(\d+)\.(mark|data)$/.exec(name) ?? []
    if (/^[0-9a-f]{32}$/.test(name)) filesOf(name).data.push(0)
    else if (hidden !== undefined)
      filesOf(hidden)[kind === 'mark' ? 'marks' : 'data'].push(Number(generation))
    else if (!isOwnOfServers(join(fleet.folder, name), fleet)) strange.push(name)
  }
  return uploads
}

/**
 * One file of bytes for each upload; and marks of every generation up to it, for a gap would hide what is above. No note
 * of what is still to be told. A server that was killed may leave half a note, and the claim of a take-over.
 */
async function strangeFiles(fleet: Fleet, known: ReadonlySet<string>): Promise<string[]> {
  const notes = await readdir(join(fleet.folder, '.tidemark', 'outbox')).catch(() => [])
  const strange: string[] = notes.filter((name) => !(fleet.wasKilled && name.startsWith('.')))
  const unknown: string[] = []
  const uploads = await filesOfUploads(fleet, unknown)
  // The opening of a server that was killed stays until a walk finds that its generation is over.
  strange.push(...unknown.filter((name) => !(fleet.wasKilled && name.endsWith('.opening'))))
  for (const [id, { marks, data }] of uploads) {
    marks.sort((a, b) => a - b)
    const isChain = marks.every((generation, index) => generation === index)
    const last = marks.at(-1)
    const isWhole = data.length === 1 && isChain && last !== undefined && last >= data[0]!
    if (!known.has(id) || !isWhole) strange.push(`${id}: marks ${marks}, bytes ${data}`)
    if (fleet.wasKilled) continue
    // A mark that was claimed and never written is empty.
    for (const generation of marks) {
      const file = `.${id}.${generation}.mark`
      if ((await stat(join(fleet.folder, file))).size === 0) strange.push(`${file}: a claim`)
    }
  }
  return strange
}
