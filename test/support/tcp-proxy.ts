// A wire that tests can move, slow down and cut: TCP on a loopback port, handed on to wherever `target` says now.

import { once } from 'node:events'
import net from 'node:net'

export type TcpProxy = {
  port: number
  url: string
  /** Where new connections go. */
  target: number
  /** Bytes that clients have sent through it. */
  readonly sentBytes: number
  /** Most bytes per second from the clients; 0 is no limit. */
  bytesPerSecond: number
  /** Cuts every connection that is open now. */
  cut: () => void
  close: () => Promise<void>
}

export async function startTcpProxy(target: number): Promise<TcpProxy> {
  const sockets = new Set<net.Socket>()
  let sentBytes = 0
  const server = net.createServer((client) => {
    const upstream = net.connect(proxy.target, '127.0.0.1')
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
    upstream.pipe(client)
    client.on('data', (chunk) => {
      sentBytes += chunk.length
      const isFull = !upstream.write(chunk)
      const pauseMs = proxy.bytesPerSecond > 0 ? (chunk.length / proxy.bytesPerSecond) * 1000 : 0
      if (!isFull && pauseMs === 0) return
      client.pause()
      const resume = () => client.resume()
      if (pauseMs > 0) setTimeout(resume, pauseMs)
      else upstream.once('drain', resume)
    })
    client.on('end', () => upstream.end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  const proxy: TcpProxy = {
    port,
    url: `http://127.0.0.1:${port}`,
    target,
    get sentBytes() {
      return sentBytes
    },
    bytesPerSecond: 0,
    cut,
    close: async () => {
      cut()
      server.close()
      await once(server, 'close')
    },
  }
  return proxy
}
