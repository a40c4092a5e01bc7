// Runs before `npm start`, `npm test` and `npm run check`: afterwards the dependencies are installed, dist/ is built
// from the present sources, and for the tests the programs they drive are there. On a fresh clone it does everything,
// the second time nothing. It needs Node and npm alone: nothing from node_modules may be imported here or below.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { buildPage, buildServer, buildState, root } from './build.mjs'
import { installationHash, nodeIsNewEnough, planSteps } from './decide.mjs'
import { withLockFile } from './lock-file.mjs'
import { runQuietly } from './run.mjs'
import { ensureTestPrograms, planTestPrograms } from './test-programs.mjs'

/** Inside node_modules, which `npm ci` removes first: an installation that was cut short leaves no stamp. */
const installStamp = join(root, 'node_modules/.tidemark-installed')

/** @param {string | undefined} goal */
export async function prepare(goal) {
  if (goal !== 'start' && goal !== 'test' && goal !== 'build') {
    throw new Error('Say what to prepare: node scripts/prepare.mjs start|test|build')
  }
  refuseUnfitMachine()
  const forTests = goal === 'test'
  const programs = forTests ? planTestPrograms() : null
  if (programs?.is === 'refuse') throw new Error(programs.reason)
  // Looked at without the lock first: where nothing is to do, a read-only checkout will do as well.
  if (steps().length === 0 && programs?.is !== 'install') return

  const work = async () => {
    if (forTests) await ensureTestPrograms()
    const perform = { install, 'build-server': buildServer, 'build-page': buildPage }
    for (const step of steps()) await perform[step]()
  }
  const onWait = (/** @type {number | null} */ pid) =>
    process.stderr.write(`tidemark: Waiting for process ${pid ?? '?'}, which is preparing this folder ...\n`)
  await withLockFile(join(root, '.cache/prepare.lock'), work, { onWait })
}

function refuseUnfitMachine() {
  const { engines } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  if (!nodeIsNewEnough(process.versions.node, engines.node)) {
    throw new Error(`Node ${engines.node} is needed; this is ${process.versions.node}.`)
  }
  if (process.platform === 'win32') {
    throw new Error('Tidemark runs on Linux and macOS. On Windows, run it in WSL or Docker.')
  }
}

function steps() {
  return planSteps({
    installed: { stamp: readOrNull(installStamp), wanted: wantedInstallation() },
    server: buildState('server'),
    page: existsSync(join(root, 'web')) ? buildState('page') : null,
  })
}

async function install() {
  // --include=dev: with NODE_ENV=production npm would leave out the compiler and vite.
  const args = ['ci', '--include=dev', '--loglevel=error', '--no-fund', '--no-audit']
  const wanted = wantedInstallation()
  const [command, ...before] = npmCommand()
  await runQuietly('Installing dependencies (npm ci)', command, [...before, ...args], { cwd: root })
  writeFileSync(installStamp, wanted)
}

/**
 * The npm that called us, run by the Node that runs us: neither has to be on PATH.
 *
 * @returns {[string, ...string[]]}
 */
function npmCommand() {
  const caller = process.env.npm_execpath
  return caller && basename(caller) === 'npm-cli.js' ? [process.execPath, caller] : ['npm']
}

function wantedInstallation() {
  const { platform, arch, versions } = process
  return installationHash(readFileSync(join(root, 'package-lock.json')), {
    abi: versions.modules,
    platform,
    arch,
  })
}

/** @param {string} path */
function readOrNull(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : null
}
