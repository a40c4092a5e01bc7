// The nginx file that is shipped, run by a real nginx: only the addresses in it are other ones. Each one listens on a
// free loopback port and keeps its files in a folder of its own.

import { readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { programPath } from '../../scripts/test-programs.mjs'
import { startChild, stopChild, untilReady } from '../support/child.ts'
import { makeFolder } from '../support/folder.ts'
import { freePort } from '../support/free-port.ts'

const shippedFile = fileURLToPath(new URL('../../deploy/nginx.conf', import.meta.url))

export type Nginx = { port: number; url: string; stop: () => Promise<void> }

/** @param ports of the servers behind it */
export async function startNginx(ports: readonly number[]): Promise<Nginx> {
  const port = await freePort()
  const folder = await makeFolder()
  const file = join(folder.path, 'nginx.conf')
  await writeFile(file, around(await siteFor(port, ports), folder.path))
  const child = startChild(programPath('nginx'), ['-p', folder.path, '-e', 'stderr', '-c', file])
  await untilReady(child, () => accepts(port), { name: `nginx on port ${port}`, withinMs: 10_000 })
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    async stop() {
      await stopChild(child)
      await folder.remove()
    },
  }
}

async function siteFor(port: number, ports: readonly number[]): Promise<string> {
  const shipped = await readFile(shippedFile, 'utf8')
  const listening = replaceOnce(shipped, /^ *listen 80;$/m, () => `listen 127.0.0.1:${port};`)
  return replaceOnce(listening, /^ *server tidemark:1080 (.+)$/m, (_, parameters) =>
    ports.map((upstream) => `server 127.0.0.1:${upstream} ${parameters}`).join('\n'),
  )
}

function replaceOnce(text: string, pattern: RegExp, by: (...groups: string[]) => string): string {
  const found = text.match(new RegExp(pattern, 'gm'))?.length ?? 0
  if (found !== 1) throw new Error(`deploy/nginx.conf has ${found} lines like ${pattern}`)
  return text.replace(pattern, by)
}

/** One process without a master: nothing of it stays when it is killed, and no other user has to exist. */
function around(site: string, folder: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  return `daemon off;
master_process off;
pid ${folder}/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
access_log off;
${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join('\n')}
${site}
}
`
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
