// Sign-in on servers as people run them: the command, workers, Redis, standard clients, and what the log says.
import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Upload } from 'tus-js-client'
import { expect, it, onTestFinished } from 'vitest'
import { isOpenToAll, openToAll } from '../../server/access/open-to-all.ts'
import { loadConfig } from '../../server/config.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startRedis } from '../support/redis.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { signedWith, signer } from './support.ts'

const program = fileURLToPath(new URL('../../dist/server/main.js', import.meta.url))
const patience = { timeout: 60_000 }

it('makes tokens that are shown once, lists them, and takes them back on all workers', patience, async () => {
  const path = join(await temporaryFolder(), 'deep', 'tokens.jsonl')
  const ann = await made(
    path,
    '--owner',
    'ann',
    '--name',
    'camera',
    '--max-size',
    '1MiB',
    '--types',
    'image/*',
    '--expires',
    '90d',
  )
  const bob = await made(path, '--owner', 'bob')
  const list = await tidemark(['tokens', 'list', '--auth-tokens-file', path])
  expect(list.stdout).toMatch(/ann +camera +all but admin +up to 1MiB; image\/\* +good until/)
  expect(list.stdout).not.toContain(ann.slice(16))

  const server = await start({
    args: ['--auth', 'tokens', '--workers', '2', '--log-level', 'debug'],
    env: { TIDEMARK_AUTH_TOKENS_FILE: path },
  })
  const status = (token: string) => created(server, token)
  const both = () => Promise.all(Array.from({ length: 8 }, () => status(bob)))
  expect(new Set(await both())).toEqual(new Set([201]))
  expect(await status(ann), 'of no type').toBe(415)
  expect(await status('')).toBe(401)
  expect((await tidemark(['tokens', 'revoke', bob.split('_')[1]!, '--auth-tokens-file', path])).code).toBe(0)
  await expect.poll(async () => new Set(await both()), { timeout: 10_000 }).toEqual(new Set([401]))

  const carol = await made(path, '--owner', 'carol')
  expect(await status(carol), 'at once').toBe(201)
  expect(server.output()).not.toContain(carol.slice(16))
  expect(server.output()).not.toContain(bob.slice(16))
  const carolsId = carol.split('_')[1]
  const isHers = (line: Record<string, unknown>) => line.owner === 'carol' && line.tokenId === carolsId
  await expect.poll(() => server.logs().some(isHers)).toBe(true)
})

it('refuses arguments of the command that make no sense, and changes nothing', patience, async () => {
  const path = join(await temporaryFolder(), 'tokens.jsonl')
  for (const args of [
    [],
    ['make'],
    ['add'],
    ['add', '--owner', ''],
    ['add', '--owner', 'a', '--scopes', 'everything'],
    ['add', '--owner', 'a', '--max-size', 'much'],
    ['add', '--owner', 'a', '--types', 'pictures'],
    ['add', '--owner', 'a', '--expires', 'soon'],
    ['add', '--owner', 'a', '--read-only', '--scopes', 'create'],
    ['add', '--owner', 'a', '--unknown'],
    ['revoke', 'none'],
  ]) {
    const { code, stdout, stderr } = await tidemark(['tokens', ...args, '--auth-tokens-file', path])
    expect([args, code, stdout]).toEqual([args, 2, ''])
    expect(stderr).toMatch(/^tidemark: /)
    expect(stderr).not.toMatch(/\n +at /)
  }
  expect((await tidemark(['tokens', 'add', '--owner', 'a'])).stderr).toContain('--auth-tokens-file')
})

it('does not start without what it needs to know people by, and says what is missing', patience, async () => {
  const folder = await temporaryFolder()
  const broken = join(folder, 'broken')
  await writeFile(broken, '{"id":1}')
  for (const [args, says] of [
    [['--auth', 'tokens'], '--auth-tokens-file'],
    [['--auth', 'tokens', '--auth-tokens-file', join(folder, 'none')], 'no such file'],
    [['--auth', 'tokens', '--auth-tokens-file', broken], 'line 1 must have an id'],
    [['--auth', 'jwt'], 'exactly one of'],
    [
      ['--auth', 'jwt', '--jwt-secret', 'x'.repeat(32), '--jwt-jwks-url', 'https://a.example'],
      'exactly one of',
    ],
    [['--auth', 'jwt', '--jwt-secret', 'short-and-secret'], '32 bytes'],
    [['--auth', 'jwt', '--jwt-key-file', broken], 'can not be used'],
    [['--auth', 'jwt', '--jwt-jwks-url', 'file:///etc/passwd'], 'https://'],
    [['--jwt-issuer', 'x'], 'has no effect without'],
    [['--auth-tokens-file', broken], 'has no effect without'],
  ] as const) {
    const { code, stderr } = await tidemark([
      '--port',
      '0',
      '--host',
      '127.0.0.1',
      '--upload-dir',
      join(folder, 'data'),
      ...args,
    ])
    expect([args, code === 0, stderr]).toEqual([args, false, expect.stringContaining(says)])
    expect(stderr).not.toContain('short-and-secret')
    expect(stderr).not.toMatch(/\n +at /)
  }
})

it('warns who listens beyond loopback without asking anybody, and nobody else', patience, async () => {
  const isOpen = (...args: string[]) => isOpenToAll(loadConfig(args, {}))
  expect(isOpen()).toBe(true)
  for (const host of ['::', '192.168.0.1', '10.0.0.1', 'files.example'])
    expect(isOpen('--host', host)).toBe(true)
  for (const host of ['127.0.0.1', '127.0.1.1', '::1', 'localhost'])
    expect(isOpen('--host', host)).toBe(false)
  expect(isOpen('--unix-sock', '/run/tidemark.sock')).toBe(false)
  expect(isOpen('--auth', 'jwt', '--jwt-jwks-url', 'https://id.example/keys')).toBe(false)
  expect((await start({ args: [] })).output()).not.toContain(openToAll)
})

it(
  'takes claims of one issuer on servers that share a Redis, and keeps owners apart on all of them',
  patience,
  async () => {
    const redis = await startRedis()
    onTestFinished(redis.stop)
    const keys = await signer('ES256')
    const folder = await temporaryFolder()
    const keyFile = join(folder, 'key.json')
    await writeFile(keyFile, JSON.stringify(keys.jwk))
    const dir = join(folder, 'data')
    const args = [
      '--auth',
      'jwt',
      '--jwt-key-file',
      keyFile,
      '--jwt-issuer',
      'https://id.example',
      '--redis-url',
      redis.url,
    ]
    const [one, two] = [await start({ dir, args }), await start({ dir, args })]
    const ann = await keys.sign({ sub: 'ann', iss: 'https://id.example' })
    const bob = await keys.sign({ sub: 'bob', iss: 'https://id.example' })
    const body = Buffer.alloc(5 * 1024 * 1024, 'tide')
    const url = await uploaded(one, ann, body)
    const onTwo = new URL(new URL(url).pathname, two.url)
    const get = (token: string) => fetch(onTwo, { headers: { Authorization: `Bearer ${token}` } })
    expect(Buffer.from(await (await get(ann)).arrayBuffer()).equals(body)).toBe(true)
    expect((await get(bob)).status).toBe(404)
    expect((await fetch(onTwo)).status).toBe(401)
    expect(await created(two, await keys.sign({ sub: 'ann', iss: 'https://evil.example' }))).toBe(401)
    expect(
      await created(two, await signedWith(JSON.stringify(keys.jwk), { iss: 'https://id.example' })),
    ).toBe(401)

    // A link that one server signed is good on the other.
    const asked = await fetch(`${one.url}/access/download?id=${onTwo.pathname.split('/').at(-1)}`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${ann}` },
    })
    const { query } = (await asked.json()) as { query: string }
    expect((await fetch(`${onTwo}?${query}`)).status).toBe(200)
    expect(`${one.output()}${two.output()}`).not.toContain(ann.slice(-40))
    expect(`${one.output()}${two.output()}`).not.toContain(query.slice('ticket='.length))
  },
)

it('lets curl in by a header, and tells it what is wrong without one', patience, async () => {
  const path = join(await temporaryFolder(), 'tokens')
  const token = await made(path, '--owner', 'ann')
  const server = await start({ args: ['--auth', 'tokens', '--auth-tokens-file', path] })
  const curl = (...args: string[]) =>
    run('curl', [
      '-sS',
      '-i',
      '-X',
      'POST',
      '-H',
      'Tus-Resumable: 1.0.0',
      '-H',
      'Upload-Length: 5',
      ...args,
      `${server.url}/files/`,
    ])
  expect(
    (
      await curl(
        '-H',
        `Authorization: Bearer ${token}`,
        '-H',
        'Content-Type: application/offset+octet-stream',
        '--data-binary',
        'hello',
      )
    ).stdout,
  ).toContain('201 Created')
  const refused = await curl('-H', 'Content-Type: application/offset+octet-stream', '--data-binary', 'hello')
  expect(refused.stdout).toMatch(/401 Unauthorized/)
  expect(refused.stdout).toMatch(/WWW-Authenticate: Bearer realm="Tidemark"/i)
  expect(refused.stdout).toContain('sign in')
  const who = await fetch(`${server.url}/access/identity`, { headers: { Authorization: `Bearer ${token}` } })
  expect(await who.json()).toEqual({ owner: 'ann', scopes: ['create', 'append', 'ask', 'terminate', 'read'] })
  expect((await fetch(`${server.url}/access/identity`)).status).toBe(401)
  expect((await fetch(`${server.url}/health/ready`)).status, 'health is for everybody').toBe(200)
})

async function start(options: {
  dir?: string
  args: string[]
  env?: Record<string, string>
}): Promise<ServerProcess> {
  const { dir = join(await temporaryFolder(), 'data'), ...rest } = options
  const server = await startServer({ dir, ...rest })
  onTestFinished(async () => void (await server.stop()))
  return server
}

async function created(server: ServerProcess, token: string): Promise<number> {
  const headers = {
    'Tus-Resumable': '1.0.0',
    'Upload-Length': '3',
    ...(token !== '' && { Authorization: `Bearer ${token}` }),
  }
  return (await fetch(`${server.url}/files/`, { method: 'POST', headers })).status
}

function uploaded(server: ServerProcess, token: string, body: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const upload = new Upload(body, {
      endpoint: `${server.url}/files/`,
      headers: { Authorization: `Bearer ${token}` },
      chunkSize: 1024 * 1024,
      onError: reject,
      onSuccess: () => resolve(upload.url!),
    })
    upload.start()
  })
}

async function made(path: string, ...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await tidemark(['tokens', 'add', '--auth-tokens-file', path, ...args])
  expect([code, stderr]).toEqual([0, expect.stringContaining('not shown again')])
  expect(stdout).toMatch(/^tm_[0-9a-z]{12}_[\w-]{43}\n$/)
  return stdout.trim()
}

const tidemark = (args: readonly string[]) => run(process.execPath, [program, ...args])

function run(
  command: string,
  args: readonly string[],
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(command, args, { env: { PATH: process.env.PATH ?? '' } })
  const said = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      said[name] += text
    })
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, ...said })))
}
