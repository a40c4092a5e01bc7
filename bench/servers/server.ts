/** What the benchmark knows of a server: how to start one in an empty folder, what it can do, and which processes it is. */
import { accessSync, constants } from 'node:fs'
import { connect } from 'node:net'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { type Child, startChild, stopChild, untilReady } from '../../test/support/child.ts'
import { treeOf } from '../usage.ts'

/** `tus` is creation, PATCH and HEAD; `one-writer`, that a newcomer takes over; the others are what their names say. */
export type Ability = 'tus' | 'one-writer' | 'creation-with-upload' | 'download' | 'put'

export interface Server {
  /** As in `--servers`. */
  readonly name: string
  readonly title: string
  readonly abilities: readonly Ability[]
  /** Its folder is then on a real disk, and what it writes is synced. */
  readonly onDisk?: boolean
  /** Why it can not be measured here; undefined when it can. */
  missing(): string | undefined
  /** Name and version, for the head of the report. */
  version(): string
  start(folder: string): Promise<RunningServer>
}

export interface RunningServer {
  readonly port: number
  readonly basePath: string
  /** The first process of each group; their children count with them. */
  readonly pids: { readonly server: number; readonly redis?: number }
  /** What it said so far; nothing, when all is well. */
  output(): string
  stop(): Promise<void>
}

const running = new Set<number>()

// Before the first processes are killed (by test/support/child.ts): theirs would stay, and nobody could find them.
process.prependListener('exit', () => {
  for (const pid of [...running].flatMap(treeOf)) kill(pid)
})

/** Starts a program with as many open files as this machine allows, and waits until its port accepts. */
export async function startProgram(
  command: string,
  args: readonly string[],
  { port, name }: { port: number; name: string },
): Promise<Child> {
  const raise = 'ulimit -n $(ulimit -Hn) && exec "$0" "$@"'
  const child = startChild('/bin/sh', ['-c', raise, command, ...args], { env: plainEnvironment() })
  running.add(child.pid)
  void child.exited.then(() => running.delete(child.pid))
  await untilReady(child, () => accepts(port), { name: `${name} on port ${port}`, withinMs: 30_000 })
  return child
}

export async function stopProgram(child: Child): Promise<void> {
  await stopChild(child, 15_000)
}

/** Along PATH, in the folders for servers that are on root's PATH only, and where Go installs programs. */
export function findOnPath(command: string): string | undefined {
  const more = ['/usr/sbin', '/usr/local/sbin', '/usr/local/bin', join(homedir(), 'go', 'bin')]
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...more]
  return folders
    .filter(Boolean)
    .map((folder) => join(folder, command))
    .find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

/** Nothing of the caller's settings may reach what is measured. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const isSetting = (name: string) => name.startsWith('TIDEMARK_') || name.startsWith('NODE_')
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !isSetting(name)))
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}
