/** Tidemark as a process of its own, and plain sockets to talk to servers with. */
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../../server/main.ts', import.meta.url))

export async function ownFolder(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'tidemark-host-'))
  return { path, remove: () => rm(path, { recursive: true, force: true }) }
}

export function startProcess(args: readonly string[], { nodeArgs = [] as readonly string[] } = {}) {
  const child = spawn(process.execPath, ['--import', 'tsx', ...nodeArgs, main, ...args], {
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const said = { stdout: '', stderr: '' }
  const onData = new Set<() => void>()
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      said[name] += text
      for (const listener of onData) listener()
    })
  }
  const exited = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    child.once('close', (code) => resolve({ code, ...said }))
  })
  const lines = () =>
    said.stdout
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)

  /** The first log line that is wanted, now or later. */
  async function line(wanted: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = lines().find(wanted)
        if (found) resolve(found)
      }
      onData.add(look)
      look()
      exited.then((end) => reject(new Error(`ended before the line came: ${JSON.stringify(end)}`)))
    })
  }

  return {
    exited,
    pid: child.pid!,
    line,
    signal: (name: NodeJS.Signals) => child.kill(name),
    /** The port, once it listens. */
    port: async () => Number((await line((l) => String(l.msg).startsWith('Tidemark listens'))).port),
    stop: async () => {
      child.kill('SIGKILL')
      await exited
    },
  }
}

/** A plain connection; what the other end says is kept as text. */
export async function rawConnection(port: number) {
  const socket = connect(port, '127.0.0.1')
  let received = ''
  const onData = new Set<() => void>()
  socket.setEncoding('utf8').on('data', (text: string) => {
    received += text
    for (const listener of onData) listener()
  })
  socket.on('error', () => {})
  const closed = new Promise<string>((resolve) => socket.once('close', () => resolve(received)))
  await new Promise((resolve) => socket.once('connect', resolve))
  return {
    socket,
    closed,
    send: (text: string) => socket.write(text),
    /** All that came so far, once it contains `text`. */
    until: (text: string) =>
      new Promise<string>((resolve, reject) => {
        const look = () => received.includes(text) && resolve(received)
        onData.add(look)
        look()
        closed.then(() => reject(new Error(`closed before ${JSON.stringify(text)} came: ${received}`)))
      }),
  }
}
