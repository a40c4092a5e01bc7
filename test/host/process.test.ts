import { createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import { neverEnds, processes, rawConnection, slowUpload } from './process.ts'

const { folder, start, startBare } = processes()

/** Once it is told to, it gets two signals while a thread is about to ask for what it shall commit. */
const endsWithinACommit = {
  nodeArgs: [
    '--import',
    `data:text/javascript,${encodeURIComponent(`
      import { createHook } from 'node:async_hooks'
      let isArmed = false
      process.on('SIGUSR2', () => {
        isArmed = true
        console.log(JSON.stringify({ msg: 'armed' }))
      })
      createHook({
        init(_id, type) {
          if (!isArmed || type !== 'write') return
          isArmed = false
          process.nextTick(() => {
            process.emit('SIGTERM', 'SIGTERM')
            process.emit('SIGTERM', 'SIGTERM')
          })
        },
      }).enable()`)}`,
  ],
}

/** It gets a signal while it begins to listen. */
const endsWhileItListens = {
  nodeArgs: [
    '--import',
    `data:text/javascript,${encodeURIComponent(`
      import { Server } from 'node:http'
      const { listen } = Server.prototype
      Server.prototype.listen = function (...args) {
        process.kill(process.pid, 'SIGTERM')
        return listen.apply(this, args)
      }`)}`,
  ],
}

describe('a start that can not be', () => {
  it('ends with 2 and one sentence when a setting is wrong', async () => {
    const end = await startBare(['--prot', '1']).exited
    expect(end).toEqual({
      code: 2,
      stdout: '',
      stderr: 'tidemark: --prot is not a setting; did you mean --port?\n',
    })
  })

  it('ends with 1 and one sentence when the folder can not be made', async () => {
    const end = await startBare(['--port', '0', '--upload-dir', '/proc/nowhere/data']).exited
    expect(end).toMatchObject({ code: 1, stdout: '' })
    expect(end.stderr).toMatch(/^tidemark: --upload-dir "\/proc\/nowhere\/data" can not be used: .*\n$/)
  })

  it('ends with 1 and one sentence when the folder of the hooks is not there', async () => {
    const end = await start(['--hooks-dir', `${folder.path}/misspelt`]).exited
    expect(end).toMatchObject({ code: 1, stdout: '' })
    expect(end.stderr).toMatch(/^tidemark: --hooks-dir ".*misspelt" can not be used: it is not there\n$/)
  })

  it('ends with 1 and one sentence that says who has it when the folder is in use', async () => {
    const first = startBare(['--upload-dir', `${folder.path}/shared`, '--port', '0', '--host', '127.0.0.1'])
    await first.port()
    const end = await startBare([
      '--upload-dir',
      `${folder.path}/shared`,
      '--port',
      '0',
      '--host',
      '127.0.0.1',
    ]).exited
    expect(end).toMatchObject({ code: 1, stdout: '' })
    expect(end.stderr).toMatch(
      /^tidemark: --upload-dir ".*shared" can not be used: .*in use by process \d+.*\n$/,
    )
  })

  it('ends with 1 and one sentence when the port is taken', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => other.once('listening', resolve))
    const { port } = other.address() as { port: number }
    const end = await startBare(['--host=127.0.0.1', `--port=${port}`, `--upload-dir=${folder.path}`]).exited
    other.close()
    expect(end).toEqual({
      code: 1,
      stdout: '',
      stderr: `tidemark: --port ${port} can not be used on 127.0.0.1: it is in use by another process\n`,
    })
  })

  it('ends with 1 and one sentence, without the password, when Redis can not be reached', async () => {
    const end = await start(['--redis-url', 'redis://me:geheim@127.0.0.1:1/0']).exited
    expect(end).toEqual({
      code: 1,
      stdout: '',
      stderr: 'tidemark: --redis-url redis://127.0.0.1:1/0 can not be used: nothing listens there\n',
    })
  })

  it('says the same of sentinels and of a Cluster', async () => {
    const urls: [string, RegExp][] = [
      [
        'redis+sentinel://me:geheim@127.0.0.1:1,127.0.0.1:2/name?sentinelPassword=geheim',
        /no sentinel answers/,
      ],
      ['redis+cluster://me:geheim@127.0.0.1:1,127.0.0.1:2', /127\.0\.0\.1:[12]: .*ECONNREFUSED/],
    ]
    for (const [url, reason] of urls) {
      const end = await start(['--redis-url', url]).exited
      expect(end).toMatchObject({ code: 1, stdout: '' })
      expect(end.stderr).toMatch(
        /^tidemark: --redis-url redis\+\w+:\/\/127\.0\.0\.1:1,.* can not be used: .*\n$/,
      )
      expect(end.stderr).toMatch(reason)
      expect(end.stderr).not.toContain('geheim')
    }
  })

  it('ends with 1 when what listens at the Redis address never answers', async () => {
    const mute = createServer(() => {}).listen(0, '127.0.0.1')
    await new Promise((resolve) => mute.once('listening', resolve))
    const { port } = mute.address() as { port: number }
    const end = await start(['--redis-url', `redis://127.0.0.1:${port}`]).exited
    mute.close()
    expect(end).toMatchObject({ code: 1, stdout: '' })
    expect(end.stderr).toBe(
      `tidemark: --redis-url redis://127.0.0.1:${port} can not be used: no answer in time\n`,
    )
  })
})

describe('a process that is told to end', () => {
  it('stops a slow upload, answers it with what was kept, and ends with 0', async () => {
    const server = start()
    const upload = await slowUpload(await server.port())
    server.signal('SIGTERM')
    const answer = await upload.until('Upload-Offset: 11')
    expect(answer).toContain('HTTP/1.1 204')
    await upload.closed
    const end = await server.exited
    expect(end.code).toBe(0)
    expect(end.stderr).toBe('')
    const lines = end.stdout.split('\n').filter((line) => line.includes('"PATCH"'))
    expect(lines).toHaveLength(1)
    expect(JSON.parse(lines[0]!)).toMatchObject({ msg: 'request', method: 'PATCH', status: 204, offset: 11 })
  })

  it('ends with 0 on SIGINT while idle connections are open', async () => {
    const server = start()
    const idle = await rawConnection(await server.port())
    idle.send('GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n')
    await idle.until('{"status":"ok"}')
    server.signal('SIGINT')
    expect((await server.exited).code).toBe(0)
  })

  it('ends with 0 also when the signal comes before it listens', async () => {
    const end = await start([], endsWhileItListens).exited
    expect([end.code, end.stderr]).toEqual([0, ''])
    expect(end.stdout).toContain('SIGTERM: ending')
    expect(end.stdout).toContain('"msg":"ended"')
  })

  it('does not wait for connections that have asked nothing yet', async () => {
    const server = start(['--shutdown-timeout', '10m'])
    const silent = await rawConnection(await server.port())
    const halfSaid = await rawConnection(await server.port())
    halfSaid.send('GET /health/live HTTP/1.1\r\n')
    server.signal('SIGTERM')
    await Promise.all([silent.closed, halfSaid.closed])
    expect((await server.exited).code).toBe(0)
  })

  it('leaves at once, with 1, on a second signal', async () => {
    const server = start([], neverEnds)
    await server.port()
    server.signal('SIGTERM')
    await server.line((line) => String(line.msg).startsWith('SIGTERM: ending'))
    server.signal('SIGTERM')
    const end = await server.exited
    expect(end.code).toBe(1)
    expect(end.stdout).toContain('second SIGTERM: leaving at once')
  })

  it('leaves with 1 when it can not end in time', async () => {
    const server = start(['--shutdown-timeout', '300ms'], neverEnds)
    await server.port()
    server.signal('SIGTERM')
    const end = await server.exited
    expect(end.code).toBe(1)
    expect(end.stdout).toContain('could not end in time')
  })

  it('leaves at once also while a thread waits for it to commit a record', async () => {
    const server = start([], endsWithinACommit)
    const port = await server.port()
    server.signal('SIGUSR2')
    await server.line((line) => line.msg === 'armed')
    await fetch(`http://127.0.0.1:${port}/files/`, {
      method: 'POST',
      headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '1000' },
    }).catch(() => undefined)
    const end = await server.exited
    expect(end.code).toBe(1)
    expect(end.stdout).toContain('second SIGTERM: leaving at once')
  })

  it('takes a UNIX socket over that a killed server left behind', async () => {
    const args = ['--unix-sock', `${folder.path}/t.sock`, '--upload-dir', `${folder.path}/data`]
    const listens = (line: Record<string, unknown>) => line.url === `${folder.path}/t.sock`
    const first = startBare(args)
    await first.line(listens)
    await first.stop()
    const second = startBare(args)
    await second.line(listens)
    second.signal('SIGTERM')
    expect((await second.exited).code).toBe(0)
  })
})
