// Makes dist/ from the sources: the server by the TypeScript compiler with the Lua scripts beside it, the page by vite.
// Which content each part was made from is kept in dist/ itself, so that removing dist/ forgets it too.

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { contentHash } from './decide.mjs'
import { runQuietly } from './run.mjs'

export const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')

const stampFile = join(root, 'dist/.build.json')
const luaFolder = 'stores/redis/lua'

/** Tools and their settings are sources like any other: a new compiler or flag makes a new build. */
const commonSources = ['package-lock.json', 'scripts/build.mjs']
const parts = {
  server: {
    sources: ['server', 'stores', 'tsconfig.json', 'tsconfig.build.json', ...commonSources],
    outcome: 'dist/server/main.js',
  },
  page: { sources: ['web', ...commonSources], outcome: 'dist/web/index.html' },
}

/** @typedef {keyof typeof parts} Part */

/**
 * @param {Part} part
 * @returns {{ stamp: string | null, wanted: string, isThere: boolean }}
 */
export function buildState(part) {
  const { sources, outcome } = parts[part]
  return {
    stamp: readStamps()[part] ?? null,
    wanted: contentHash(root, sources),
    isThere: existsSync(join(root, outcome)),
  }
}

export async function buildServer() {
  await build('server', async () => {
    for (const folder of ['dist/server', 'dist/stores'])
      rmSync(join(root, folder), { recursive: true, force: true })
    await runTool('Building the server', 'typescript/bin/tsc', ['-p', 'tsconfig.build.json'])
    if (!existsSync(join(root, luaFolder))) return
    cpSync(join(root, luaFolder), join(root, 'dist', luaFolder), { recursive: true })
  })
}

export async function buildPage() {
  const vite = ['build', '--config', 'web/vite.config.ts', '--logLevel', 'warn']
  await build('page', () => runTool('Building the page', 'vite/bin/vite.js', vite))
}

/**
 * The stamp goes before the work and comes back after it: a build that was killed half way is made again.
 *
 * @param {Part} part
 * @param {() => Promise<void>} work
 */
async function build(part, work) {
  const { wanted } = buildState(part)
  writeStamps({ ...readStamps(), [part]: undefined })
  await work()
  writeStamps({ ...readStamps(), [part]: wanted })
}

/**
 * @param {string} title
 * @param {string} tool the tool's file inside node_modules
 * @param {string[]} args
 */
function runTool(title, tool, args) {
  return runQuietly(title, process.execPath, [join(root, 'node_modules', tool), ...args], { cwd: root })
}

/** @returns {Partial<Record<Part, string>>} */
function readStamps() {
  try {
    return JSON.parse(readFileSync(stampFile, 'utf8'))
  } catch {
    return {}
  }
}

/** @param {Partial<Record<Part, string | undefined>>} stamps */
function writeStamps(stamps) {
  mkdirSync(join(root, 'dist'), { recursive: true })
  writeFileSync(stampFile, `${JSON.stringify(stamps)}\n`)
}
