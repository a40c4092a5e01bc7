// The digest of a whole upload outlives the server that began to compute it: killed at any moment, the next one reads what
// was received before, and what is finished is what was declared.

import { createHash } from 'node:crypto'
import { rm, stat, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { basename, join } from 'node:path'
import { expect, inject, it, onTestFinished, vi } from 'vitest'
import { finishJournal } from '../support/finishes.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes } from '../support/random-file.ts'
import { chance } from '../support/seed.ts'
import { type ServerOptions, type ServerProcess, startServer } from '../support/server-process.ts'

const MiB = 1024 * 1024
const version = { 'Tus-Resumable': '1.0.0' }
const bytesType = 'application/offset+octet-stream'
const content = randomBytes('whole digest', 24 * MiB)
const digestOf = (bytes: Uint8Array) => `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`

for (const [title, isRight] of [
  ['a server that is killed again and again verifies a digest that is right', true],
  ['a server that is killed again and again verifies a digest that is wrong', false],
] as const)
  it(title, async () => {
    const random = chance(`digest kills ${isRight}`)
    const { server, dir } = await setUp()
    const url = await create(server, digestOf(isRight ? content : content.subarray(1)))
    const file = join(dir, basename(url))
    for (let kill = 0; kill < 4; kill++) {
      const offset = await offsetOf(url)
      const patch = request(url, { method: 'PATCH', headers: patchHeaders(offset) })
      patch.on('error', () => undefined)
      const until = Math.min(content.length - 1, offset + random.between(MiB, 6 * MiB))
      patch.write(content.subarray(offset, until))
      await vi.waitFor(async () => expect((await stat(file)).size).toBeGreaterThanOrEqual(until - MiB), {
        timeout: 10_000,
      })
      await server.kill('SIGKILL')
      await server.restart()
    }
    const offset = await offsetOf(url)
    const last = await fetch(url, {
      method: 'PATCH',
      headers: patchHeaders(offset),
      body: new Uint8Array(content.subarray(offset)),
    })
    expect(last.status).toBe(isRight ? 204 : 460)
    await server.kill('SIGKILL')
    await server.restart()
    const head = await fetch(url, { method: 'HEAD', headers: version })
    expect(head.status).toBe(isRight ? 200 : 410)
    expect(head.headers.get('repr-digest')).toBe(isRight ? digestOf(content) : null)
    if (!isRight) return
    expect(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(content)).toBe(true)
  })

it('a server that dies between the digest and the finish leaves neither', async () => {
  const dir = await temporaryFolder()
  const journal = finishJournal(await temporaryFolder())
  const switchFile = join(dir, 'die')
  const preload = new URL('../faults/die-at.mjs', import.meta.url).href
  const { server } = await setUp({
    dir,
    nodeArgs: [...journal.nodeArgs, '--import', preload],
    env: { ...journal.env, DIE_WHILE: switchFile, DIE_AT: 'before-finish' },
  })
  const url = await create(server, digestOf(content))
  await writeFile(switchFile, '')
  await fetch(url, { method: 'PATCH', headers: patchHeaders(0), body: new Uint8Array(content) }).catch(
    () => undefined,
  )
  await server.exited
  await rm(switchFile)
  await server.restart()
  const offset = await offsetOf(url)
  expect(offset).toBeLessThan(content.length)
  const rest = {
    method: 'PATCH',
    headers: patchHeaders(offset),
    body: new Uint8Array(content.subarray(offset)),
  }
  expect((await fetch(url, rest)).status).toBe(204)
  expect((await fetch(url, { method: 'HEAD', headers: version })).headers.get('repr-digest')).toBe(
    digestOf(content),
  )
  await vi.waitFor(async () =>
    expect((await journal.read()).map(({ upload }) => upload)).toEqual([basename(url)]),
  )
})

for (const [name, args, withRedis] of [
  ['workers', ['--workers', '2'], false],
  ['two servers that share a Redis', [], true],
] as const)
  it(`an upload in many requests is verified by ${name}`, async () => {
    const dir = await temporaryFolder()
    const redisUrl = withRedis ? inject('redisUrl') : undefined
    const options = { dir, args: [...args], ...(redisUrl && { redisUrl }) }
    const servers = [await setUp(options), ...(withRedis ? [await setUp(options)] : [])]
    const url = await create(servers[0]!.server, digestOf(content))
    const path = new URL(url).pathname
    let turn = 0
    for (let offset = 0; offset < content.length; ) {
      const { server } = servers[turn++ % servers.length]!
      const piece = content.subarray(offset, offset + 5 * MiB)
      const answer = await fetch(new URL(path, server.url), {
        method: 'PATCH',
        headers: { ...patchHeaders(offset), Connection: 'close' },
        body: new Uint8Array(piece),
      })
      expect(answer.status).toBe(204)
      offset += piece.length
    }
    const head = await fetch(url, { method: 'HEAD', headers: version })
    expect(head.headers.get('repr-digest')).toBe(digestOf(content))
  })

async function setUp(options: Partial<ServerOptions> = {}) {
  const dir = options.dir ?? (await temporaryFolder())
  const server = await startServer({ ...options, dir })
  onTestFinished(async () => void (await server.stop()))
  return { server, dir }
}

async function create(server: ServerProcess, digest: string): Promise<string> {
  const created = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: { ...version, 'Upload-Length': String(content.length), 'Repr-Digest': digest },
  })
  expect(created.status).toBe(201)
  return created.headers.get('location')!
}

async function offsetOf(url: string): Promise<number> {
  const head = await fetch(url, { method: 'HEAD', headers: version })
  expect(head.status).toBe(200)
  return Number(head.headers.get('upload-offset'))
}

function patchHeaders(offset: number): Record<string, string> {
  return { ...version, 'Upload-Offset': String(offset), 'Content-Type': bytesType }
}
