/**
 * Where Prometheus reads: a path of the server itself, for admins where people sign in, or a port of its own for those
 * inside, which is open to all who reach it.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { FastifyInstance, onRequestAsyncHookHandler } from 'fastify'
import { factsOf } from '../host/request-facts.ts'
import { pathOf } from '../protocol/upload-url.ts'
import { contentType } from './metrics.ts'

export interface MetricsEndpoint {
  readonly path: string
  /** The metrics of all processes of this server. */
  readonly read: () => Promise<string>
}

/** On the server's own port; `mayRead` answers those who may not. */
export async function metricsPage(
  app: FastifyInstance,
  { path, read, mayRead }: MetricsEndpoint & { readonly mayRead: onRequestAsyncHookHandler },
): Promise<void> {
  app.get(path, { onRequest: mayRead }, async (request, reply) => {
    factsOf(request.raw).isRoutine = true
    return reply.headers(headers).send(await read())
  })
}

export interface OwnPort {
  readonly port: number
  close(): Promise<void>
}

/** On a port of its own, where there is nothing else. */
export async function openMetricsPort(
  { host, port }: { readonly host: string; readonly port: number },
  { path, read }: Pick<MetricsEndpoint, 'path' | 'read'>,
): Promise<OwnPort> {
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    request.resume()
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    if (!isRead || pathOf(request.url ?? '/') !== path)
      return void response.writeHead(404, plain).end(`route-unknown: the metrics are at ${path}\n`)
    const text = await read()
    response.writeHead(200, headers).end(request.method === 'HEAD' ? undefined : text)
  }
  const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
    answer(request, response).catch(() => response.destroy())
  })
  server.listen(port, host)
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : port,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

const plain = {
  'Cache-Control': 'no-store',
  'Content-Type': 'text/plain; charset=utf-8',
  'X-Content-Type-Options': 'nosniff',
}
const headers = { ...plain, 'Content-Type': contentType }
