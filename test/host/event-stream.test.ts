import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { expect, it, onTestFinished, vi } from 'vitest'
import { EventStream } from '../../server/host/event-stream.ts'

it('is not ready once its reader takes nothing, holds no more than a write, and is let go in the end', async () => {
  const { stream, socket } = await startStream()
  const mebibyte = 'x'.repeat(1024 * 1024)
  // As long as the system takes it; that is its memory, and bounded by it.
  await vi.waitFor(() => {
    while (stream.open.isReady) stream.open.send('progress', 1, mebibyte)
    expect(stream.isDrained()).toBe(false)
  })
  expect(stream.unsentBytes()).toBeLessThan(2 * mebibyte.length)
  stream.open.beat(60_000)
  expect(stream.isDestroyed()).toBe(false)
  stream.open.beat(0)
  expect(stream.isDestroyed()).toBe(true)
  socket.destroy()
})

it('is ready again when its reader goes on, and says so', async () => {
  const { stream, socket } = await startStream()
  const mebibyte = 'x'.repeat(1024 * 1024)
  while (stream.open.isReady) stream.open.send('progress', 1, mebibyte)
  const before = stream.readyAgain()
  socket.resume()
  await vi.waitFor(() => expect(stream.readyAgain()).toBeGreaterThan(before))
  expect(stream.open.isReady).toBe(true)
})

it('ends at once for a reader that takes nothing, so that its server can end', async () => {
  const { stream } = await startStream()
  const mebibyte = 'x'.repeat(1024 * 1024)
  await vi.waitFor(() => {
    while (stream.open.isReady) stream.open.send('progress', 1, mebibyte)
    expect(stream.isDrained()).toBe(false)
  })
  stream.open.end()
  expect(stream.isDestroyed()).toBe(true)
})

/** A stream whose reader reads nothing until it is told to. */
async function startStream() {
  let readyAgain = 0
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  onTestFinished(() => {
    socket.destroy()
    server.closeAllConnections()
    server.close()
  })
  socket.on('error', () => undefined)
  socket.pause()
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  const [, res] = (await once(server, 'request')) as [unknown, import('node:http').ServerResponse]
  const open = new EventStream(res, {}, () => readyAgain++)
  const stream = {
    open,
    unsentBytes: () => res.writableLength,
    isDrained: () => !res.writableNeedDrain,
    isDestroyed: () => res.destroyed,
    readyAgain: () => readyAgain,
  }
  return { stream, socket }
}
