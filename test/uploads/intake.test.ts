// Bodies that come in one piece with their head, as those of most small requests do: they are taken without waiting.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { expect, it, onTestFinished, vi } from 'vitest'
import { NodeExchange } from '../../server/host/exchange.ts'
import { StoreError } from '../../stores/contracts.ts'
import { FileAppender } from '../../stores/file/file-appender.ts'
import { Meter } from '../../stores/meter.ts'
import { type Site, startSite } from '../protocol/exchange.ts'

const body = Buffer.alloc(20_000, 'abcdefg')

/** A PATCH that is sent with one write, and the status of its answer. */
async function patch(site: Site, url: string, offset: number, sent: Buffer, more = ''): Promise<number> {
  const socket = connect(site.port, '127.0.0.1').setNoDelay()
  onTestFinished(() => void socket.destroy())
  const head = [
    `PATCH ${url} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: ${offset}\r\n`,
    `Content-Type: application/offset+octet-stream\r\nContent-Length: ${sent.length}\r\n${more}\r\n`,
  ]
  socket.write(Buffer.concat([Buffer.from(head.join('')), sent]))
  const [answer] = (await once(socket, 'data')) as [Buffer]
  return Number(answer.toString('latin1').slice(9, 12))
}

const checksumOf = (bytes: Buffer) =>
  `Upload-Checksum: sha1 ${createHash('sha1').update(bytes).digest('base64')}\r\n`

/** What the store was given to write. */
function spyOnWrites(): Uint8Array[] {
  const given: Uint8Array[] = []
  const { write } = FileAppender.prototype
  vi.spyOn(FileAppender.prototype, 'write').mockImplementation(function (
    this: FileAppender,
    buffers,
    position,
  ) {
    given.push(...buffers)
    return write.call(this, buffers, position)
  })
  onTestFinished(() => void vi.restoreAllMocks())
  return given
}

it('one is written and counted without being received piece by piece', async () => {
  const meter = new Meter()
  const received = vi.spyOn(meter, 'bodyBegins')
  const site = await startSite({ meter })
  const url = await site.create(2 * body.length)
  expect(await patch(site, url, 0, body)).toBe(204)
  expect(await patch(site, url, body.length, body)).toBe(204)
  expect(received).not.toHaveBeenCalled()
  expect(meter.receivedBytes).toBe(2 * body.length)
  expect((await site.send('GET', url)).text).toBe(`${body}${body}`)
})

it('the memory of one is given back when it is written, but of a small one', async () => {
  const given = spyOnWrites()
  const site = await startSite()
  const url = await site.create(30_000)
  expect(await patch(site, url, 0, body)).toBe(204)
  expect(await patch(site, url, body.length, body.subarray(0, 4000))).toBe(204)
  expect(given.map(({ length }) => length)).toEqual([0, 4000])
})

it('one to which somebody else listens is not taken', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const taken: unknown[] = []
  server.on('request', async (req, res) => {
    await setImmediate()
    const exchange = new NodeExchange(req, res)
    const listen = () => {}
    for (const event of ['readable', 'data']) {
      req.on(event, listen)
      taken.push(exchange.wholeBody(body.length))
      req.off(event, listen)
    }
    taken.push(exchange.wholeBody(body.length - 1), exchange.wholeBody(body.length)?.length)
    res.end()
  })
  const { port } = server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  const head = `PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n`
  socket.write(Buffer.concat([Buffer.from(head), body]))
  await once(socket, 'data')
  expect(taken).toEqual([undefined, undefined, undefined, body.length])
})

it('nothing of one counts that can not be written', async () => {
  const site = await startSite()
  const url = await site.create(body.length)
  vi.spyOn(FileAppender.prototype, 'write').mockRejectedValueOnce(new StoreError('full', 'no room'))
  expect(await patch(site, url, 0, body)).toBe(507)
  expect(await site.shown(url)).toBe('0/20000')
  expect(await patch(site, url, 0, body)).toBe(204)
  expect((await site.send('GET', url)).text).toBe(String(body))
})

it('nothing of one counts whose checksum is another', async () => {
  const site = await startSite()
  const url = await site.create(body.length)
  expect(await patch(site, url, 0, body, checksumOf(Buffer.from('other')))).toBe(460)
  expect(await site.shown(url)).toBe('0/20000')
  expect(await patch(site, url, 0, body, checksumOf(body))).toBe(204)
  expect((await site.send('GET', url)).text).toBe(String(body))
})
