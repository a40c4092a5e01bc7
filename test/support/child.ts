// A child process that a test started: what it said, how it ended, and the promise that it does not outlive the run.
// Readiness is an event of the child or an answer of its socket; a child that ends before it is ready is an error that
// shows what it said.

import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

export type Exit = { code: number | null; signal: NodeJS.Signals | null }

export type Child = {
  pid: number
  exited: Promise<Exit>
  hasExited: () => boolean
  /** Everything from stdout and stderr so far, in the order of arrival. */
  output: () => string
  stdout: () => string
  kill: (signal: NodeJS.Signals) => void
  /** Over the channel of one that was started with `hear`. */
  say: (message: unknown) => void
}

const running = new Set<ChildProcess>()

// Where the test process itself is ended early, its children must not stay behind and hold ports and folders.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export function startChild(
  command: string,
  args: string[],
  options: {
    env?: NodeJS.ProcessEnv
    cwd?: string
    uid?: number
    gid?: number
    /** What a program of Node says to its parent. */
    hear?: (message: unknown) => void
  } = {},
): Child {
  const { hear, ...rest } = options
  const child = spawn(command, args, { ...rest, stdio: ['ignore', 'pipe', 'pipe', hear ? 'ipc' : 'ignore'] })
  running.add(child)
  if (hear) child.on('message', hear)
  let output = ''
  let stdout = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    output += text
    stdout += text
  })
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })

  let ended = false
  const exited = new Promise<Exit>((resolve) => {
    const settle = (exit: Exit) => {
      ended = true
      running.delete(child)
      resolve(exit)
    }
    child.once('close', (code, signal) => settle({ code, signal }))
    child.once('error', (error) => {
      output += `${error.message}\n`
      if (child.pid === undefined) settle({ code: null, signal: null })
    })
  })
  return {
    pid: child.pid ?? 0,
    exited,
    hasExited: () => ended,
    output: () => output,
    stdout: () => stdout,
    kill: (signal) => void child.kill(signal),
    say: (message) => void child.send(message as never, () => {}),
  }
}

/** Asks `isReady` again and again until it says yes, or the child has ended, or the time is up. */
export async function untilReady(
  child: Child,
  isReady: () => Promise<boolean>,
  { name, withinMs }: { name: string; withinMs: number },
): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!(await isReady())) {
    if (child.hasExited()) throw new Error(`${name} ended before it was ready:\n${child.output()}`)
    if (performance.now() > deadline) {
      child.kill('SIGKILL')
      throw new Error(`${name} was not ready within ${withinMs} ms:\n${child.output()}`)
    }
    await sleep(20)
  }
}

/** Asks politely, then makes sure. */
export async function stopChild(child: Child, graceMs = 5_000): Promise<Exit> {
  if (!child.hasExited()) child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
  const exit = await child.exited
  clearTimeout(timer)
  return exit
}

/** The processes that a process started, and that have not ended (Linux). */
export function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

/** Whether it still runs; one that ended and was not asked for yet does not. */
export function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  } catch {
    return false
  }
}
