// The wire between a server and Redis, which can lose what Redis tells subscribers, and only that.

import { once } from 'node:events'
import net from 'node:net'

export type RedisWire = {
  url: string
  /** From now on messages are lost; answers to commands are not. */
  loseMessages: () => void
  /** Messages that were lost. */
  readonly lostMessages: number
  close: () => Promise<void>
}

/** How a message begins on the wire. */
const message = '*3\r\n$7\r\nmessage\r\n'

export async function startRedisWire(port: number): Promise<RedisWire> {
  const sockets = new Set<net.Socket>()
  let isLosing = false
  let lostMessages = 0
  const server = net.createServer((client) => {
    const upstream = net.connect(port, '127.0.0.1')
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
    client.on('data', (data) => upstream.write(data))
    // A connection for messages carries little else, so that they come alone or several together.
    upstream.on('data', (data) => {
      const messages = data.toString('latin1').split(message).length - 1
      if (!isLosing || messages === 0) client.write(data)
      else lostMessages += messages
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `redis://127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    loseMessages() {
      isLosing = true
    },
    get lostMessages() {
      return lostMessages
    },
    async close() {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, 'close')
    },
  }
}
