/**
 * Requests that Node refuses before anybody sees them (headers too large, not HTTP) get a whole HTTP answer and one log
 * line. A connection that merely died is nobody's error, and never ends the process.
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
  options: { running: RunningRequests; allowedOrigins: Config['corsAllowOrigin']; logger: Logger },
): void {
  const refused = new WeakSet<Socket>()

  server.on('clientError', (error: NodeJS.ErrnoException & { rawPacket?: unknown }, stream) => {
    const socket = stream as Socket
    // What a refused client still sends fails again, once for every packet.
    if (refused.has(socket)) return
    refused.add(socket)

    const code = codeOf(error, socket)
    const running = options.running.on(socket)
    if (code === undefined || !socket.writable || running?.res.headersSent) {
      options.logger.debug({ code: error.code, remoteAddress: socket.remoteAddress }, 'connection lost')
      socket.destroy()
      return
    }

    const { status, headers, body } = refusalAnswer(code, options.allowedOrigins, undefined)
    if (running) {
      // The request that was cut short has its own line, when its response closes.
      running.facts.code = code
      running.facts.status = status
    } else {
      const { remoteAddress } = socket
      options.logger.info({ status, code, reason: error.code, remoteAddress }, 'request refused unread')
    }
    socket.end(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${headerLines({ ...headers, Connection: 'close' })}\r\n${body}`,
    )
    const cut = setTimeout(() => socket.destroy(), lingerMs)
    socket.once('close', () => clearTimeout(cut))
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
