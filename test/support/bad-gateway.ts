// A reverse proxy that can lose sight of its server: on demand it answers HEAD by itself, as gateways do in front of a
// server that restarts, while everything else goes through.

import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream'

export type BadGateway = {
  port: number
  /** Answered to the next HEAD requests in place of the server, one each. */
  headStatuses: number[]
  close: () => Promise<void>
}

export async function startBadGateway(target: number): Promise<BadGateway> {
  const headStatuses: number[] = []
  const gateway = http.createServer((request, response) => {
    const status = request.method === 'HEAD' ? headStatuses.shift() : undefined
    if (status !== undefined) return void response.writeHead(status).end()
    const { method, url, headers } = request
    const onward = http.request({ host: '127.0.0.1', port: target, method, path: url, headers, agent: false })
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      pipeline(answer, response, () => undefined)
    })
    // Whichever side breaks, the other shall know at once.
    pipeline(request, onward, (error) => error && response.destroy())
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
  })
  gateway.listen(0, '127.0.0.1')
  await once(gateway, 'listening')
  return {
    port: (gateway.address() as AddressInfo).port,
    headStatuses,
    close: async () => {
      const closed = once(gateway, 'close')
      gateway.close().closeAllConnections()
      await closed
    },
  }
}
