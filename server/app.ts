/**
 * The house around the rooms: one HTTP server, in which uploads, health checks and the page each have their place.
 *
 * Uploads get Node's own request and response from an onRequest hook, so plugins that were registered before (sign-in,
 * rate limits) go first, and nothing of Fastify (body parsers, limits, timeouts) touches the bytes. Not through
 * @fastify/middie: it would rewrite the URL and write nine properties on every request, for one mount.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyPluginAsync,
  type FastifyReply,
} from 'fastify'
import type { Logger } from 'pino'
import type { Config } from './config.ts'
import type { ErrorCode } from './errors.ts'
import { answerClientErrors } from './host/client-errors.ts'
import { answerExpectations } from './host/continue.ts'
import { health } from './host/health.ts'
import { refusalAnswer } from './host/refusals.ts'
import { factsOf } from './host/request-facts.ts'
import { logWhenClosed } from './host/request-log.ts'
import { RunningRequests } from './host/running-requests.ts'
import type { UploadRoom } from './host/upload-room.ts'

export interface AppParts {
  readonly config: Config
  readonly uploads: UploadRoom
  readonly logger: Logger
  /** What is shown to people at `/`. */
  readonly page?: FastifyPluginAsync
}

/** Metadata and concatenations travel in headers; Node's own limit is 16 KiB. */
const maxHeaderBytes = 128 * 1024
/** Longer than the 60 s for which proxies keep idle connections, or they would send requests into a closing one. */
const keepAliveTimeoutMs = 75_000
const headersTimeoutMs = 60_000

export function buildApp({ config, uploads, logger, page }: AppParts): FastifyInstance {
  const isUploadUrl = uploadUrlTest(config.basePath)
  const running = new RunningRequests()
  let draining = false

  const app = fastify({
    serverFactory: (handler) => listeningServer(handler),
    clientErrorHandler: () => {}, // every server has its own listener, from listeningServer
    trustProxy: config.behindProxy ? [...config.trustedProxies] : false,
    genReqId: (raw) => factsOf(raw as IncomingMessage).requestId,
    frameworkErrors: (_error, request, reply) => refuse(request.raw, reply, 'url-invalid'),
    // A HEAD that is answered 503 makes tus-js-client begin again at byte 0: even now the rooms answer themselves.
    return503OnClosing: false,
  })

  app.addHook('onRequest', (request, reply, done) => {
    factsOf(request.raw).remoteAddress = request.ip
    if (!isUploadUrl(request.raw.url)) return done()
    reply.hijack()
    handleUpload(request.raw, reply.raw)
  })
  app.setNotFoundHandler((request, reply) => refuse(request.raw, reply, 'route-unknown'))
  app.setErrorHandler<FastifyError>((error, request, reply) => {
    const isOurs = (error.statusCode ?? 500) >= 500
    if (isOurs) factsOf(request.raw).error = error
    return refuse(request.raw, reply, isOurs ? 'internal' : 'request-malformed')
  })
  app.register(health, { uploads, isDraining: () => draining })
  if (page) app.register(page)

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
  app.addHook('onClose', () => uploads.close())
  return app

  /** Fastify asks for one server per address; all that is said about requests here holds for each of them. */
  function listeningServer(handler: (req: IncomingMessage, res: ServerResponse) => void): Server {
    const server = createServer({
      maxHeaderSize: maxHeaderBytes,
      keepAliveTimeout: keepAliveTimeoutMs,
      headersTimeout: headersTimeoutMs,
      requestTimeout: 0, // an upload may take days; how slow it may be is the byte path's to say
      noDelay: true,
    })
    const begin = (req: IncomingMessage, res: ServerResponse) => {
      running.add(req, res)
      logWhenClosed(req, res, logger)
      res.setHeader('X-Request-ID', factsOf(req).requestId)
    }
    const onRequest = (req: IncomingMessage, res: ServerResponse) => {
      begin(req, res)
      handler(req, res)
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
    answerClientErrors(server, { running, allowedOrigins: config.corsAllowOrigin, logger })
    return server
  }

  function handleUpload(req: IncomingMessage, res: ServerResponse): void {
    uploads.handle(req, res).catch((error: unknown) => {
      factsOf(req).error = error
      if (res.headersSent) res.destroy()
      else refuseRaw(req, res, 'internal')
    })
  }

  function refuseRaw(req: IncomingMessage, res: ServerResponse, code: ErrorCode): void {
    const { status, headers, body } = refusalAnswer(code, config.corsAllowOrigin, req.headers.origin)
    factsOf(req).code = code
    res.writeHead(status, { ...headers, Connection: 'close' }).end(body)
  }

  function refuse(req: IncomingMessage, reply: FastifyReply, code: ErrorCode): FastifyReply {
    const { status, headers, body } = refusalAnswer(code, config.corsAllowOrigin, req.headers.origin)
    factsOf(req).code = code
    // A body that nobody reads would keep its connection from ever being used again.
    if (hasBody(req)) reply.header('connection', 'close')
    return reply.code(status).headers(headers).send(body)
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** `/files`, `/files/` and all below; also in the absolute form that a proxy may send (`GET http://host/files/`). */
function uploadUrlTest(basePath: string): (url: string | undefined) => boolean {
  const bare = basePath.slice(0, -1)
  // At the root health checks keep their place; no id of an upload has a slash in it.
  const isTaken = (path: string) => basePath === '/' && /^\/health\/(live|ready)$/.test(path)
  return (url = '') => {
    const path = url.replace(/^https?:\/\/[^/?#]*/i, '').split('?', 1)[0]!
    return (path === bare || path.startsWith(basePath)) && !isTaken(path)
  }
}

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
