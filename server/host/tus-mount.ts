/**
 * Puts a room for uploads under a path of a Fastify app, by @fastify/middie: onRequest hooks that were added before, as
 * for sign-in, go first, and nothing of Fastify's body parsers, limits and timeouts touches the bytes.
 */
import middie from '@fastify/middie'
import type { FastifyInstance } from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import { pathOf } from '../protocol/upload-url.ts'
import { factsOf } from './request-facts.ts'
import type { UploadRoom } from './upload-room.ts'

export interface TusMountOptions {
  readonly room: UploadRoom
  /** Whether a URL, as the client sent it, belongs to the room. */
  readonly owns: (url: string) => boolean
}

export const tusMount = fastifyPlugin<TusMountOptions>(
  async (app: FastifyInstance, { room, owns }) => {
    if (!app.hasDecorator('use')) await app.register(middie)
    // Mounted without a path: middie then leaves the URL as the client sent it, also in absolute form.
    app.use((req, res, next) => {
      if (!owns(req.url ?? '/')) return next()
      room.handle(req, res).catch((error: unknown) => {
        factsOf(req).error = error
        if (res.headersSent) res.destroy()
        else next(error)
      })
    })
  },
  { name: 'tidemark-mount', fastify: '5.x' },
)

/** Whether a URL, in origin or absolute form, is `path` or below it. */
export function isBelow(path: string): (url: string) => boolean {
  const base = path.replace(/\/+$/, '')
  return (url) => {
    const wanted = pathOf(url)
    return wanted === base || wanted.startsWith(`${base}/`)
  }
}
