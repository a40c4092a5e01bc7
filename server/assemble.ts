/** Makes the room that receives uploads. A stand-in: plain @tus/server over a folder, until the engine moves in. */
import type { ServerResponse } from 'node:http'
import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'
import type { Logger } from 'pino'
import type { Config } from './config.ts'
import { factsOf } from './host/request-facts.ts'
import type { UploadRoom } from './host/upload-room.ts'

export async function assemble(config: Config, _logger: Logger): Promise<UploadRoom> {
  const tus = new Server({ path: config.basePath, datastore: new FileStore({ directory: config.uploadDir }) })
  const running = new Set<ServerResponse>()
  return {
    async handle(req, res) {
      running.add(res)
      res.once('close', () => running.delete(res))
      if (factsOf(req).expectsContinue) res.writeContinue()
      await tus.handle(req, res)
    },
    async checkReady() {},
    async drain() {
      const ends = [...running].map((res) => new Promise((resolve) => res.once('close', resolve)))
      for (const res of running) res.destroy()
      await Promise.all(ends)
    },
    async close() {},
  }
}
