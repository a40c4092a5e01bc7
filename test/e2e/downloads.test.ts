// Downloads by the programs that people have: interrupted by a kill of the server, they go on where they stopped, and
// what they have in the end is what was uploaded.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, readFile, rename, stat, truncate } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it, onTestFinished, vi } from 'vitest'
import { programPath } from '../../scripts/test-programs.mjs'
import { launchChromium } from '../support/chromium.ts'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { type ServerProcess, startServer } from '../support/server-process.ts'
import { eventually } from '../support/upload-page.ts'

const MiB = 1024 * 1024
const size = 24 * MiB

const tools: [name: 'curl' | 'wget', argsOf: (url: string, file: string) => string[]][] = [
  ['curl', (url, file) => ['-sS', '-f', '-C', '-', '--limit-rate', '8M', '-o', file, url]],
  ['wget', (url, file) => ['-q', '-c', '-t', '1', '--limit-rate=8m', '-O', file, url]],
]

for (const [name, argsOf] of tools)
  it(`${name} resumes a download after the server was killed, and has nothing to do once it is whole`, async () => {
    const { server, folder, url, hash } = await setUp()
    const file = join(folder, 'downloaded')
    const first = spawn(programPath(name), argsOf(url, file), { stdio: 'ignore' })
    onTestFinished(() => void first.kill('SIGKILL'))
    await vi.waitFor(async () => expect((await stat(file)).size).toBeGreaterThan(4 * MiB), {
      timeout: 20_000,
    })
    await server.kill('SIGKILL')
    expect(await endOf(first)).not.toBe(0)
    const had = (await stat(file)).size
    expect(had).toBeLessThan(size)

    await server.restart()
    expect(await run(name, argsOf(url, file))).toBe(0)

    expect(await sha256(await readFile(file))).toBe(hash)
    const sent = server.logs().find(({ method, status }) => method === 'GET' && status === 206)
    expect(sent).toBeDefined()
    await run(name, argsOf(url, file))
    expect(await sha256(await readFile(file))).toBe(hash)
  })

it('curl with -z and --etag-compare downloads nothing twice, and says so by 304', async () => {
  const { url, folder } = await setUp(1000)
  const [file, etag] = [join(folder, 'file'), join(folder, 'etag')]
  const curl = async (...args: string[]) => {
    const { stdout } = await promisify(execFile)(programPath('curl'), [
      ...['-sS', '-R', '-o', file, '-w', '%{http_code}'],
      ...args,
      url,
    ])
    return stdout
  }
  expect(await curl('--etag-save', etag)).toBe('200')
  await copyFile(file, `${file}.kept`)
  expect(await curl('--etag-compare', etag)).toBe('304')
  await rename(`${file}.kept`, file)
  expect(await curl('-z', file)).toBe('304')
})

it('Chromium resumes a download after the server was killed', async () => {
  const { server, url, hash } = await setUp()
  const browser = await launchChromium({ profileDir: await temporaryFolder() })
  onTestFinished(browser.close)
  const page = browser.context.pages()[0] ?? (await browser.context.newPage())
  // A page of the same server, which fetches a range behind what it has, as download managers in browsers do.
  await page.goto(`${server.url}/health/live`)
  await page.evaluate(fetchHalf, url)
  await server.kill('SIGKILL')
  await server.restart()
  expect(await page.evaluate(fetchRest, url)).toEqual({ status: 206, hash })
})

it('Chromium saves a file under the name that was given, whatever is in it', async () => {
  const { server, folder } = await setUp(1)
  const bytes = randomBytes('named', MiB)
  const { url } = await upload(server, bytes, {
    filename: '../„Wal“ 👧\r\n潮.html',
    filetype: 'text/html',
  })
  const browser = await launchChromium({ profileDir: await temporaryFolder() })
  onTestFinished(browser.close)
  const page = browser.context.pages()[0] ?? (await browser.context.newPage())
  const downloading = page.waitForEvent('download')
  // What is saved is no page to go to.
  await page.goto(url).catch(() => undefined)
  const download = await downloading
  expect(download.suggestedFilename()).toBe('„Wal“ 👧 潮.html')
  await download.saveAs(join(folder, 'saved'))
  expect(await sha256(await readFile(join(folder, 'saved')))).toBe(await sha256(bytes))
})

it('a player in a page of another origin seeks in an upload, also after the server was killed', async () => {
  const { server, folder } = await setUp(1)
  // More than a browser keeps of what it does not play yet.
  const seconds = 1200
  const { url } = await upload(server, toneOf(seconds), { filename: 'tone.wav', filetype: 'audio/wav' })
  const site = createServer((_, response) => {
    response.setHeader('Content-Type', 'text/html')
    response.end(`<audio controls preload="metadata" src="${url}"></audio>`)
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void site.close())
  await once(site, 'listening')
  const browser = await launchChromium({ profileDir: folder })
  onTestFinished(browser.close)
  const page = browser.context.pages()[0] ?? (await browser.context.newPage())
  await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`)
  await eventually(async () => expect(await page.evaluate(durationOfPlayer)).toBeCloseTo(seconds, 1))
  await server.kill('SIGKILL')
  await server.restart()
  expect(await page.evaluate(seekTo, 1100)).toBeCloseTo(1100, 1)
  await eventually(() => {
    const statuses = server.logs().flatMap(({ method, status }) => (method === 'GET' ? [status] : []))
    expect(statuses).toContain(206)
  })
  // Opened by itself it is shown by the browser, and played.
  await page.goto(url)
  const shown = `document.querySelector('video, audio') && ${durationOfPlayer.replace('audio', 'video, audio')}`
  await eventually(async () => expect(await page.evaluate(shown)).toBeCloseTo(seconds, 1))
})

it('curl notices that the file behind the URL is another one, by If-Range', async () => {
  const { server, url, folder } = await setUp(MiB)
  const other = await upload(server, randomBytes('other', MiB), {})
  const file = join(folder, 'file')
  const etag = (await fetch(url)).headers.get('etag')!
  expect(await run('curl', ['-sS', '-o', file, url])).toBe(0)
  await truncate(file, 1000)
  const args = ['-sS', '-r', '1000-', '-H', `If-Range: ${etag}`, '-w', '%{http_code}', '-o', '/dev/null']
  const statusOf = async (of: string) =>
    (await promisify(execFile)(programPath('curl'), [...args, of])).stdout
  expect([await statusOf(url), await statusOf(other.url)]).toEqual(['206', '200'])
})

async function setUp(length = size) {
  const server = await startServer({ dir: await temporaryFolder() })
  onTestFinished(async () => void (await server.stop()))
  const folder = await temporaryFolder()
  const bytes = randomBytes('downloads', length)
  return {
    server,
    folder,
    hash: await sha256(bytes),
    ...(await upload(server, bytes, { filename: 'x.bin' })),
  }
}

async function upload(server: ServerProcess, bytes: Uint8Array, metadata: Record<string, string>) {
  const pairs = Object.entries(metadata).map(
    ([key, value]) => `${key} ${Buffer.from(value).toString('base64')}`,
  )
  const response = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: {
      'Tus-Resumable': '1.0.0',
      'Upload-Length': String(bytes.length),
      'Upload-Metadata': pairs.join(','),
      'Content-Type': 'application/offset+octet-stream',
    },
    body: Buffer.from(bytes),
  })
  expect(response.status).toBe(201)
  return { url: response.headers.get('location')! }
}

async function run(name: 'curl' | 'wget', args: string[]): Promise<number | null> {
  return endOf(spawn(programPath(name), args, { stdio: 'ignore' }))
}

async function endOf(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null) return child.exitCode
  const [code] = (await once(child, 'close')) as [number | null]
  return code
}

/** A sound that needs no codec: 8-bit samples, 48,000 a second. */
function toneOf(seconds: number): Buffer {
  const rate = 48_000
  const second = Uint8Array.from(
    { length: rate },
    (_, n) => 128 + 20 * Math.sin((n * 2 * Math.PI * 440) / rate),
  )
  const samples = Buffer.alloc(seconds * rate, second)
  const header = Buffer.alloc(44)
  header.write('RIFF', 0)
  header.writeUInt32LE(36 + samples.length, 4)
  header.write('WAVEfmt ', 8)
  header.writeUInt32LE(16, 16)
  header.writeUInt16LE(1, 20)
  header.writeUInt16LE(1, 22)
  header.writeUInt32LE(rate, 24)
  header.writeUInt32LE(rate, 28)
  header.writeUInt16LE(1, 32)
  header.writeUInt16LE(8, 34)
  header.write('data', 36)
  header.writeUInt32LE(samples.length, 40)
  return Buffer.concat([header, samples])
}

// What follows runs in the browser.

const durationOfPlayer = `document.querySelector('audio').duration`

const seekTo = (position: number) =>
  new Promise<number>((resolve, reject) => {
    const player = (
      globalThis as never as { document: { querySelector(of: string): HTMLPlayer } }
    ).document.querySelector('audio')
    player.onseeked = () => resolve(player.currentTime)
    player.onerror = () => reject(new Error(player.error?.message))
    player.currentTime = position
  })

interface HTMLPlayer {
  currentTime: number
  readonly error: { readonly message: string } | null
  onseeked: () => void
  onerror: () => void
}

/** Reads some, keeps it and what names the bytes. */
const fetchHalf = async (url: string) => {
  const response = await fetch(url)
  const reader = response.body!.getReader()
  const kept: Uint8Array[] = []
  for (let had = 0; had < 4 * 1024 * 1024; ) {
    const { value } = await reader.read()
    kept.push(value!)
    had += value!.length
  }
  void reader.cancel().catch(() => undefined)
  Object.assign(globalThis, { kept, etag: response.headers.get('etag') })
}

const fetchRest = async (url: string) => {
  const { kept, etag } = globalThis as unknown as { kept: Uint8Array[]; etag: string }
  const had = kept.reduce((sum, { length }) => sum + length, 0)
  const response = await fetch(url, { headers: { Range: `bytes=${had}-`, 'If-Range': etag } })
  const whole = await new Blob([...kept, await response.arrayBuffer()] as never[]).arrayBuffer()
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', whole))
  return {
    status: response.status,
    hash: [...hash].map((byte) => byte.toString(16).padStart(2, '0')).join(''),
  }
}
