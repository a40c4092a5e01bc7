// One prepare at a time in one checkout. The lock is a file that names its holder; the lock of a holder that is gone,
// killed or lost with its machine, is taken over by the next one and never has to be removed by hand.

import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const retryMs = 100
/** Taking over is a handful of system calls; a take-over note older than this was left by a process that died in it. */
const takeOverLimitMs = 5_000

/**
 * @typedef {{ pid: number, startedAt: string | null }} Holder  startedAt tells a process from a later one of the same pid
 */

/**
 * Runs `work` while nobody else holds the lock at `path`.
 *
 * @template T
 * @param {string} path
 * @param {() => Promise<T>} work
 * @param {{ onWait?: (pid: number | null) => void }} [options] called once when the lock is busy
 * @returns {Promise<T>}
 */
export async function withLockFile(path, work, { onWait } = {}) {
  mkdirSync(dirname(path), { recursive: true })
  for (let attempt = 0; !tryAcquire(path); attempt++) {
    if (attempt === 0) onWait?.(readHolder(path)?.pid ?? null)
    await sleep(retryMs)
  }
  const release = () => rmSync(path, { force: true })
  process.once('exit', release)
  try {
    return await work()
  } finally {
    process.off('exit', release)
    release()
  }
}

/** @param {string} path */
function tryAcquire(path) {
  if (createExclusively(path)) return true
  return isStale(path) && takeOver(path)
}

/**
 * Two that see the same dead holder must not both remove its lock: the second would remove the first one's new lock.
 * So the removal has a lock of its own, and looks again once it has it.
 *
 * @param {string} path
 */
function takeOver(path) {
  const note = `${path}.takeover`
  if (!createExclusively(note)) {
    if (ageMs(note) > takeOverLimitMs) rmSync(note, { force: true })
    return false
  }
  try {
    if (isStale(path)) rmSync(path, { force: true })
    return createExclusively(path)
  } finally {
    rmSync(note, { force: true })
  }
}

/** @param {string} path */
function createExclusively(path) {
  try {
    writeFileSync(path, JSON.stringify({ pid: process.pid, startedAt: startOf(process.pid) }), { flag: 'wx' })
    return true
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === 'EEXIST') return false
    throw error
  }
}

/** @param {string} path */
function isStale(path) {
  const holder = readHolder(path)
  // Without a holder the file is between its creation and its content, unless that has lasted.
  return holder ? !isAlive(holder) : ageMs(path) > takeOverLimitMs
}

/**
 * @param {Holder} holder
 */
function isAlive({ pid, startedAt }) {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === 'EPERM'
  }
  return startedAt === null || startOf(pid) === startedAt
}

/**
 * The start time of a process in ticks since boot, where the system tells it (/proc, Linux).
 *
 * @param {number} pid
 */
function startOf(pid) {
  try {
    // The name in parentheses may hold spaces; the fields after it are counted from 3, the start time is number 22.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null
  } catch {
    return null
  }
}

/**
 * @param {string} path
 * @returns {Holder | null}
 */
function readHolder(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return null
  }
}

/** @param {string} path */
function ageMs(path) {
  try {
    return Date.now() - statSync(path).mtimeMs
  } catch {
    return 0
  }
}
