/**
 * `app.register(tidemark, { directory })`: resumable uploads inside your own Fastify. Ends with your app: `app.close()`
 * stops running bodies at their last byte, keeps what came, answers, and gives everything back.
 */
import type { FastifyInstance } from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import { whoAsksBy } from './access/who-asks.ts'
import { factsOf } from './host/request-facts.ts'
import type { TidemarkServer } from './host/tidemark-server.ts'
import { isBelow, tusMount } from './host/tus-mount.ts'
import { type UploadsApiOptions, uploadsApi } from './host/uploads-api.ts'
import { type OpenUploadsOptions, openUploads } from './open-uploads.ts'

export interface TidemarkOptions extends Omit<OpenUploadsOptions, 'path'> {
  /** Where uploads are created and live. Default `/files`. */
  readonly path?: string
  /** Lists and progress, at `/uploads`. Default: none. */
  readonly uploadsApi?: Omit<UploadsApiOptions, 'uploads'>
}

declare module 'fastify' {
  interface FastifyInstance {
    /** The tus server that the plugin `tidemark` mounted; it emits the events of @tus/server. */
    readonly tidemark: TidemarkServer
  }
}

export const tidemark = fastifyPlugin<TidemarkOptions>(
  async (app: FastifyInstance, { path = '/files', uploadsApi: api, ...options }) => {
    const uploads = await openUploads({ ...options, path })
    app.decorate('tidemark', uploads.server)
    const { gate, plainPath } = options
    if (api) await app.register(uploadsApi, { ...(gate && { whoAsks: whoAsksBy(gate) }), ...api, uploads })
    const isUpload = isBelow(path)
    const isPlain = plainPath === undefined ? () => false : isBelow(plainPath)
    const owns = (url: string) => isUpload(url) || isPlain(url)
    await app.register(tusMount, { room: uploads, owns })
    // Node would tell every client to go on; a refused upload would then be sent in full first.
    app.server.on('checkContinue', (req, res) => {
      if (owns(req.url ?? '/')) factsOf(req).expectsContinue = true
      else res.writeContinue()
      app.server.emit('request', req, res)
    })
    app.addHook('preClose', () => uploads.drain())
    app.addHook('onClose', () => uploads.close())
  },
  { name: 'tidemark', fastify: '5.x' },
)
