/** What Tidemark is compared with: two plain programs on Node, and the servers that are found on PATH. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../test/support/free-port.ts'
import { findOnPath, type RunningServer, type Server, startProgram, stopProgram } from './server.ts'

const programFile = (name: string) => fileURLToPath(new URL(`programs/${name}`, import.meta.url))

/** A program of ours in this Node, that takes a port and a folder. */
async function startOurs(
  name: string,
  file: string,
  folder: string,
  ...more: string[]
): Promise<RunningServer> {
  const port = await freePort()
  const args = [programFile(file), String(port), folder, ...more]
  const child = await startProgram(process.execPath, args, { port, name })
  return {
    port,
    basePath: '/files/',
    pids: { server: child.pid },
    output: child.output,
    stop: () => stopProgram(child),
  }
}

const tusServer: Server = {
  name: 'tus-server',
  title: '@tus/server',
  abilities: ['tus', 'one-writer', 'creation-with-upload', 'download'],
  missing: () => undefined,
  version() {
    const path = new URL('../../node_modules/@tus/server/package.json', import.meta.url)
    return `@tus/server ${(JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version}`
  },
  start: (folder) => startOurs('@tus/server', 'tus-server.mjs', folder),
}

const tusd: Server = {
  name: 'tusd',
  title: 'tusd',
  abilities: ['tus', 'one-writer', 'creation-with-upload', 'download'],
  missing: () => (findOnPath('tusd') === undefined ? 'tusd is not on PATH' : undefined),
  version() {
    const path = findOnPath('tusd')!
    // Built by `go install` it does not know its version; Go does.
    const says = spawnSync(path, ['-version'], { encoding: 'utf8' })
    const built = spawnSync('go', ['version', '-m', path], { encoding: 'utf8' })
    const mod = built.stdout?.match(/^\s*mod\s+\S+\s+(\S+)/m)?.[1]
    return `tusd ${/\d+\.\d+/.test(says.stdout) ? firstVersionIn(says) : (mod ?? '(version unknown)')}`
  },
  async start(folder) {
    const port = await freePort()
    const where = [
      '-host',
      '127.0.0.1',
      '-port',
      String(port),
      '-base-path',
      '/files/',
      '-upload-dir',
      folder,
    ]
    const quiet = ['-verbose=false', '-show-startup-logs=false']
    const child = await startProgram(findOnPath('tusd')!, [...where, ...quiet], { port, name: 'tusd' })
    return {
      port,
      basePath: '/files/',
      pids: { server: child.pid },
      output: child.output,
      stop: () => stopProgram(child),
    }
  },
}

/** PUT by its dav module: no offsets and no resuming, so only for the large uploads; its temporary files lie beside. */
const nginx: Server = {
  name: 'nginx',
  title: 'nginx, PUT',
  abilities: ['put', 'download'],
  missing() {
    const path = findOnPath('nginx')
    if (path === undefined) return 'nginx is not on PATH'
    const { stderr } = spawnSync(path, ['-V'], { encoding: 'utf8' })
    return stderr.includes('http_dav_module') ? undefined : 'this nginx has no http_dav_module'
  },
  version: () => `nginx ${firstVersionIn(spawnSync(findOnPath('nginx')!, ['-v'], { encoding: 'utf8' }))}`,
  async start(folder) {
    const port = await freePort()
    const own = join(folder, 'nginx')
    await mkdir(join(own, 'files'), { recursive: true })
    await writeFile(join(own, 'nginx.conf'), nginxConfig(own, port))
    const args = ['-p', own, '-e', 'stderr', '-c', join(own, 'nginx.conf')]
    const child = await startProgram(findOnPath('nginx')!, args, { port, name: 'nginx' })
    return {
      port,
      basePath: '/files/',
      pids: { server: child.pid },
      output: child.output,
      stop: () => stopProgram(child),
    }
  },
}

function nginxConfig(folder: string, port: number): string {
  const temporary = ['proxy', 'fastcgi', 'uwsgi', 'scgi']
  return `daemon off;
worker_processes ${availableParallelism()};
${process.getuid?.() === 0 ? 'user root;' : ''}
pid ${folder}/nginx.pid;
error_log stderr error;
events { worker_connections 16384; }
http {
access_log off;
client_body_temp_path ${folder}/client_body;
${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join('\n')}
server {
  listen 127.0.0.1:${port} backlog=4096;
  root ${folder};
  client_max_body_size 0;
  location /files/ { dav_methods PUT DELETE; }
}
}
`
}

const bare: Server = {
  name: 'bare',
  title: 'bare Node',
  abilities: ['tus', 'creation-with-upload', 'download'],
  missing: () => undefined,
  version: () => `Node ${process.version}`,
  start: (folder) => startOurs('bare Node', 'bare.mjs', folder),
}

const nothing: Server = {
  name: 'nothing',
  title: 'bare Node, discarding',
  abilities: ['tus', 'creation-with-upload'],
  missing: () => undefined,
  version: () => `Node ${process.version}`,
  start: (folder) => startOurs('bare Node', 'bare.mjs', folder, 'discard'),
}

export const peers: readonly Server[] = [tusd, tusServer, nginx, bare, nothing]

function firstVersionIn({ stdout, stderr }: { stdout: string; stderr: string }): string {
  return `${stdout}${stderr}`.match(/v?(\d+\.\d+[\w.+-]*)/)?.[1] ?? '(version unknown)'
}
