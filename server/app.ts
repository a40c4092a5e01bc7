/**
 * The house around the rooms: one HTTP server, in which uploads, health checks and the page each have their place.
 *
 * What all requests have in common is said here: how connections live, who is logged, how Node's own refusals sound.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyPluginAsync,
  type FastifyReply,
  type FastifyServerOptions,
} from 'fastify'
import type { Logger } from 'pino'
import { requireAdmin } from './access/admin.ts'
import type { Gate } from './access/gate.ts'
import { accessRoutes } from './access/routes.ts'
import { type Config, plainPathOf } from './config.ts'
import type { ErrorCode } from './errors.ts'
import { answerClientErrors } from './host/client-errors.ts'
import { answerExpectations } from './host/continue.ts'
import { health } from './host/health.ts'
import { refusalAnswer } from './host/refusals.ts'
import { factsOf } from './host/request-facts.ts'
import { logWhenClosed, type RequestEnd } from './host/request-log.ts'
import { RunningRequests } from './host/running-requests.ts'
import { sendReply } from './host/send-reply.ts'
import { isBelow, tusMount } from './host/tus-mount.ts'
import type { UploadRoom } from './host/upload-room.ts'
import { type MetricsEndpoint, metricsPage } from './metrics/endpoint.ts'
import { kindOf, type RequestKind, type RequestTally } from './metrics/request-tally.ts'
import { maxHeaderBytes } from './protocol/header-limit.ts'
import { methodOf } from './protocol/tus.ts'
import { pathOf } from './protocol/upload-url.ts'

export interface AppParts {
  readonly config: Config
  readonly uploads: UploadRoom
  readonly logger: Logger
  /** Who is let in; undefined where everybody is. */
  readonly gate?: Gate | undefined
  /** What is shown to people at `/`. */
  readonly page?: FastifyPluginAsync
  /** Lists and progress. */
  readonly uploadsApi?: FastifyPluginAsync | undefined
  /** Where requests are counted. */
  readonly requests?: RequestTally
  /** Where the counts can be read; without it they can not be read here. */
  readonly metrics?: MetricsEndpoint | undefined
}

/** Longer than the 60 s for which proxies keep idle connections, or they would send requests into a closing one. */
const keepAliveTimeoutMs = 75_000
const headersTimeoutMs = 60_000

/** No route here has a schema, and loading the compilers for them would take a tenth of every start. */
const withoutSchemas = {
  compilersFactory: { buildValidator: () => () => () => true, buildSerializer: () => () => JSON.stringify },
} as unknown as NonNullable<FastifyServerOptions['schemaController']>

export function buildApp({
  config,
  uploads,
  logger,
  page,
  uploadsApi,
  gate,
  requests,
  metrics,
}: AppParts): FastifyInstance {
  const isUploadUrl = uploadUrlTest(config, metrics?.path)
  const running = new RunningRequests()
  let draining = false

  const app = fastify({
    serverFactory: (handler) => listeningServer(handler),
    clientErrorHandler: () => {}, // every server has its own listener, from listeningServer
    trustProxy: config.behindProxy ? [...config.trustedProxies] : false,
    genReqId: (raw) => factsOf(raw as IncomingMessage).requestId,
    frameworkErrors: (_error, request, reply) => refuse(request.raw, reply, 'url-invalid'),
    schemaController: withoutSchemas,
    // A HEAD that is answered 503 makes tus-js-client begin again at byte 0: even now the rooms answer themselves.
    return503OnClosing: false,
  })

  app.addHook('onRequest', (request, _reply, done) => {
    // A proxy hands on what the client wrote, which may be any text.
    if (isIP(request.ip) > 0) factsOf(request.raw).remoteAddress = request.ip
    done()
  })
  app.register(tusMount, { room: uploads, owns: isUploadUrl })
  app.setNotFoundHandler((request, reply) => refuse(request.raw, reply, 'route-unknown'))
  app.setErrorHandler<FastifyError>((error, request, reply) => {
    const isOurs = (error.statusCode ?? 500) >= 500
    if (isOurs) factsOf(request.raw).error = error
    return refuse(request.raw, reply, isOurs ? 'internal' : 'request-malformed')
  })
  app.register(accessRoutes, { gate })
  app.register(health, { uploads, isDraining: () => draining })
  if (metrics) app.register(metricsPage, { ...metrics, mayRead: requireAdmin(gate) })
  if (page) app.register(page)
  if (uploadsApi) app.register(uploadsApi)

  // First no new connections, then an end to what runs, then the rooms: Fastify calls onClose after preClose is done.
  app.addHook('preClose', async () => {
    draining = true
    const closed = new Promise((resolve) => app.server.close(resolve))
    await uploads.drain()
    await running.none()
    // What is left has asked nothing yet (browsers connect ahead), and Node would wait a minute for its headers.
    app.server.closeAllConnections()
    await closed
  })
  app.addHook('onClose', async () => {
    await uploads.close()
    await gate?.close?.()
  })
  return app

  /** Fastify asks for one server per address; all that is said about requests here holds for each of them. */
  function listeningServer(handler: (req: IncomingMessage, res: ServerResponse) => void): Server {
    const server = createServer({
      maxHeaderSize: maxHeaderBytes,
      keepAliveTimeout: keepAliveTimeoutMs,
      headersTimeout: headersTimeoutMs,
      requestTimeout: 0, // an upload may take days; how slow it may be is the byte path's to say
      noDelay: true,
      requireHostHeader: false, // refused below, by an answer that tus clients understand
    })
    // Beyond 2000 headers Node would drop the rest unseen, a checksum among them; their size is limited in any case.
    server.maxHeadersCount = 0
    const begin = (req: IncomingMessage, res: ServerResponse) => {
      running.add(req, res)
      logWhenClosed(req, res, logger, requests && ((end) => count(requests, req, end)))
      res.setHeader('X-Request-ID', factsOf(req).requestId)
    }
    const onRequest = (req: IncomingMessage, res: ServerResponse) => {
      begin(req, res)
      if (isHostClear(req)) handler(req, res)
      else refuseRaw(req, res, 'host-unclear')
    }
    server.on('request', onRequest)
    answerExpectations(server, {
      decidesItself: (req) => isUploadUrl(req.url),
      onRequest,
      onUnknown: (req, res) => {
        begin(req, res)
        refuseRaw(req, res, 'expectation-unknown')
      },
    })
    answerClientErrors(server, {
      ...{ running, allowedOrigins: config.corsAllowOrigin, logger },
      onRefused: (status, code) => requests?.addUnread(status, code),
    })
    if (requests) {
      server.on('connection', (socket) => {
        requests.connections++
        socket.once('close', () => requests.connections--)
      })
    }
    return server
  }

  function count(tally: RequestTally, req: IncomingMessage, { status, durationMs }: RequestEnd): void {
    const method = methodOf(req.method ?? '', req.headers)
    tally.add({ kind: kindOfRequest(req, method), method, status, code: factsOf(req).code, durationMs })
  }

  function kindOfRequest({ url = '/' }: IncomingMessage, method: string): RequestKind {
    if (isUploadUrl(url)) return kindOf(method)
    const path = pathOf(url)
    if (path === metrics?.path) return 'metrics'
    return path.startsWith('/health/') ? 'health' : 'page'
  }

  function refuseRaw(req: IncomingMessage, res: ServerResponse, code: ErrorCode): void {
    const { status, headers, body } = refusalAnswer(code, config.corsAllowOrigin, req.headers.origin)
    const facts = factsOf(req)
    facts.code = code
    const reply = { is: 'answer', status, headers: { ...headers, Connection: 'close' }, body } as const
    sendReply(req, res, reply, { facts, isEnding: draining }).catch(() => res.destroy())
  }

  function refuse(req: IncomingMessage, reply: FastifyReply, code: ErrorCode): FastifyReply {
    // Fastify would end the connection while the body still comes, and the client would never see why.
    if (!req.complete) {
      reply.hijack()
      refuseRaw(req, reply.raw, code)
      return reply
    }
    const { status, headers, body } = refusalAnswer(code, config.corsAllowOrigin, req.headers.origin)
    factsOf(req).code = code
    return reply.code(status).headers(headers).send(body)
  }
}

/** RFC 9112, 3.2: a request of HTTP/1.1 names one host, no request names two. */
function isHostClear({ rawHeaders, httpVersion }: IncomingMessage): boolean {
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]!.toLowerCase() === 'host') hosts++
  return hosts === 1 || (hosts === 0 && httpVersion === '1.0')
}

/**
 * `/files`, `/files/` and all below. At the root health checks and metrics keep their place; no id of an upload has a
 * slash in it.
 */
function uploadUrlTest(config: Config, metricsPath = ''): (url: string | undefined) => boolean {
  const { basePath } = config
  const isBelowBase = isBelow(basePath)
  const plainPath = plainPathOf(config)
  const isPlain = plainPath === undefined ? () => false : isBelow(plainPath)
  return (url = '/') =>
    isPlain(url) ||
    (isBelowBase(url) && !(basePath === '/' && (isHealth(pathOf(url)) || pathOf(url) === metricsPath)))
}

const isHealth = (path: string) => /^\/health\/(live|ready)$/.test(path)

/**
 * Closes everything within `timeoutMs`: who has not ended shortly before is cut off, so that the rooms have time left to
 * give back what they hold.
 */
export async function closeWithin(app: FastifyInstance, timeoutMs: number): Promise<void> {
  const reserveMs = Math.min(1000, timeoutMs / 4)
  const cut = setTimeout(() => app.server.closeAllConnections(), timeoutMs - reserveMs)
  try {
    await app.close()
  } finally {
    clearTimeout(cut)
  }
}
