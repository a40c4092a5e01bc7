/**
 * Writes an answer so that the client can read it, also while it is still sending. Closing a connection with unread
 * bytes in it makes the system reset it, and the client loses the answer that was already on its way.
 */
import { ReadStream } from 'node:fs'
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { sendNodeResponse } from 'srvx/node'
import { giveBack } from '../uploads/spent-pieces.ts'
import type { Reply } from './exchange.ts'
import type { RequestFacts } from './request-facts.ts'
import { endOfTurn } from './turn.ts'

const lingerSilenceMs = 5_000
/** A server that is being stopped has no time for those who do not listen. */
const lingerSilenceWhileEndingMs = 500
const lingerMs = 30_000
/**
 * Of a body for what is finished nothing is read, however much it is: the client gets this long to see the answer, and who
 * loses it asks, and is told the same.
 */
const momentMs = 25

export async function sendReply(
  req: IncomingMessage,
  res: ServerResponse,
  reply: Reply,
  { facts, isEnding }: { facts: RequestFacts; isEnding: boolean },
): Promise<void> {
  if (res.destroyed || res.headersSent) {
    // The reader left while the file was being opened; nobody else would close it.
    if (reply.is === 'answer' && reply.body instanceof Readable) reply.body.destroy()
    return
  }
  if (reply.is === 'cut') {
    res.destroy()
    return
  }
  if (reply.is === 'response') {
    await sendNodeResponse(res, reply.response)
    return
  }
  const { status, headers, body } = reply
  if (body !== undefined && typeof body !== 'string') {
    res.writeHead(status, headers)
    await sendBody(body, res, Number(headers['Content-Length']))
    return
  }
  // Also because what came in one piece with the head is read in the same turn, and may be read after this.
  await endOfTurn()
  if (res.destroyed || res.headersSent) return
  const isUnread = !req.complete
  const text = status === 204 || status === 304 || req.method === 'HEAD' ? undefined : (body ?? '')
  const head: OutgoingHttpHeaders = Object.assign({}, headers)
  if (text !== undefined) head['Content-Length'] = Buffer.byteLength(text)
  if (isUnread) head.Connection = 'close'
  res.writeHead(status, head)
  if (!isUnread || facts.expectsContinue) {
    res.end(text)
    return
  }
  res.flushHeaders()
  if (text) res.write(text)
  if (facts.isFinished) await delay(momentMs)
  else await discardBody(req, isEnding ? lingerSilenceWhileEndingMs : lingerSilenceMs)
  res.end()
}

/** Ends with the reader, if that leaves before; there is nobody left to be told. */
async function sendBody(body: Readable, res: ServerResponse, length: number): Promise<void> {
  // Who has put a `write` of its own in the way may keep what it is given.
  const isPlain = body instanceof ReadStream && !Object.hasOwn(res, 'write')
  if (isPlain) await sendFile(body, res, length)
  else await pipeline(body, res).catch(() => undefined)
}

/**
 * Every piece of a file is made for its one reader, and of no use once it is sent. Left to the garbage collector they cost
 * more than reading and sending them (docs/decisions/garbage-of-bodies.md).
 */
async function sendFile(file: ReadStream, res: ServerResponse, length: number): Promise<void> {
  try {
    for await (const piece of file as AsyncIterable<Buffer>) {
      if (!(await isWritten(res, piece))) return
      giveBack([piece])
    }
    // It became shorter: where the connection goes on, the client would take what comes next for the rest.
    if (file.bytesRead < length) res.destroy()
    else res.end()
  } catch {
    res.destroy()
  }
}

/** False when the reader has left. */
function isWritten(res: ServerResponse, piece: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    const onClose = () => resolve(false)
    res.once('close', onClose)
    res.write(piece, (error) => {
      res.off('close', onClose)
      resolve(!error)
    })
  })
}

/** Reads and forgets until the body ends, the client falls silent, or it has taken long enough. */
function discardBody(req: IncomingMessage, silenceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const silence = setTimeout(finish, silenceMs)
    const limit = setTimeout(finish, lingerMs)
    function finish(): void {
      clearTimeout(silence)
      clearTimeout(limit)
      req.off('data', onData).off('end', finish).off('close', finish).off('error', finish)
      req.on('error', () => undefined)
      resolve()
    }
    function onData(): void {
      silence.refresh()
    }
    req.on('data', onData).on('end', finish).on('close', finish).on('error', finish)
    if (req.destroyed) finish()
    else req.resume()
  })
}
