// A server of several processes is started and ended as one of a single process is: the same words, the same exit codes.

import { existsSync } from 'node:fs'
import { mkdir, readdir } from 'node:fs/promises'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { childrenOf, isRunning } from '../support/child.ts'
import { startRedis } from '../support/redis.ts'
import { neverEnds, processes, slowUpload, startProcess } from './process.ts'

const { folder, start, startBare, endsWithTest } = processes(['--workers=2'])
const twoWorkers = (pid: number) =>
  expect.poll(() => childrenOf(pid).length, { interval: 5, timeout: 20_000 }).toBe(2)
const isReplacement = (line: Record<string, unknown>) => line.msg === 'the worker listens'

describe('a start of workers that can not be', () => {
  it('ends with 1 and one sentence when the folder can not be made', async () => {
    const end = await startBare(['--port', '0', '--upload-dir', '/proc/nowhere/data']).exited
    expect(end).toMatchObject({ code: 1, stdout: '' })
    expect(end.stderr).toMatch(/^tidemark: --upload-dir "\/proc\/nowhere\/data" can not be used: .*\n$/)
  })

  it('ends with 1 and one sentence that says who has the folder', async () => {
    const first = start()
    await first.port()
    for (const workers of ['2', '1']) {
      const second = endsWithTest(
        startProcess([
          `--workers=${workers}`,
          '--host=127.0.0.1',
          '--port=0',
          `--upload-dir=${folder.path}/data`,
        ]),
      )
      const end = await second.exited
      expect(end).toMatchObject({ code: 1, stdout: '' })
      expect(end.stderr).toMatch(
        new RegExp(
          `^tidemark: --upload-dir ".*data" can not be used: .*in use by process ${first.pid} .*\\n$`,
        ),
      )
    }
  })

  it('ends with 1 and one sentence when the port is taken, and leaves nobody behind', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => other.once('listening', resolve))
    const { port } = other.address() as { port: number }
    const second = startBare(['--host=127.0.0.1', `--port=${port}`, `--upload-dir=${folder.path}/data`])
    const workers = new Set<number>()
    const look = setInterval(() => {
      for (const pid of childrenOf(second.pid)) workers.add(pid)
    }, 20)
    const end = await second.exited
    clearInterval(look)
    other.close()
    expect(end).toEqual({
      code: 1,
      stdout: '',
      stderr: `tidemark: --port ${port} can not be used on 127.0.0.1: it is in use by another process\n`,
    })
    expect([...workers].filter(isRunning)).toEqual([])
    // The folder was given back.
    await start().port()
  })

  it('ends with 1 and one sentence when Redis can not be reached', async () => {
    const end = await start(['--redis-url', 'redis://me:geheim@127.0.0.1:1/0']).exited
    expect(end).toEqual({
      code: 1,
      stdout: '',
      stderr: 'tidemark: --redis-url redis://127.0.0.1:1/0 can not be used: nothing listens there\n',
    })
  })
})

describe('workers that are told to end', () => {
  it('stop slow uploads, answer them with what was kept, and end with 0', async () => {
    const server = start()
    const port = await server.port()
    const uploads = await Promise.all([1, 2, 3, 4].map(() => slowUpload(port)))
    // The bytes that were sent are on their way, and nobody says when they have come.
    await sleep(500)
    server.signal('SIGTERM')
    for (const upload of uploads) {
      expect(await upload.until('Upload-Offset: 11')).toContain('HTTP/1.1 204')
      await upload.closed
    }
    const end = await server.exited
    expect([end.code, end.stderr]).toEqual([0, ''])
    const lines = end.stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line))
    expect(lines.at(0).msg).toMatch(/^Tidemark listens on http:\/\/127\.0\.0\.1:\d+\/files\/, keeps /)
    expect(lines.at(-1)).toMatchObject({ msg: 'ended' })
    const patches = lines.filter(({ method }) => method === 'PATCH')
    // Who is free takes the next connection, so which of them had how many is not said.
    expect(patches.map(({ worker }) => [1, 2].includes(worker))).toEqual([true, true, true, true])
    expect(lines.filter(({ msg }) => msg.startsWith('SIGTERM: ending'))).toHaveLength(1)
  })

  it('end with 0 also when none of them listens yet, and leave nobody and nothing behind', async () => {
    const server = start()
    await twoWorkers(server.pid)
    const workers = childrenOf(server.pid)
    server.signal('SIGTERM')
    const end = await server.exited
    expect([end.code, end.stderr]).toEqual([0, ''])
    const said = end.stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => String(JSON.parse(line).msg))
    expect(said.at(0)).toMatch(/^SIGTERM: ending/)
    expect(said.at(-1)).toBe('ended')
    expect(workers.filter(isRunning)).toEqual([])
    // The folder was given back by the first who had it, and no guest is left.
    expect(await readdir(`${folder.path}/data/.tidemark/.owner`)).toEqual(['2'])
  })

  it.each(['', 'with Redis '])('%send with 0 also while one of them begins', async (how) => {
    const redis = how ? await startRedis() : undefined
    if (redis) onTestFinished(() => redis.stop())
    const toRedis = redis ? ['--redis-url', redis.url] : []
    const server = start(['--show-page=false', ...toRedis])
    await server.port()
    process.kill(childrenOf(server.pid)[0]!, 'SIGKILL')
    await server.line((line) => String(line.msg).startsWith('a worker ended'))
    await twoWorkers(server.pid)
    server.signal('SIGTERM')
    const end = await server.exited
    expect([end.code, end.stderr]).toEqual([0, ''])
    expect(end.stdout).toContain('"msg":"ended"')
  })

  it('leave at once, with 1, on a second signal', async () => {
    const server = start([], neverEnds)
    await server.port()
    const workers = childrenOf(server.pid)
    server.signal('SIGTERM')
    await server.line((line) => String(line.msg).startsWith('SIGTERM: ending'))
    server.signal('SIGTERM')
    const end = await server.exited
    expect(end.code).toBe(1)
    expect(end.stdout).toContain('second SIGTERM: leaving at once')
    await expect.poll(() => workers.filter(isRunning)).toEqual([])
  })

  it('leave with 1 when they can not end in time', async () => {
    const server = start(['--shutdown-timeout', '300ms'], neverEnds)
    await server.port()
    server.signal('SIGTERM')
    const end = await server.exited
    expect(end.code).toBe(1)
    expect(end.stdout).toContain('could not end in time')
  })

  it('are ended by their primary when one of them is stopped', async () => {
    const server = start(['--shutdown-timeout', '300ms'])
    await server.port()
    const [stopped] = childrenOf(server.pid) as [number, number]
    process.kill(stopped, 'SIGSTOP')
    server.signal('SIGTERM')
    expect((await server.exited).code).toBe(1)
    expect(isRunning(stopped)).toBe(false)
  })

  it('take a UNIX socket over from a killed server, and leave none behind', async () => {
    await mkdir(`${folder.path}/data`)
    const args = ['--unix-sock', `${folder.path}/t.sock`, '--upload-dir', `${folder.path}/data`]
    const listens = (line: Record<string, unknown>) => line.url === `${folder.path}/t.sock`
    const first = startBare(args)
    await first.line(listens)
    await first.stop()
    const second = startBare(args)
    await second.line(listens)
    second.signal('SIGTERM')
    expect((await second.exited).code).toBe(0)
    expect(existsSync(`${folder.path}/t.sock`)).toBe(false)
  })
})

describe('a worker', () => {
  it('that is told to end by itself ends in order, and is replaced', async () => {
    const server = start()
    const port = await server.port()
    const [one, two] = childrenOf(server.pid) as [number, number]
    const uploads = await Promise.all([1, 2].map(() => slowUpload(port)))
    process.kill(one, 'SIGTERM')
    await Promise.race(uploads.map((upload) => upload.until('Upload-Offset: 11')))
    await server.line(isReplacement)
    expect(childrenOf(server.pid)).toContain(two)
    expect(childrenOf(server.pid)).toHaveLength(2)
    const { code } = await server.line((line) => String(line.msg).startsWith('a worker ended'))
    expect(code).toBe(0)
  })

  it('that dies again and again is replaced after longer and longer pauses', async () => {
    const server = start()
    await server.port()
    const pauses: unknown[] = []
    for (let times = 1; times <= 3; times++) {
      process.kill(childrenOf(server.pid).at(-1)!, 'SIGKILL')
      const isNews = (line: Record<string, unknown>) => 'waitMs' in line && !pauses.includes(line.waitMs)
      pauses.push((await server.line(isNews)).waitMs)
      await expect.poll(() => childrenOf(server.pid).length, { timeout: 10_000 }).toBe(2)
    }
    expect(pauses).toEqual([100, 200, 400])
  })
})
