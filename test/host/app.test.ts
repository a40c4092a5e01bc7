import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { buildApp, closeWithin } from '../../server/app.ts'
import { loadConfig } from '../../server/config.ts'
import { factsOf } from '../../server/host/request-facts.ts'
import type { UploadRoom } from '../../server/host/upload-room.ts'
import { rawConnection } from './process.ts'

type Line = Record<string, unknown>

let app: FastifyInstance
let port: number
let lines: Line[]
let onLine: Set<() => void>
let room: UploadRoom & { urls: string[]; closed: boolean }

/** A room that answers what it was asked, and can be told to behave otherwise. */
function smallRoom(): typeof room {
  return {
    urls: [],
    closed: false,
    async handle(req, res) {
      this.urls.push(`${req.method} ${req.url}`)
      res.end('here')
    },
    async checkReady() {},
    async drain() {},
    async close() {
      this.closed = true
    },
  }
}

async function listen(args: string[] = []): Promise<void> {
  const config = loadConfig(['--log-level=debug', ...args], {})
  const logger = pino(
    { level: config.logLevel, base: null, formatters: { level: (level) => ({ level }) } },
    {
      write(text: string) {
        lines.push(JSON.parse(text))
        for (const listener of onLine) listener()
      },
    },
  )
  app = buildApp({ config, uploads: room, logger })
  await app.listen({ host: '127.0.0.1', port: 0 })
  port = (app.server.address() as AddressInfo).port
}

const line = (wanted: (line: Line) => boolean) =>
  new Promise<Line>((resolve) => {
    const look = () => {
      const found = lines.find(wanted)
      if (found) resolve(found)
    }
    onLine.add(look)
    look()
  })
const requestLine = (url: string) => line((l) => l.msg === 'request' && l.url === url)
const get = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${port}${path}`, init)

beforeEach(() => {
  lines = []
  onLine = new Set()
  room = smallRoom()
})
afterEach(() => app.close())

it('gives the room what is sent to the upload path, where it is not off or in the way', async () => {
  const reached = async (path: string) => {
    room.urls.length = 0
    await get(path, { method: 'PUT' })
    return room.urls.length > 0
  }
  await listen()
  for (const path of ['/upload', '/upload/', '/upload/a%2Fb', '/upload?x'])
    expect(await reached(path)).toBe(true)
  expect(await reached('/uploads')).toBe(false)
  for (const args of [['--upload-path=off'], ['--base-path=/upload/files', '--show-page=false']]) {
    await app.close()
    room = smallRoom()
    await listen(args)
    expect(await reached('/upload/a')).toBe(false)
  }
})

describe('the way to uploads', () => {
  it.each(['/files', '/files/', '/files/abc', '/files/a/b?x=1'])(
    'leads %s there, with its URL untouched',
    async (path) => {
      await listen()
      expect(await (await get(path)).text()).toBe('here')
      expect(room.urls).toEqual([`GET ${path}`])
    },
  )

  it.each(['GET', 'HEAD', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'LOCK'])(
    'leads %s there',
    async (method) => {
      await listen()
      expect((await get('/files/', { method })).status).toBe(200)
      expect(room.urls).toEqual([`${method} /files/`])
    },
  )

  it('leads nothing else there', async () => {
    await listen()
    expect((await get('/filesystem')).status).toBe(404)
    expect(room.urls).toEqual([])
  })

  it('answers 500 without a word about why when a room fails, and logs why', async () => {
    room.handle = async () => {
      throw new Error('secret reason')
    }
    await listen()
    const answer = await get('/files/')
    expect(answer.status).toBe(500)
    expect(await answer.text()).not.toContain('secret')
    const logged = await requestLine('/files/')
    expect(logged).toMatchObject({ level: 'error', code: 'internal', err: { message: 'secret reason' } })
  })
})

describe('request ids', () => {
  it('are taken over and sent back', async () => {
    await listen()
    const answer = await get('/files/', { headers: { 'X-Request-ID': 'proxy-1.2' } })
    expect(answer.headers.get('x-request-id')).toBe('proxy-1.2')
    expect(await requestLine('/files/')).toMatchObject({ requestId: 'proxy-1.2' })
  })

  it.each(['a b', 'x'.repeat(200), '<script>'])('are made anew instead of %j', async (sent) => {
    await listen()
    const answer = await get('/nothing', { headers: { 'X-Request-ID': sent } })
    expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  })
})

describe('the request log', () => {
  it('has one line for a request, with what the room found out and without query values', async () => {
    room.handle = async (req, res) => {
      Object.assign(factsOf(req), { uploadId: 'abc', code: 'locked', bytesReceived: 3, offset: 7 })
      res.writeHead(423).end()
    }
    await listen()
    await get('/files/abc?token=geheim&x=1')
    const logged = await requestLine('/files/abc?token&x')
    expect(logged).toMatchObject({
      level: 'info',
      method: 'GET',
      status: 423,
      uploadId: 'abc',
      code: 'locked',
      bytesReceived: 3,
      offset: 7,
      remoteAddress: '127.0.0.1',
    })
    expect(logged).toHaveProperty('durationMs')
    expect(logged).not.toHaveProperty('aborted')
    expect(lines.filter((l) => l.msg === 'request')).toHaveLength(1)
  })

  it('has a line for a request whose client went away', async () => {
    room.handle = async (req) => void req.resume()
    await listen()
    const client = await rawConnection(port)
    client.send('PATCH /files/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc')
    setImmediate(() => client.socket.destroy())
    const logged = await requestLine('/files/x')
    expect(logged).toMatchObject({ aborted: true })
    expect(logged).not.toHaveProperty('status')
  })

  it.each([
    [['--behind-proxy'], '203.0.113.9'],
    [[], '127.0.0.1'],
    [['--behind-proxy', '--trusted-proxies=10.0.0.1'], '127.0.0.1'],
  ])('with %j says that %s sent a forwarded request', async (args, address) => {
    await listen(args)
    await get('/files/', { headers: { 'X-Forwarded-For': '203.0.113.9' } })
    expect(await requestLine('/files/')).toMatchObject({ remoteAddress: address })
  })
})

describe('health', () => {
  it('is ready while uploads are', async () => {
    await listen()
    for (const path of ['/health/live', '/health/ready']) {
      const answer = await get(path)
      expect(answer.status).toBe(200)
      expect(answer.headers.get('cache-control')).toBe('no-store')
      expect(await answer.json()).toEqual({ status: 'ok' })
      expect(await requestLine(path)).toMatchObject({ level: 'debug' })
    }
  })

  it('is alive but not ready when uploads can not be received, and says why', async () => {
    room.checkReady = async () => {
      throw new Error('Redis can not be reached')
    }
    await listen()
    expect((await get('/health/live')).status).toBe(200)
    const answer = await get('/health/ready')
    expect(answer.status).toBe(503)
    expect(await answer.json()).toEqual({ status: 'unavailable', reason: 'Redis can not be reached' })
  })

  it('is not ready when the check never ends', async () => {
    room.checkReady = () => new Promise(() => {})
    await listen()
    expect((await get('/health/ready')).status).toBe(503)
  })

  it('asks once for many who ask at once', async () => {
    let asked = 0
    room.checkReady = async () => {
      asked++
    }
    await listen()
    await Promise.all(Array.from({ length: 10 }, () => get('/health/ready')))
    expect(asked).toBe(1)
  })

  it('is not ready while the server ends', async () => {
    await listen()
    const client = await rawConnection(port)
    client.send('GET /health/ready HTTP/1.1\r\nHost: x\r\n')
    await new Promise((resolve) => app.server.getConnections(resolve))
    // A request whose headers are not all there holds its connection, and is answered in the end.
    room.drain = async () => {
      client.send('\r\n')
      await client.until('shutting down')
    }
    await app.close()
    expect(await client.closed).toMatch(/^HTTP\/1.1 503 /)
  })
})

describe('requests that are refused before a room sees them', () => {
  it('answers 431 to headers that are too large, and logs one line', async () => {
    await listen()
    const client = await rawConnection(port)
    client.send(`PATCH /files/x HTTP/1.1\r\nHost: x\r\nUpload-Metadata: ${'a'.repeat(200_000)}`)
    const answer = await client.until('headers-too-large')
    expect(answer).toMatch(/^HTTP\/1.1 431 Request Header Fields Too Large\r\n/)
    expect(answer).toContain('\r\nTus-Resumable: 1.0.0\r\n')
    expect(answer).toContain('\r\nAccess-Control-Allow-Origin: *\r\n')
    expect(answer).toContain('\r\nConnection: close\r\n')
    expect(answer).toMatch(/\r\nContent-Length: \d+\r\n/)
    client.send('more of it')
    client.socket.end()
    await client.closed
    expect(lines.filter((l) => l.code === 'headers-too-large')).toHaveLength(1)
  })

  it('takes headers of 100 KiB', async () => {
    await listen()
    expect((await get('/files/', { headers: { 'Upload-Metadata': 'a'.repeat(100_000) } })).status).toBe(200)
  })

  it('answers 400 to what is not HTTP', async () => {
    await listen()
    const client = await rawConnection(port)
    client.send('BREW /files/ COFFEE\r\n\r\n')
    expect(await client.until('request-malformed')).toMatch(
      /^HTTP\/1.1 400 Bad Request\r\nTus-Resumable: 1.0.0\r\n/,
    )
  })

  it('has one line for a body that breaks in the middle', async () => {
    room.handle = async (req) => void req.resume()
    await listen()
    const client = await rawConnection(port)
    client.send('PATCH /files/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n')
    expect(await client.until('request-malformed')).toMatch(/^HTTP\/1.1 400 /)
    expect(await requestLine('/files/x')).toMatchObject({ status: 400, code: 'request-malformed' })
    expect(lines).toHaveLength(1)
  })

  it('goes on after connections that died in the middle of a request', async () => {
    await listen()
    for (const part of ['', 'GET /fi', 'PATCH /files/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab']) {
      const client = await rawConnection(port)
      client.send(part)
      client.socket.resetAndDestroy()
      await client.closed
    }
    expect((await get('/health/live')).status).toBe(200)
  })

  it('answers 400 to a URL that can not be decoded', async () => {
    await listen()
    const answer = await get('/%zz')
    expect(answer.status).toBe(400)
    expect(answer.headers.get('tus-resumable')).toBe('1.0.0')
    expect(await answer.text()).toMatch(/^url-invalid: /)
    expect(await requestLine('/%zz')).toMatchObject({ status: 400, code: 'url-invalid' })
  })

  it('answers 404 where there is nothing, readable for allowed sites alone', async () => {
    await listen(['--cors-allow-origin', 'https://a.example'])
    const from = async (origin: string) =>
      (await get('/nothing', { headers: { Origin: origin } })).headers.get('access-control-allow-origin')
    expect(await from('https://a.example')).toBe('https://a.example')
    expect(await from('https://b.example')).toBe(null)
    expect(await requestLine('/nothing')).toMatchObject({ status: 404, code: 'route-unknown' })
  })
})

describe('Expect: 100-continue', () => {
  const head = (path: string, expectation = '100-continue') =>
    `POST ${path} HTTP/1.1\r\nHost: x\r\nExpect: ${expectation}\r\nContent-Length: 3\r\n\r\n`

  it('lets the room refuse before the body is sent', async () => {
    room.handle = async (req, res) => {
      res.writeHead(413, { 'X-Expects': String(factsOf(req).expectsContinue) }).end()
    }
    await listen()
    const client = await rawConnection(port)
    client.send(head('/files/'))
    const answer = await client.until('X-Expects: true')
    expect(answer).toMatch(/^HTTP\/1.1 413 /)
  })

  it('lets the room say when it wants the body', async () => {
    room.handle = async (req, res) => {
      res.writeContinue()
      for await (const chunk of req) res.write(chunk)
      res.end()
    }
    await listen()
    const client = await rawConnection(port)
    client.send(head('/files/'))
    await client.until('HTTP/1.1 100 Continue')
    client.send('abc')
    await client.until('abc')
  })

  it('is told to go on everywhere else', async () => {
    await listen()
    const client = await rawConnection(port)
    client.send(head('/nothing'))
    expect(await client.until('404')).toMatch(/^HTTP\/1.1 100 Continue\r\n/)
  })

  it('is 417 for another expectation', async () => {
    await listen()
    const client = await rawConnection(port)
    client.send(head('/files/', 'miracles'))
    await client.until('expectation-unknown')
    expect(await requestLine('/files/')).toMatchObject({ status: 417 })
  })
})

describe('the end', () => {
  it('asks rooms to stop running requests, and closes them when all have ended', async () => {
    const order: string[] = []
    let finish = () => {}
    const begun = new Promise<void>((resolve) => {
      room.handle = async (_req, res) => {
        res.once('close', () => order.push('answered'))
        finish = () => res.writeHead(204).end()
        resolve()
      }
    })
    room.drain = async () => {
      order.push('drain')
      finish()
    }
    room.close = async () => void order.push('close')
    await listen()
    const answer = get('/files/x', { method: 'PATCH' })
    await begun
    await app.close()
    expect((await answer).status).toBe(204)
    expect(order).toEqual(['drain', 'answered', 'close'])
  })

  it('cuts what does not stop in time', async () => {
    room.handle = async () => {}
    await listen()
    const client = await rawConnection(port)
    client.send('GET /files/x HTTP/1.1\r\nHost: x\r\n\r\n')
    await new Promise((resolve) => app.server.once('request', resolve))
    await closeWithin(app, 100)
    await client.closed
    expect(room.closed).toBe(true)
    expect(await requestLine('/files/x')).toMatchObject({ aborted: true })
  })
})
