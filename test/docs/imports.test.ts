// docs/architecture.md says that imports point one way. Here every file is held to it.

import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))

interface Rule {
  /** Files of ours that may be imported, beside those of the same room. */
  readonly ours: RegExp
  /** Packages and modules of Node. */
  readonly others: RegExp
}

const anything = /^/
const nothing = /(?!)/
/** What knows HTTP, settings or log lines. */
const notForStores = /^(?!fastify|@fastify|@tus\/server|pino|srvx|middie|node:http)/

const rules: Record<string, Rule> = {
  server: { ours: /^(server|stores)\//, others: anything },
  'server/host': {
    ours: /^(server\/(access|hooks|protocol|uploads)\/|stores\/|server\/(errors|config|setting-kinds)\.ts$|server\/plain\/(door|plain-room)\.ts$)/,
    others: anything,
  },
  'server/plain': {
    ours: /^(server\/(host|protocol|uploads)\/|stores\/contracts\.ts$|server\/errors\.ts$)/,
    others: anything,
  },
  // What a request is known by; of the host only where it writes down what it found out.
  'server/access': {
    ours: /^(server\/(protocol\/|uploads\/upload-request\.ts$|host\/request-facts\.ts$)|server\/(errors|config|setting-kinds|place)\.ts$|stores\/contracts\.ts$)/,
    others: anything,
  },
  // The table of the rows is made of them; of the hooks only what their values are.
  'server/settings': {
    ours: /^server\/((settings|setting-kinds)\.ts$|hooks\/(hook-types|hooks|signature)\.ts$)/,
    others: nothing,
  },
  'server/commands': { ours: /^(server\/(access\/|(config|setting-kinds)\.ts$)|stores\/)/, others: anything },
  'server/hooks': {
    ours: /^(server\/(protocol|uploads)\/|stores\/|server\/errors\.ts$)/,
    others: /^(node:|undici$)/,
  },
  'server/uploads': {
    ours: /^(server\/protocol\/messages|server\/errors|stores\/(contracts|ledger|meter|passing))\.ts$/,
    others: /^node:(?!http|net|fs)/,
  },
  'server/metrics': {
    ours: /^(server\/(errors|open-uploads)\.ts$|server\/(host\/request-facts|protocol\/upload-url)\.ts$|stores\/)/,
    others: anything,
  },
  'server/workers': {
    ours: /^(server\/(entry-options|config|open-uploads|place)\.ts$|server\/(host\/start-checks|metrics\/metrics)\.ts$|stores\/)/,
    others: anything,
  },
  'server/protocol': { ours: /^(server\/errors|stores\/contracts)\.ts$/, others: nothing },
  stores: { ours: nothing, others: notForStores },
  'stores/file': { ours: /^stores\/[^/]+$/, others: notForStores },
  'stores/local': { ours: /^stores\/[^/]+$/, others: notForStores },
  'stores/redis': { ours: /^stores\/[^/]+$/, others: notForStores },
  // Ids, @tus uploads and errors of the system are for every store what they are for the files.
  'stores/tus': { ours: /^stores\/([^/]+|file\/file-(layout|store|system)\.ts)$/, others: notForStores },
}

describe.each(Object.entries(rules))('%s', (room, { ours, others }) => {
  it('imports only what it may', async () => {
    const wrong: string[] = []
    const files = await filesOf(room)
    expect(files.length).toBeGreaterThan(0)
    for (const file of files) {
      for (const name of importsOf(await readFile(join(root, file), 'utf8'))) {
        const target = name.startsWith('.') ? relative(root, resolve(root, dirname(file), name)) : name
        const isAllowed = name.startsWith('.')
          ? dirname(target) === room || ours.test(target)
          : others.test(name)
        if (!isAllowed) wrong.push(`${file} imports ${target}`)
      }
    }
    expect(wrong).toEqual([])
  })
})

it('has a rule for every room', async () => {
  const rooms = await Promise.all(['server', 'stores'].map(foldersBelow))
  expect(rooms.flat().toSorted()).toEqual(Object.keys(rules).toSorted())
})

async function filesOf(room: string): Promise<string[]> {
  const names = await readdir(join(root, room))
  return names.filter((name) => name.endsWith('.ts')).map((name) => `${room}/${name}`)
}

/** Folders with modules in them. */
async function foldersBelow(folder: string): Promise<string[]> {
  const entries = await readdir(join(root, folder), { withFileTypes: true })
  const below = entries.filter((entry) => entry.isDirectory()).map((entry) => `${folder}/${entry.name}`)
  const own = entries.some((entry) => entry.name.endsWith('.ts')) ? [folder] : []
  return [...own, ...(await Promise.all(below.map(foldersBelow))).flat()]
}

function importsOf(source: string): string[] {
  const names = source.matchAll(/(?:^(?:import|export|\})[^'\n]*\bfrom |^import |\bimport\()'([^']+)'/gm)
  return [...names].map(([, name]) => name!)
}
