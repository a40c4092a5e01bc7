/**
 * Puts a room for uploads under a path of a Fastify app, by @fastify/middie: plugins that were registered before
 * (sign-in, rate limits) go first, and nothing of Fastify's body parsers, limits and timeouts touches the bytes.
 */
import middie from '@fastify/middie'
import type { FastifyInstance } from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import { pathOf } from '../protocol/upload-url.ts'
import type { UploadRoom } from './upload-room.ts'

export interface TusMountOptions {
  readonly room: UploadRoom
  /** For instance `/files/`: it, `/files` and everything below goes to the room. */
  readonly path: string
}

export const tusMount = fastifyPlugin<TusMountOptions>(
  async (app: FastifyInstance, { room, path }) => {
    if (!app.hasDecorator('use')) await app.register(middie)
    const isOurs = isBelow(path)
    // Without a path of its own middie leaves the URL as the client sent it.
    app.use((req, res, next) => {
      if (!isOurs(req.originalUrl ?? req.url ?? '/')) return next()
      room.handle(req, res).catch(next)
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
