/** What processes used, as Linux counts it in /proc: processor time, memory, open files. Children count with their parent. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

/** USER_HZ, which is 100 on every usual Linux whatever its kernel's own clock is. */
const ticksPerSecond = 100

/** The process and everything below it; those that ended meanwhile are left out. */
export function treeOf(pid: number): number[] {
  const children = read(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean).map(Number)
  return [pid, ...children.flatMap(treeOf)]
}

/** Not ended; one that waits to be asked how it ended is not alive. */
export function isAlive(pid: number): boolean {
  const state = read(`/proc/${pid}/stat`).split(') ').at(-1)!.split(' ')[0]!
  return state !== '' && state !== 'Z' && state !== 'X'
}

export function cpuSecondsOf(pids: readonly number[]): number {
  return sum(pids, (pid) => {
    // The name of the program stands in brackets and may have anything in it.
    const fields = read(`/proc/${pid}/stat`).split(') ').at(-1)!.split(' ')
    return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / ticksPerSecond
  })
}

/** Pages that processes share are counted in each of them. */
export function memoryOf(pids: readonly number[], field: 'VmRSS' | 'VmHWM'): number {
  const line = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm')
  return sum(pids, (pid) => Number(read(`/proc/${pid}/status`).match(line)?.[1] ?? 0) * 1024)
}

/** From now on VmHWM is the most since now. False where the system does not let us; then it is the most ever. */
export function forgetPeaks(pids: readonly number[]): boolean {
  try {
    for (const pid of pids) writeFileSync(`/proc/${pid}/clear_refs`, '5')
    return true
  } catch {
    return false
  }
}

export function openFilesOf(pid: number | 'self'): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

export function openFilesLimitOf(pid: number | 'self'): number {
  return Number(read(`/proc/${pid}/limits`).match(/^Max open files\s+(\d+)/m)?.[1] ?? 1024)
}

function sum(pids: readonly number[], of: (pid: number) => number): number {
  return pids.reduce((total, pid) => total + of(pid), 0)
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
