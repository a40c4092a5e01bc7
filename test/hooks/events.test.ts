// post-create, post-finish and post-terminate: at least once, in order, under one id, whoever dies and whoever is away.

import { existsSync } from 'node:fs'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Webhook } from 'standardwebhooks'
import { expect, it, vi } from 'vitest'
import { run } from '../../server/commands/events.ts'
import { FileStore } from '../../stores/file/file-store.ts'
import { type Fleet, startFleet } from '../faults/fleet.ts'
import { startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { answerJson, Receiver } from './receiver.ts'

const minuteMs = 60_000
const dayMs = 86_400_000

/** A server whose clock is the test's, over a folder that outlives it. */
async function timedSite(receiver: Receiver, directory: string, clock: { nowMs: number }) {
  const now = () => clock.nowMs
  const datastore = new FileStore({ directory, durability: 'none', now })
  const site = await startSite({ datastore, now, hooks: { http: { url: receiver.url } } })
  const { teller } = site.server.engine
  return {
    site,
    teller,
    /** Until nothing is being told, and everything that is due was tried. */
    round: async () => {
      await teller.tellWaiting()
    },
  }
}

async function filesIn(...parts: string[]): Promise<string[]> {
  const folder = join(...parts)
  return existsSync(folder) ? (await readdir(folder)).filter((name) => name.endsWith('.json')) : []
}

const notesIn = (folder: string) => filesIn(folder, '.tidemark', 'outbox')
const undeliveredIn = (folder: string) => filesIn(folder, '.tidemark', 'undelivered')

function terminal() {
  const said = { out: '', err: '' }
  return {
    said,
    env: {},
    out: (text: string) => {
      said.out += text
    },
    err: (text: string) => {
      said.err += text
    },
  }
}

/** The command with a folder, and what it said. */
async function events(folder: string, ...words: string[]) {
  const to = terminal()
  const code = await run([...words, '--upload-dir', folder], to)
  return { code, ...to.said }
}

it('a receiver that is away for an hour is told everything, in order, under the same ids', async () => {
  const receiver = await Receiver.start()
  const clock = { nowMs: Date.now() }
  const folder = await temporaryFolder()
  const { site, round } = await timedSite(receiver, folder, clock)
  // Only what is asked is answered.
  let isAway = true
  const taken: { type: string; id: unknown }[] = []
  const refused = new Set<unknown>()
  const behave: NonNullable<Receiver['answers']['post-create']> = (res, { type, headers }) => {
    if (isAway) {
      refused.add(headers['webhook-id'])
      answerJson(res, {}, 503)
    } else {
      taken.push({ type, id: headers['webhook-id'] })
      res.writeHead(204).end()
    }
  }
  receiver.answers = { 'post-create': behave, 'post-finish': behave, 'post-terminate': behave }
  const url = await site.createFinished('abc')
  expect((await site.send('DELETE', url)).status).toBe(204)
  await vi.waitFor(async () => expect(await notesIn(folder)).toHaveLength(3))
  for (let minute = 0; minute < 60; minute++) {
    clock.nowMs += minuteMs
    await round()
  }
  expect(taken).toEqual([])
  isAway = false
  clock.nowMs += 60 * minuteMs
  await round()
  expect(taken.map(({ type }) => type)).toEqual(['post-create', 'post-finish', 'post-terminate'])
  expect(refused.has(taken[0]?.id)).toBe(true)
  expect(await notesIn(folder)).toEqual([])
  const told = receiver.received.filter(({ type }) => type !== 'pre-create')
  const idsOf = (type: string) =>
    new Set(told.filter((each) => each.type === type).map((each) => each.headers['webhook-id']))
  for (const type of ['post-create', 'post-finish', 'post-terminate']) expect(idsOf(type).size).toBe(1)
  // It stays as it was told first, whenever it is told.
  const bodies = told.filter(({ type }) => type === 'post-create').map(({ body }) => body)
  expect(new Set(bodies).size).toBe(1)
  expect(bodies.length).toBeGreaterThan(3)
  expect(bodies.length).toBeLessThan(20)
})

it('the command says so when the folder of the server is not there', async () => {
  expect(await events(`${await temporaryFolder()}/misspelt`, 'list')).toMatchObject({
    code: 1,
    out: '',
    err: expect.stringMatching(/^there is no folder ".*misspelt"; --upload-dir says/),
  })
})

it('what no hook took for three days is set aside, shown, sent again and forgotten by a command', async () => {
  const receiver = await Receiver.start()
  const clock = { nowMs: Date.now() - 10 * dayMs }
  const folder = await temporaryFolder()
  const { site, round } = await timedSite(receiver, folder, clock)
  receiver.answers = {
    'post-create': (res) => answerJson(res, {}, 500),
    'post-finish': (res) => answerJson(res, {}, 500),
  }
  await site.createFinished('abc')
  await vi.waitFor(async () => expect(await notesIn(folder)).toHaveLength(2))
  expect(await events(folder, 'list')).toMatchObject({ code: 0, out: 'everything was delivered\n' })
  clock.nowMs += 3 * dayMs - minuteMs
  await round()
  expect(await undeliveredIn(folder)).toEqual([])
  clock.nowMs += 60 * minuteMs
  await round()
  // Only now was it the turn of the other, which has the same time.
  expect(await undeliveredIn(folder)).toHaveLength(1)
  clock.nowMs += 3 * dayMs
  await round()
  expect(await undeliveredIn(folder)).toHaveLength(2)
  expect(await notesIn(folder)).toEqual([])
  expect(site.reports).toContainEqual(expect.objectContaining({ is: 'undelivered', audience: 'hooks' }))

  const { out } = await events(folder, 'list')
  const [created, finished] = out.split('\n').map((line) => line.split('  ')[0]!)
  expect(out).toMatch(/^[0-9a-f]{32} {2}\S+Z {2}created {2}\S+ {2}hooks {2}tried \d times\n/)
  const shown = JSON.parse((await events(folder, 'show', created!.slice(0, 8))).out)
  expect(shown).toMatchObject({ event: { id: created, kind: 'created', request: { method: 'POST' } } })
  expect(await events(folder, 'show', 'ffff')).toMatchObject({ code: 1 })
  expect(await events(folder, 'drop', created!)).toMatchObject({ code: 0 })

  // It has the whole time once more.
  clock.nowMs = Date.now()
  expect(await events(folder, 'retry', '--all')).toMatchObject({ code: 0, out: expect.stringMatching(/^1 /) })
  await round()
  expect(await notesIn(folder)).toEqual([`${finished}.json`])
  expect(await undeliveredIn(folder)).toEqual([])
  receiver.answers = {}
  clock.nowMs += minuteMs
  await round()
  const last = receiver.received.at(-1)!
  expect([last.type, last.headers['webhook-id']]).toEqual(['post-finish', finished])
  expect(await notesIn(folder)).toEqual([])
})

it('the command says how it is used', async () => {
  const folder = await temporaryFolder()
  for (const words of [
    [],
    ['list', 'x'],
    ['retry'],
    ['retry', 'a', '--all'],
    ['drop', 'a', 'b'],
    ['toString', 'a'],
  ])
    expect(await events(folder, ...words)).toMatchObject({ code: 2, err: expect.stringMatching(/^usage/) })
  expect(await events(folder, '--help')).toMatchObject({ code: 0, out: expect.stringMatching(/^usage/) })
})

const secret = `whsec_${Buffer.alloc(24, 1).toString('base64')}`

async function hookedFleet(receiver: Receiver, options: Parameters<typeof startFleet>[0] = {}) {
  const env = { TIDEMARK_HOOKS_HTTP_SECRET: secret, ...options.env }
  return startFleet({ ...options, env, args: ['--hooks-http', receiver.url, ...(options.args ?? [])] })
}

const creation = {
  'Tus-Resumable': '1.0.0',
  'Upload-Length': '3',
  'Content-Type': 'application/offset+octet-stream',
}

it('a server that dies between the finish and the telling leaves that to another one', async () => {
  const receiver = await Receiver.start()
  const deadly = join(await temporaryFolder(), 'deadly')
  const preload = new URL('../faults/die-at.mjs', import.meta.url).href
  const fleet: Fleet = await hookedFleet(receiver, {
    nodeArgs: ['--import', preload],
    env: { DIE_AT: 'before-telling', DIE_WHILE: deadly },
  })
  await writeFile(deadly, '')
  const headers = { ...creation, Authorization: 'Bearer abc', 'X-Tenant': 'blue' }
  const sent = fetch(`${fleet.urls[0]}/files/`, { method: 'POST', headers, body: 'abc' })
  await expect(sent).rejects.toThrow()
  await rm(deadly)
  const [told] = await receiver.until('post-finish')
  await vi.waitFor(async () => expect(await notesIn(fleet.folder)).toEqual([]), { timeout: 20_000 })
  const { body, payload } = told!
  expect(new Webhook(secret).verify(body, told!.headers as Record<string, string>)).toEqual(payload)
  expect(payload.Event).toMatchObject({
    Upload: { Size: 3, Offset: 3 },
    HTTPRequest: { Method: 'POST', URI: '/files/', Header: { 'X-Tenant': ['blue'] } },
  })
  expect(body).not.toContain('Bearer')
  expect(new Set(receiver.of('post-finish').map((each) => each.headers['webhook-id'])).size).toBe(1)
  expect(
    fleet
      .logs()
      .map((line) => JSON.stringify(line))
      .join(),
  ).not.toContain(secret)
})

it('a server alone tells when it is started again', async () => {
  const receiver = await Receiver.start()
  const fleet = await hookedFleet(receiver, {
    redisUrl: 'embedded',
    args: ['--hooks-enabled-events', 'post-finish'],
  })
  await receiver.down()
  const answer = await fetch(`${fleet.urls[0]}/files/`, { method: 'POST', headers: creation, body: 'abc' })
  expect(answer.status).toBe(201)
  await vi.waitFor(async () => expect(await notesIn(fleet.folder)).toHaveLength(1))
  await receiver.up()
  await fleet.killAndRestart(0)
  const [told] = await receiver.until('post-finish')
  expect(answer.headers.get('location')).toContain(told!.payload.Event.Upload.ID)
})
