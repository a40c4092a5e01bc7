// What has to be done before `npm start` or `npm test` can run, decided from hashes alone. Times of files say nothing
// after a clone, a checkout or a copy; what was made from the same content with the same tools is not made again.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * What is on disk now and what it should have been made from. A missing stamp means: not there, or never finished.
 *
 * @typedef {{
 *   installed: { stamp: string | null, wanted: string },
 *   server: { stamp: string | null, wanted: string, isThere: boolean },
 *   page: { stamp: string | null, wanted: string, isThere: boolean } | null,
 * }} State
 *
 * @typedef {'install' | 'build-server' | 'build-page'} Step
 */

/**
 * @param {State} state `page: null` when the tree has no page to build
 * @returns {Step[]} in the order in which they must run
 */
export function planSteps({ installed, server, page }) {
  /** @type {Step[]} */
  const steps = []
  if (installed.stamp !== installed.wanted) steps.push('install')
  if (!server.isThere || server.stamp !== server.wanted) steps.push('build-server')
  if (page && (!page.isThere || page.stamp !== page.wanted)) steps.push('build-page')
  return steps
}

/**
 * The installation is right for one lock file and one kind of Node: native packages are chosen by the rest.
 *
 * @param {Buffer | string} lockFile
 * @param {{ abi: string, platform: string, arch: string }} node
 */
export function installationHash(lockFile, node) {
  return createHash('sha256')
    .update(`${node.abi} ${node.platform} ${node.arch}\n`)
    .update(lockFile)
    .digest('hex')
}

/**
 * One hash over names and contents. A path that is not there counts as such, so that it matters when it appears.
 *
 * @param {string} root
 * @param {string[]} paths files or folders, relative to root
 */
export function contentHash(root, paths) {
  const hash = createHash('sha256')
  for (const path of paths.flatMap((path) => listFiles(root, path)).sort()) {
    const content = readOrNull(join(root, path))
    hash.update(`${path}\0${content?.length ?? 'none'}\0`)
    if (content) hash.update(content)
  }
  return hash.digest('hex')
}

/**
 * @param {string} version such as 20.19.0
 * @param {string} range the one form that package.json uses: `>=20.19`
 */
export function nodeIsNewEnough(version, range) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [wantedMajor = 0, wantedMinor = 0] = range
    .replace(/^>=\s*/, '')
    .split('.')
    .map(Number)
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
}

/**
 * @param {string} root
 * @param {string} path
 * @returns {string[]}
 */
function listFiles(root, path) {
  try {
    return readdirSync(join(root, path), { withFileTypes: true })
      .filter((entry) => entry.name !== 'node_modules')
      .flatMap((entry) => {
        const inside = `${path}/${entry.name}`
        return entry.isDirectory() ? listFiles(root, inside) : [inside]
      })
  } catch {
    return [path]
  }
}

/** @param {string} path */
function readOrNull(path) {
  try {
    return readFileSync(path)
  } catch {
    return null
  }
}
