// The support itself, against real processes: what the other tests believe of it is seen here.

import { existsSync } from 'node:fs'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { launchChromium } from './chromium.ts'
import { makeFolder, temporaryFolder } from './folder.ts'
import { freePort } from './free-port.ts'
import { randomBytes, randomFile, randomStream, sha256 } from './random-file.ts'
import { startRedis } from './redis.ts'
import { startServer } from './server-process.ts'

describe('Redis', () => {
  it('is shared by all tests of a run', async () => {
    const port = Number(new URL(inject('redisUrl')).port)
    const socket = connect(port, '127.0.0.1')
    onTestFinished(() => void socket.destroy())
    const reply = new Promise((resolve) => socket.once('data', (bytes) => resolve(String(bytes))))
    socket.write('PING\r\n')
    expect(await reply).toBe('+PONG\r\n')
  })

  it('forgets everything over a restart, on the same port', async () => {
    const redis = await startRedis()
    onTestFinished(redis.stop)
    expect(await redis.command('SET', 'key', 'two words')).toBe('+OK')
    expect(await redis.command('GET', 'key')).toBe('$9\r\ntwo words')
    const firstPid = redis.pid
    await redis.restart()
    expect(redis.pid).not.toBe(firstPid)
    expect(await redis.command('GET', 'key')).toBe('$-1')
  })

  it('keeps everything over a kill when told to persist', async () => {
    const redis = await startRedis({ persistIn: await temporaryFolder() })
    onTestFinished(redis.stop)
    await redis.command('SET', 'key', 'kept')
    expect(await redis.kill()).toMatchObject({ signal: 'SIGKILL' })
    await expect(redis.command('PING')).rejects.toThrow('ECONNREFUSED')
    await redis.restart()
    expect(await redis.command('GET', 'key')).toBe('$4\r\nkept')
  })
})

describe('a server process', () => {
  /** Listens where the flags say, logs a line, and leaves with code 3 on SIGTERM. */
  async function standIn(): Promise<string> {
    const main = join(await temporaryFolder(), 'main.mjs')
    await writeFile(
      main,
      `import { createServer } from 'node:http'
      const port = process.argv[process.argv.indexOf('--port') + 1]
      process.on('SIGTERM', () => process.exit(3))
      console.log('not json')
      console.log(JSON.stringify({ msg: 'started', args: process.argv.slice(2), setting: process.env.TIDEMARK_TEST }))
      createServer((request, response) => response.end(request.url)).listen(port, '127.0.0.1')`,
    )
    return main
  }

  it('is ready when it answers, with its flags, variables, log lines and memory', async () => {
    const options = {
      main: await standIn(),
      dir: '/nowhere',
      redisUrl: 'redis://r',
      args: ['--max-size', '1'],
    }
    const server = await startServer({ ...options, env: { TIDEMARK_TEST: 'yes' } })
    onTestFinished(async () => void (await server.stop()))
    expect(await (await fetch(`${server.url}/path`)).text()).toBe('/path')
    const flags = `--host 127.0.0.1 --port ${server.port} --upload-dir /nowhere --redis-url redis://r --max-size 1`
    expect(server.logs()).toEqual([{ msg: 'started', args: flags.split(' '), setting: 'yes' }])
    expect(await server.rssBytes()).toBeGreaterThan(10 * 1024 * 1024)
    expect(await server.peakRssBytes()).toBeGreaterThanOrEqual(await server.rssBytes())
  })

  it('can be killed and started again on its port', async () => {
    const server = await startServer({ main: await standIn(), dir: '/nowhere' })
    const firstPid = server.pid
    expect(await server.kill()).toEqual({ code: null, signal: 'SIGKILL' })
    await server.restart()
    expect(server.pid).not.toBe(firstPid)
    expect((await fetch(server.url)).ok).toBe(true)
    expect(await server.stop()).toEqual({ code: 3, signal: null })
    expect(await server.exited).toEqual({ code: 3, signal: null })
  })

  it('that cannot start is an error with what it said', async () => {
    const main = join(await temporaryFolder(), 'broken.mjs')
    await writeFile(main, `throw new Error('the folder is held by process 7')`)
    await expect(startServer({ main, dir: '/nowhere' })).rejects.toThrow('held by process 7')
  })
})

describe('random content', () => {
  it('is the same for the same seed, another one for another', () => {
    expect(randomBytes('a', 1000)).toEqual(randomBytes('a', 1000))
    expect(randomBytes('a', 1000)).not.toEqual(randomBytes('b', 1000))
  })

  it('is the same from any place on', () => {
    const whole = randomBytes('a', 1000)
    for (const from of [0, 1, 15, 16, 17, 500]) {
      expect(randomBytes('a', 100, from)).toEqual(whole.subarray(from, from + 100))
    }
  })

  it('is the same in memory, as a stream and as a file', async () => {
    const lengthBytes = 700_001
    const expected = await sha256(randomBytes('a', lengthBytes))
    expect(await sha256(randomStream('a', lengthBytes))).toBe(expected)
    const path = join(await temporaryFolder(), 'file')
    expect(await randomFile(path, 'a', lengthBytes)).toEqual({ path, sha256: expected })
    expect((await stat(path)).size).toBe(lengthBytes)
  })
})

/** In the words of the page; resolves when the browser says that it is stored. */
const keepInIndexedDb = `new Promise((resolve, reject) => {
  const request = indexedDB.open('kept', 7)
  request.onsuccess = () => resolve()
  request.onerror = reject
})`

it('keeps the profile of Chromium over a kill and a relaunch', async () => {
  const page = createServer((_, response) =>
    response.setHeader('content-type', 'text/html').end('<p>page</p>'),
  )
  page.listen(0, '127.0.0.1')
  onTestFinished(() => void page.close().closeAllConnections())
  await new Promise((resolve) => page.once('listening', resolve))
  const url = `http://127.0.0.1:${(page.address() as AddressInfo).port}/`
  const profileDir = await temporaryFolder()

  const first = await launchChromium({ profileDir })
  const tab = await first.context.newPage()
  await tab.goto(url)
  expect(await tab.textContent('p')).toBe('page')
  await tab.evaluate(keepInIndexedDb)
  await first.kill()

  const second = await launchChromium({ profileDir })
  onTestFinished(second.close)
  const again = await second.context.newPage()
  await again.goto(url)
  expect(await again.evaluate('indexedDB.databases()')).toEqual([{ name: 'kept', version: 7 }])
})

it('removes a folder that was made for a test', async () => {
  const { path, remove } = await makeFolder()
  await writeFile(join(path, 'file'), 'x')
  expect(await readdir(tmpdir())).toContain(path.slice(tmpdir().length + 1))
  await remove()
  expect(existsSync(path)).toBe(false)
})

it('hands out ports that are free and differ', async () => {
  const ports = await Promise.all(Array.from({ length: 20 }, freePort))
  expect(new Set(ports).size).toBe(20)
})
