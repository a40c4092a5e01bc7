import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { fastify } from 'fastify'
import { describe, expect, it, onTestFinished } from 'vitest'
import { BodyExchange } from '../../server/host/body-exchange.ts'
import { type Exchange, NodeExchange } from '../../server/host/exchange.ts'
import { Receiver, type ReceiverOptions } from '../../server/uploads/byte-path.ts'
import { Pulse } from '../../server/uploads/pulse.ts'
import { giveBack } from '../../server/uploads/spent-pieces.ts'

const MiB = 1024 * 1024
const body = Buffer.alloc(5 * MiB, 'abcdefg')

/** A store in memory, which remembers the buffers that it was given. */
function store() {
  const written = Buffer.alloc(body.length)
  const given: Uint8Array[] = []
  const write = async (buffers: readonly Uint8Array[], position: number) => {
    Buffer.concat(buffers).copy(written, position)
    given.push(...buffers)
  }
  return { written, write, left: () => given.reduce((bytes, { length }) => bytes + length, 0) }
}

function receive(source: Readable, options: Pick<ReceiverOptions, 'write' | 'freesPieces'>): Receiver {
  const pulse = new Pulse({ now: () => 0, everyMs: 3_600_000 })
  const limits = { offset: 0, endLimit: Number.POSITIVE_INFINITY, idleMs: 60_000, leastBytesPerSecond: 0 }
  return new Receiver({ source, pulse, ...limits, ...options })
}

/** Has the body sent to a real server, whose request `take` gets, and waits for that. */
async function send<T>(take: (req: IncomingMessage, res: ServerResponse) => Promise<T>): Promise<T> {
  const server = createServer().listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const taken = new Promise<T>((resolve, reject) => {
    server.on('request', (req, res) => {
      take(req, res)
        .finally(() => res.end())
        .then(resolve, reject)
    })
  })
  const { port } = server.address() as AddressInfo
  const client = request({ port, host: '127.0.0.1', method: 'PUT' }, (res) => res.resume())
  client.end(body)
  return taken
}

describe('the pieces of a body, once they are written', () => {
  it('are freed, but for small ones', async () => {
    const { written, write, left } = store()
    const ended = await send((req) => receive(req, { write, freesPieces: true }).done)
    expect(ended).toEqual({ why: 'complete', offset: body.length })
    expect(written.equals(body)).toBe(true)
    expect(left()).toBeLessThan(MiB)
  })

  it('stay where nobody says that they are of no use', async () => {
    const { written, write, left } = store()
    await send((req) => receive(req, { write }).done)
    expect(written.equals(body)).toBe(true)
    expect(left()).toBe(body.length)
  })

  it('stay where the write failed, and it is not known who still reads them', async () => {
    const given: Uint8Array[] = []
    const write = async (buffers: readonly Uint8Array[]) => {
      given.push(...buffers)
      throw new Error('no space')
    }
    const ended = await send((req) => receive(req, { write, freesPieces: true }).done)
    expect(ended).toMatchObject({ why: 'failed', offset: 0 })
    expect(given.reduce((bytes, { length }) => bytes + length, 0)).toBeGreaterThanOrEqual(MiB)
  })

  const hear = {
    on: (req: IncomingMessage, heard: Buffer[]) => req.on('data', (chunk: Buffer) => heard.push(chunk)),
    once: (req: IncomingMessage, heard: Buffer[]) => req.once('data', (chunk: Buffer) => heard.push(chunk)),
    read: (req: IncomingMessage, heard: Buffer[]) =>
      req.on('readable', () => {
        for (let chunk = req.read(); chunk !== null; chunk = req.read()) heard.push(chunk)
      }),
  }

  it.each([
    ['before us', 'on'],
    ['after us', 'on'],
    ['before us', 'once'],
    ['before us', 'read'],
    ['after us', 'read'],
  ] as const)('stay where somebody else listens, who came %s, by %s', async (when, how) => {
    const { write, left } = store()
    const heard: Buffer[] = []
    await send((req) => {
      if (when === 'before us') hear[how](req, heard)
      const { done } = receive(req, { write, freesPieces: true })
      if (when === 'after us') hear[how](req, heard)
      return done
    })
    expect(heard.length).toBeGreaterThan(0)
    const bytes = Buffer.concat(heard)
    expect(bytes.equals(body.subarray(0, bytes.length))).toBe(true)
    expect(left()).toBe(body.length)
  })
})

describe('a request says that its pieces are its own', () => {
  const exchangeOf = (req: IncomingMessage, res: ServerResponse) => new NodeExchange(req, res)

  it('where Node made them for a connection, and not of a part of its body', async () => {
    const own = await send(async (req, res) => {
      const exchange = exchangeOf(req, res)
      const body = exchange.body()
      const part = new BodyExchange(exchange, () => Readable.from([]))
      const same = new BodyExchange(exchange, () => exchange.body())
      const of = (each: Exchange) => each.hasOwnPieces?.(each.body())
      req.resume()
      await once(req, 'end')
      return [exchange.hasOwnPieces(body), of(part), of(same)]
    })
    expect(own).toEqual([true, false, true])
  })

  it('not where a test injected it', async () => {
    let own: boolean | undefined
    const app = fastify()
    app.addContentTypeParser('*', (_request, _body, done) => done(null))
    app.put('/', async ({ raw }, reply) => {
      own = exchangeOf(raw, reply.raw).hasOwnPieces(raw)
      return ''
    })
    await app.inject({ method: 'PUT', url: '/', payload: Buffer.alloc(64 * 1024) })
    expect(own).toBe(false)
  })
})

describe('giving back', () => {
  it('frees what is all of its memory, and leaves a part of it, and what can not be handed over', () => {
    const whole = Buffer.allocUnsafeSlow(64 * 1024)
    const part = Buffer.alloc(64 * 1024).subarray(0, 32 * 1024)
    const shared = Buffer.from(new SharedArrayBuffer(64 * 1024))
    const small = Buffer.alloc(100)
    giveBack([part, whole, small])
    expect([whole, part, small].map(({ length }) => length)).toEqual([0, 32 * 1024, 100])
    giveBack([shared])
    expect(shared.length).toBe(64 * 1024)
    giveBack([])
  })
})
