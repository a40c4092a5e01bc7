/**
 * Requests that Node refuses before anybody sees them (headers too large, not HTTP, CONNECT) get a whole HTTP answer, in
 * their turn, and one log line. A connection that merely died is nobody's error, and never ends the process.
 */
import { type Server, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import type { Config } from '../config.ts'
import type { ErrorCode } from '../errors.ts'
import { refusalAnswer } from './refusals.ts'
import type { RunningRequests } from './running-requests.ts'

/** How long a refused client may go on sending until it is cut: a reset would take the answer from its hands. */
const lingerMs = 2000

export function answerClientErrors(
  server: Server,
  options: {
    running: RunningRequests
    allowedOrigins: Config['corsAllowOrigin']
    logger: Logger
    /** Told of what was refused before it was a request. */
    onRefused?: (status: number, code: ErrorCode) => void
  },
): void {
  const refused = new WeakSet<Socket>()

  function refuse(socket: Socket, code: ErrorCode, reason: string | undefined): void {
    const { remoteAddress } = socket
    // A body that breaks belongs to a request that runs; anything else is the beginning of a new one.
    const broken = options.running.on(socket).find(({ req }) => !req.complete)
    if (!socket.writable || broken?.res.headersSent) {
      options.logger.debug({ code: reason, remoteAddress }, 'connection lost')
      socket.destroy()
      return
    }

    const { status, headers, body } = refusalAnswer(code, options.allowedOrigins, undefined)
    if (broken) {
      // The request that was cut short has its own line, when its response closes.
      broken.facts.code = code
      broken.facts.status = status
    } else {
      options.onRefused?.(status, code)
      options.logger.info({ status, code, reason, remoteAddress }, 'request refused unread')
    }
    socket.end(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${headerLines({ ...headers, Connection: 'close' })}\r\n${body}`,
    )
    const cut = setTimeout(() => socket.destroy(), lingerMs)
    socket.once('close', () => clearTimeout(cut))
  }

  /** An answer out of turn would be taken for that of an earlier request. */
  async function refuseInTurn(socket: Socket, code: ErrorCode, reason: string | undefined): Promise<void> {
    refused.add(socket)
    const earlier = options.running.on(socket).filter(({ req }) => req.complete)
    await Promise.all(
      earlier.map(({ res }) => new Promise<void>((resolve) => res.once('close', () => resolve()))),
    )
    refuse(socket, code, reason)
  }

  server.on('clientError', (error: NodeJS.ErrnoException, stream) => {
    const socket = stream as Socket
    // What a refused client still sends fails again, once for every packet.
    if (refused.has(socket)) return
    const code = codeOf(error, socket)
    if (code !== undefined) {
      void refuseInTurn(socket, code, error.code)
      return
    }
    options.logger.debug({ code: error.code, remoteAddress: socket.remoteAddress }, 'connection lost')
    socket.destroy()
  })

  // Without a listener Node cuts the connection, and the client does not learn why.
  server.on('connect', (_request, stream) => {
    stream.on('error', () => undefined)
    stream.resume()
    void refuseInTurn(stream as Socket, 'method-unknown', 'CONNECT')
  })
}

/** Undefined where there is nobody to answer: the connection died, was half closed, or never said a word. */
function codeOf(error: NodeJS.ErrnoException, socket: Socket): ErrorCode | undefined {
  if (error.code === 'HPE_HEADER_OVERFLOW') return 'headers-too-large'
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return socket.bytesRead > 0 ? 'request-slow' : undefined
  if (error.code === 'HPE_INVALID_EOF_STATE') return undefined
  return error.code?.startsWith('HPE_') ? 'request-malformed' : undefined
}

function headerLines(headers: Readonly<Record<string, string>>): string {
  return Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')
}
