// A load balancer without sticky sessions, as small as one can be: each connection goes to the next server in turn, and
// past those that refuse it.

import { once } from 'node:events'
import net from 'node:net'

export type Balancer = { port: number; url: string; close: () => Promise<void> }

export async function startBalancer(targets: readonly number[]): Promise<Balancer> {
  const sockets = new Set<net.Socket>()
  let turn = 0
  const server = net.createServer((client) => {
    keep(client)
    handOn(client, turn++, targets.length)
  })

  function handOn(client: net.Socket, next: number, triesLeft: number): void {
    if (triesLeft === 0) return void client.destroy()
    const upstream = net.connect(targets[next % targets.length]!, '127.0.0.1')
    keep(upstream)
    const tryNext = () => handOn(client, next + 1, triesLeft - 1)
    upstream.once('error', tryNext)
    upstream.once('connect', () => {
      upstream.off('error', tryNext)
      client.pipe(upstream).pipe(client)
      client.once('close', () => upstream.destroy())
      upstream.once('close', () => client.destroy())
    })
  }

  function keep(socket: net.Socket): void {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.on('error', () => undefined)
    socket.once('close', () => sockets.delete(socket))
  }

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
