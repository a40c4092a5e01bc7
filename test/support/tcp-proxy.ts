// A wire that tests can move, slow down, silence and cut: TCP on a loopback port, handed on to wherever `target` says now.

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
  /** Connections are accepted and stay open, and nothing comes through: no byte, and no end either. */
  isSilent: boolean
  /** Cuts every connection that is open now. */
  cut: () => void
  close: () => Promise<void>
}

export async function startTcpProxy(target: number): Promise<TcpProxy> {
  const sockets = new Set<net.Socket>()
  const waiting = new Set<() => void>()
  let sentBytes = 0
  let isSilent = false
  /** At once, or when the wire is no longer silent. */
  const onceHeard = (act: () => void) => void (isSilent ? waiting.add(act) : act())

  const server = net.createServer((client) => {
    const upstream = net.connect(proxy.target, '127.0.0.1')
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => undefined)
      socket.on('end', () => onceHeard(() => other.end()))
      socket.on('close', () => {
        sockets.delete(socket)
        onceHeard(() => other.destroy())
      })
      socket.on('data', (chunk) => {
        socket.pause()
        onceHeard(() => handOn(socket, other, chunk, socket === client))
      })
    }
  })

  function handOn(from: net.Socket, to: net.Socket, chunk: Buffer, isFromClient: boolean): void {
    if (isFromClient) sentBytes += chunk.length
    const { bytesPerSecond } = proxy
    const pauseMs = isFromClient && bytesPerSecond > 0 ? (chunk.length / bytesPerSecond) * 1000 : 0
    const resume = () => from.resume()
    const isFull = !to.write(chunk)
    if (pauseMs > 0) setTimeout(resume, pauseMs)
    else if (isFull) to.once('drain', resume)
    else resume()
  }

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
    get isSilent() {
      return isSilent
    },
    set isSilent(value) {
      isSilent = value
      if (isSilent) return
      const acts = [...waiting]
      waiting.clear()
      for (const act of acts) act()
    },
    cut,
    close: async () => {
      proxy.isSilent = false
      cut()
      server.close()
      await once(server, 'close')
    },
  }
  return proxy
}
