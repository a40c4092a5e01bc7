/**
 * Says which process wrote something, so that another one can later prove that it is gone.
 *
 * The one idea: a pid alone proves nothing, because pids are used again and every container has a pid 1. Boot,
 * pid namespace, pid and start time together name one process; only inside the same boot and the same namespace can
 * its absence be seen at all. Whatever cannot be seen counts as alive.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'

export interface ProcessIdentity {
  /** The kernel's boot id; `@` and the host name where the system has none. */
  readonly bootId: string
  /** Inode of the pid namespace; `0` where the system has none. */
  readonly pidNamespace: string
  readonly pid: number
  /** Clock ticks from boot to the start of the process; `0` when it cannot be known. */
  readonly startTime: string
}

let own: ProcessIdentity | undefined

/** The identity of this process; read once. */
export function ownIdentity(): ProcessIdentity {
  own ??= readOwnIdentity()
  return own
}

/**
 * True only when the process cannot run any instruction again: same boot, same pid namespace, and its pid is gone,
 * was given to another process, or is a zombie without threads. A stopped (SIGSTOP) process is alive.
 */
export function isProvablyDead(identity: ProcessIdentity): boolean {
  const me = ownIdentity()
  if (!canSee(identity)) return false
  if (identity.pid === me.pid) return identity.startTime !== me.startTime && isKnown(identity, me)

  if (!pidExists(identity.pid)) return true
  const now = me.startTime === '0' ? undefined : readStat(identity.pid)
  // /proc may hide other users' processes (hidepid), or the process ended in between: nothing is proved.
  if (now === undefined) return false
  if (identity.startTime !== '0' && now.startTime !== identity.startTime) return true
  return isLifeless(identity.pid, now.state)
}

/** Whether the end of this process could be seen from here: same boot, same pid namespace. */
export function canSee(identity: ProcessIdentity): boolean {
  const me = ownIdentity()
  return identity.bootId === me.bootId && identity.pidNamespace === me.pidNamespace
}

/** The identity as one line of at most 120 ASCII characters without spaces. */
export function encodeIdentity(identity: ProcessIdentity): string {
  return [identity.bootId, identity.pidNamespace, identity.pid, identity.startTime].join('/')
}

/** Undefined when `text` is not what `encodeIdentity` wrote. */
export function decodeIdentity(text: string): ProcessIdentity | undefined {
  const parts = /^([\w@.-]{1,64})\/(\d{1,20})\/([1-9]\d{0,9})\/(\d{1,20})$/.exec(text)
  if (parts === null) return undefined
  return { bootId: parts[1]!, pidNamespace: parts[2]!, pid: Number(parts[3]), startTime: parts[4]! }
}

function readOwnIdentity(): ProcessIdentity {
  const { pid } = process
  try {
    // A /proc of another pid namespace (mounted from the host) numbers processes differently: no use.
    if (readlinkSync('/proc/self') !== String(pid)) throw new Error('a foreign /proc')
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
    const pidNamespace = /^pid:\[(\d+)\]$/.exec(readlinkSync('/proc/self/ns/pid'))?.[1]
    const startTime = readStat(pid)?.startTime
    if (!/^[\w-]{1,64}$/.test(bootId) || pidNamespace === undefined || startTime === undefined) {
      throw new Error('an unusual /proc')
    }
    return { bootId, pidNamespace, pid, startTime }
  } catch {
    const host = hostname()
      .replace(/[^\w.-]/g, '-')
      .slice(0, 63)
    return { bootId: `@${host}`, pidNamespace: '0', pid, startTime: '0' }
  }
}

/** State and start time out of /proc/<pid>/stat; the name in parentheses may hold anything, also `)`. */
function readStat(pid: number): { state: string; startTime: string } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const state = fields[0]
    const startTime = fields[19]
    if (state === undefined || startTime === undefined || !/^\d+$/.test(startTime)) return undefined
    return { state, startTime }
  } catch {
    return undefined
  }
}

function pidExists(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

/** A killed process whose parent has not asked for it yet. While one of its threads still ends, a write may return late. */
function isLifeless(pid: number, state: string): boolean {
  if (state !== 'Z' && state !== 'X') return false
  try {
    return readdirSync(`/proc/${pid}/task`).length <= 1
  } catch {
    return false
  }
}

function isKnown(a: ProcessIdentity, b: ProcessIdentity): boolean {
  return a.startTime !== '0' && b.startTime !== '0'
}
