// The programs that the tests drive and npm cannot bring: a Redis server, Chromium, nginx, curl, wget, HTTPie, openssl,
// faketime and a tus client in Python. One table says how each is named, found and installed; `npm test`
// (scripts/prepare.mjs) and the tests themselves (test/support) both ask it, so that what was checked before the run is
// what the run uses. Nothing is ever skipped because a program is missing.

import { spawnSync } from 'node:child_process'
import { accessSync, constants, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { runQuietly } from './run.mjs'

/**
 * @typedef {'redis' | 'chromium' | 'nginx' | 'curl' | 'wget' | 'httpie' | 'openssl' | 'faketime' | 'tuspy'} ProgramName
 *
 * `proof`: arguments with which the right program ends well; for commands that alone say nothing.
 * @typedef {{ commands: string[], variable: string, debianPackage: string, ubuntuPackage: string | null, proof?: string[] }} Program
 *
 * @typedef {{ is: 'found', path: string }
 *   | { is: 'missing' }
 *   | { is: 'misnamed', variable: string, path: string }} Search
 *
 * @typedef {{ is: 'nothing-to-do' }
 *   | { is: 'install', packages: string[] }
 *   | { is: 'refuse', reason: string }} Plan
 *
 * @typedef {{ system: 'debian' | 'ubuntu' | 'other', isRoot: boolean }} Machine
 */

/** @type {Record<ProgramName, Program>} */
const programs = {
  redis: {
    commands: ['redis-server'],
    variable: 'TIDEMARK_TEST_REDIS_SERVER',
    debianPackage: 'redis-server',
    ubuntuPackage: 'redis-server',
  },
  chromium: {
    commands: ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'],
    variable: 'TIDEMARK_TEST_CHROMIUM',
    debianPackage: 'chromium',
    // Ubuntu's packages of that name only fetch a snap, which does not run in a container.
    ubuntuPackage: null,
  },
  nginx: {
    commands: ['nginx'],
    variable: 'TIDEMARK_TEST_NGINX',
    debianPackage: 'nginx-light',
    ubuntuPackage: 'nginx-light',
  },
  curl: {
    commands: ['curl'],
    variable: 'TIDEMARK_TEST_CURL',
    debianPackage: 'curl',
    ubuntuPackage: 'curl',
  },
  wget: {
    commands: ['wget'],
    variable: 'TIDEMARK_TEST_WGET',
    debianPackage: 'wget',
    ubuntuPackage: 'wget',
  },
  httpie: {
    commands: ['http'],
    variable: 'TIDEMARK_TEST_HTTPIE',
    debianPackage: 'httpie',
    ubuntuPackage: 'httpie',
  },
  // Gives a process a clock of its own.
  faketime: {
    commands: ['faketime'],
    variable: 'TIDEMARK_TEST_FAKETIME',
    debianPackage: 'faketime',
    ubuntuPackage: 'faketime',
  },
  openssl: {
    commands: ['openssl'],
    variable: 'TIDEMARK_TEST_OPENSSL',
    debianPackage: 'openssl',
    ubuntuPackage: 'openssl',
  },
  // A Python that has the library; the first python3 on PATH need not be the one that packages install for.
  tuspy: {
    commands: ['python3'],
    variable: 'TIDEMARK_TEST_TUSPY',
    debianPackage: 'python3-tuspy',
    ubuntuPackage: 'python3-tuspy',
    proof: ['-c', 'import tusclient'],
  },
}

const programNames = /** @type {ProgramName[]} */ (Object.keys(programs))

/**
 * The path of a program that is known to be there, for the tests.
 *
 * @param {ProgramName} name
 */
export function programPath(name) {
  const search = findProgram(name)
  if (search.is === 'found') return search.path
  throw new Error(explain(/** @type {Partial<Record<ProgramName, Search>>} */ ({ [name]: search })))
}

/**
 * Looks where the variable points, else along PATH and in the folders for servers that are on root's PATH only.
 *
 * @param {ProgramName} name
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {Search}
 */
export function findProgram(name, env = process.env) {
  const { commands, variable, proof } = programs[name]
  const named = env[variable]
  if (named) {
    return isExecutable(named) ? { is: 'found', path: named } : { is: 'misnamed', variable, path: named }
  }
  const more = ['/usr/bin', '/usr/local/sbin', '/usr/sbin', '/opt/homebrew/bin']
  const folders = [...(env.PATH ?? '').split(delimiter), ...more]
  const candidates = commands.flatMap((command) =>
    folders.filter(Boolean).map((folder) => join(folder, command)),
  )
  if (name === 'chromium') candidates.push(...browsersOfPlaywright())
  const path = candidates.find((path) => isExecutable(path) && (!proof || endsWell(path, proof)))
  return path ? { is: 'found', path } : { is: 'missing' }
}

/** Finds all of them, installs what can be installed, and throws with one clear sentence where that is not possible. */
export async function ensureTestPrograms() {
  const plan = planTestPrograms()
  if (plan.is === 'nothing-to-do') return
  if (plan.is === 'refuse') throw new Error(plan.reason)
  await installDebianPackages(plan.packages)
  const after = searchAll()
  if (planInstallation(after, { system: 'other', isRoot: false }).is !== 'nothing-to-do') {
    throw new Error(explain(after))
  }
}

/** What `ensureTestPrograms` would do on this machine now. */
export function planTestPrograms() {
  return planInstallation(searchAll(), readMachine())
}

/**
 * A variable that points nowhere is an answer to correct, not a gap to fill; and a package is installed only when
 * that completes the set.
 *
 * @param {Partial<Record<ProgramName, Search>>} found
 * @param {Machine} machine
 * @returns {Plan}
 */
export function planInstallation(found, machine) {
  const open = programNames.filter((name) => found[name] && found[name].is !== 'found')
  if (open.length === 0) return { is: 'nothing-to-do' }
  const packages = open.map((name) =>
    found[name]?.is === 'missing' ? packageOf(name, machine.system) : null,
  )
  if (!machine.isRoot || packages.includes(null)) return { is: 'refuse', reason: explain(found) }
  return { is: 'install', packages: packages.filter((name) => name !== null) }
}

/**
 * @param {ProgramName} name
 * @param {Machine['system']} system
 */
function packageOf(name, system) {
  if (system === 'debian') return programs[name].debianPackage
  if (system === 'ubuntu') return programs[name].ubuntuPackage
  return null
}

/**
 * @param {Partial<Record<ProgramName, Search>>} found
 * @returns {string}
 */
export function explain(found) {
  const sentences = []
  /** @type {ProgramName[]} */
  const missing = []
  for (const name of programNames) {
    const search = found[name]
    if (search?.is === 'misnamed')
      sentences.push(`${search.variable} names ${search.path}, which is no program.`)
    if (search?.is === 'missing') missing.push(name)
  }
  if (missing.length > 0) {
    const packages = missing.map((name) => programs[name].debianPackage).join(' ')
    const variables = missing.map((name) => programs[name].variable).join(', ')
    sentences.push(
      `The tests need ${missing.join(', ')}: install the Debian packages ${packages}, or name existing programs by ${variables}.`,
    )
    if (missing.includes('chromium')) {
      sentences.push('Where Chromium has no package: npx playwright-core install --with-deps chromium')
    }
  }
  return sentences.join(' ')
}

/** @returns {Record<ProgramName, Search>} */
function searchAll() {
  return {
    redis: findProgram('redis'),
    chromium: findProgram('chromium'),
    nginx: findProgram('nginx'),
    curl: findProgram('curl'),
    wget: findProgram('wget'),
    httpie: findProgram('httpie'),
    faketime: findProgram('faketime'),
    openssl: findProgram('openssl'),
    tuspy: findProgram('tuspy'),
  }
}

/** @returns {Machine} */
function readMachine() {
  return { system: systemOf(readIfThere('/etc/os-release')), isRoot: process.getuid?.() === 0 }
}

/**
 * @param {string} osRelease the text of /etc/os-release
 * @returns {Machine['system']}
 */
export function systemOf(osRelease) {
  const value = (/** @type {string} */ key) => osRelease.match(new RegExp(`^${key}="?([^"\n]*)"?$`, 'm'))?.[1]
  const names = [value('ID'), ...(value('ID_LIKE') ?? '').split(' ')]
  if (names.includes('ubuntu')) return 'ubuntu'
  return names.includes('debian') ? 'debian' : 'other'
}

/** @param {string[]} packages */
async function installDebianPackages(packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const apt = ['-y', '-o', 'DPkg::Lock::Timeout=300']
  const allowServices = forbidServices()
  try {
    await runQuietly('Reading the package lists (apt-get update)', 'apt-get', ['update', ...apt], { env })
    const install = ['install', '--no-install-recommends', ...apt, ...packages]
    await runQuietly(`Installing ${packages.join(', ')} (apt-get install)`, 'apt-get', install, { env })
  } finally {
    allowServices()
  }
}

/**
 * The packages of redis-server and nginx start a server on its usual port. The tests use their own; somebody's machine
 * must not get a listening server from `npm test`. A policy that is already there is the owner's and stays.
 *
 * @returns {() => void} takes the policy away again
 */
function forbidServices() {
  const policyFile = '/usr/sbin/policy-rc.d'
  const policy = '#!/bin/sh\n# For the time of an installation by the tests of Tidemark.\nexit 101\n'
  const present = readIfThere(policyFile)
  if (present !== '' && present !== policy) return () => {}
  writeFileSync(policyFile, policy, { mode: 0o755 })
  const remove = () => rmSync(policyFile, { force: true })
  process.once('exit', remove)
  return () => {
    process.off('exit', remove)
    remove()
  }
}

/** Browsers that `npx playwright-core install chromium` has put into the user's cache, the newest first. */
function browsersOfPlaywright() {
  const cache = process.env.PLAYWRIGHT_BROWSERS_PATH ?? join(homedir(), '.cache', 'ms-playwright')
  const revision = (/** @type {string} */ folder) => Number(folder.slice('chromium-'.length))
  return listIfThere(cache)
    .filter((folder) => /^chromium-\d+$/.test(folder))
    .sort((a, b) => revision(b) - revision(a))
    .flatMap((folder) => [
      join(cache, folder, 'chrome-linux', 'chrome'),
      join(cache, folder, 'chrome-linux64', 'chrome'),
    ])
}

/** @param {string} path */
function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/**
 * @param {string} path
 * @param {string[]} args
 */
function endsWell(path, args) {
  return spawnSync(path, args, { stdio: 'ignore', timeout: 20_000 }).status === 0
}

/** @param {string} path */
function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** @param {string} folder */
function listIfThere(folder) {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
