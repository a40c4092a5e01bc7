// A real Redis server of a test's own: on a free loopback port, in its own folder, forgetting everything when it ends
// unless told to persist. It can be killed, frozen by its pid and started again on the same port, as machines do it.

import { connect } from 'node:net'
import { type Child, type Exit, startChild, stopChild, untilReady } from './child.ts'
import { makeFolder } from './folder.ts'
import { freePort } from './free-port.ts'

export type RedisOptions = {
  /** Keep an append-only file in this folder, synced at every write, and start from what it holds. */
  persistIn?: string
  port?: number
  /** Further settings, as on the command line: `['--maxmemory', '10mb']`. */
  args?: string[]
}

export type RedisServer = {
  url: string
  port: number
  /** Of the process that runs now; another one after a restart. */
  readonly pid: number
  /** Sends one command on a connection of its own, and returns Redis's reply in its wire form (`+OK`, `:1`, ...). */
  command: (...words: string[]) => Promise<string>
  /** SIGKILL, as a crash does it. Resolves when the process is gone. */
  kill: () => Promise<Exit>
  /** Ends the process if it still runs, and starts another on the same port. */
  restart: () => Promise<void>
  /** For good: the folder is removed too (a folder given by `persistIn` stays). */
  stop: () => Promise<void>
}

export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const own = options.persistIn ? null : await makeFolder()
  const dir = options.persistIn ?? own?.path ?? '.'
  const port = options.port ?? (await freePort())
  let child = await launch(port, dir, options)
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return child.pid
    },
    command: (...words) => sendCommand(port, words),
    async kill() {
      child.kill('SIGKILL')
      return child.exited
    },
    async restart() {
      await stopChild(child)
      child = await launch(port, dir, options)
    },
    async stop() {
      await stopChild(child)
      await own?.remove()
    },
  }
}

async function launch(port: number, dir: string, { persistIn, args = [] }: RedisOptions): Promise<Child> {
  const persistence = persistIn ? ['--appendonly', 'yes', '--appendfsync', 'always'] : ['--appendonly', 'no']
  const settings = [
    '--port',
    String(port),
    '--bind',
    '127.0.0.1',
    '--dir',
    dir,
    '--save',
    '',
    '--daemonize',
    'no',
  ]
  const child = startChild('redis-server', [...settings, ...persistence, ...args])
  // Its own pid in the answer: nobody else's Redis counts.
  const ownAnswer = new RegExp(`^process_id:${child.pid}\\b`, 'm')
  const isReady = async () => ownAnswer.test(await sendCommand(port, ['INFO', 'server']).catch(() => ''))
  await untilReady(child, isReady, { name: `Redis on port ${port}`, withinMs: 10_000 })
  return child
}

/** Enough of the protocol for a question and its answer; tests that need more use ioredis. */
function sendCommand(port: number, words: string[]): Promise<string> {
  const request = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let reply = ''
    socket.setEncoding('utf8').setTimeout(5_000, () => socket.destroy(new Error('Redis did not answer')))
    // QUIT makes Redis close the connection after the reply, which marks its end whatever its type is.
    socket.on('data', (text) => {
      reply += text
    })
    socket.once('close', () => resolve(reply.replace(/\r\n\+OK\r\n$/, '').replace(/\r\n$/, '')))
    socket.once('error', reject)
    socket.write(`*${words.length}\r\n${request}*1\r\n$4\r\nQUIT\r\n`)
  })
}
