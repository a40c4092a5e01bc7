// One request on a connection of its own, sent piece by piece, and how it ended: with an answer, or without one. An
// answer that comes before the body is through ends the body, as browsers and curl do it.

import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

export type Ended =
  | {
      is: 'answered'
      status: number
      offset: number | undefined
      location: string | undefined
      retryAfter: string | undefined
      body: string
    }
  /** Refused, cut, or silent for too long. */
  | { is: 'cut'; why: string }

export type RequestOptions = {
  headers?: Record<string, string | number>
  /** Pieces of the body; its length is among the headers. */
  body?: Iterable<Uint8Array>
  /** About; 0 is no limit. */
  bytesPerSecond?: number
  /** No news from the server for so long, after the last piece was sent. */
  silenceMs?: number
  signal?: AbortSignal
}

export const silent = 'no answer in time'

export function send(method: string, url: string, options: RequestOptions = {}): Promise<Ended> {
  const { headers = {}, body, bytesPerSecond = 0, silenceMs = 30_000, signal } = options
  return new Promise((resolve) => {
    let hasEnded = false
    const end = (ended: Ended) => {
      hasEnded = true
      resolve(ended)
    }
    const onAbort = () => outgoing.destroy(new Error('aborted'))
    const outgoing = request(url, {
      method,
      agent: false,
      headers: { 'Tus-Resumable': '1.0.0', ...headers },
    })
    signal?.addEventListener('abort', onAbort)
    outgoing.setTimeout(silenceMs, () => outgoing.destroy(new Error(silent)))
    outgoing.once('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (more: string) => {
        text += more
      })
      response.once('error', (error) => end({ is: 'cut', why: error.message }))
      response.once('end', () => {
        const offset = response.headers['upload-offset']
        end({
          is: 'answered',
          status: response.statusCode ?? 0,
          offset: offset === undefined ? undefined : Number(offset),
          location: response.headers.location,
          retryAfter: response.headers['retry-after'],
          body: text,
        })
        outgoing.destroy()
      })
    })
    outgoing.once('error', (error) => end({ is: 'cut', why: error.message }))
    outgoing.once('close', () => {
      signal?.removeEventListener('abort', onAbort)
      end({ is: 'cut', why: 'closed without an answer' })
    })
    let goOn = () => {}
    outgoing.on('drain', () => goOn()).on('close', () => goOn())
    if (signal?.aborted) onAbort()
    else void sendBody()

    async function sendBody(): Promise<void> {
      const beganAt = performance.now()
      let sent = 0
      for (const piece of body ?? []) {
        if (hasEnded || outgoing.destroyed) return
        const isFull = !outgoing.write(piece)
        sent += piece.length
        if (isFull)
          await new Promise<void>((resolve) => {
            goOn = resolve
          })
        const aheadMs =
          bytesPerSecond > 0 ? (sent / bytesPerSecond) * 1000 - (performance.now() - beganAt) : 0
        if (aheadMs > 0) await sleep(aheadMs)
      }
      if (!hasEnded && !outgoing.destroyed) outgoing.end()
    }
  })
}
