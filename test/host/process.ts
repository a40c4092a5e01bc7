/** Tidemark as a process of its own, and plain sockets to talk to servers with. */
import { spawn } from 'node:child_process'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach } from 'vitest'
import { makeFolder } from '../support/folder.ts'

const main = fileURLToPath(new URL('../../server/main.ts', import.meta.url))

/** A server that never says that it is closed. */
export const neverEnds = {
  nodeArgs: [
    '--import',
    'data:text/javascript,import { Server } from "node:http"; Server.prototype.close = function () { return this }',
  ],
}

/** For the tests of one file: each has a folder, and its processes end with it. `always` is said to all of them. */
export function processes(always: readonly string[] = []) {
  let own: Awaited<ReturnType<typeof makeFolder>>
  let started: ReturnType<typeof startProcess>[]
  beforeEach(async () => {
    own = await makeFolder()
    started = []
  })
  afterEach(async () => {
    await Promise.all(started.map((one) => one.stop()))
    await own.remove()
  })

  function endsWithTest(one: ReturnType<typeof startProcess>) {
    started.push(one)
    return one
  }
  function startBare(args: readonly string[], options?: { nodeArgs: readonly string[] }) {
    return endsWithTest(startProcess([...always, ...args], options))
  }
  /** On a free port, and with the folder of the test. */
  function start(args: readonly string[] = [], options?: { nodeArgs: readonly string[] }) {
    return startBare(['--host=127.0.0.1', '--port=0', `--upload-dir=${own.path}/data`, ...args], options)
  }
  const folder = {
    get path() {
      return own.path
    },
  }
  return { folder, start, startBare, endsWithTest }
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

/** An upload of which the first bytes were sent, and no more come. */
export async function slowUpload(port: number) {
  const created = await fetch(`http://127.0.0.1:${port}/files/`, {
    method: 'POST',
    headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '1000', Connection: 'close' },
  })
  const pathname = created.headers.get('location')!
  const upload = await rawConnection(port)
  upload.send(
    `PATCH ${pathname} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Length: 1000\r\n` +
      'Content-Type: application/offset+octet-stream\r\nExpect: 100-continue\r\n\r\n',
  )
  await upload.until('100 Continue')
  upload.send('first bytes')
  return upload
}
