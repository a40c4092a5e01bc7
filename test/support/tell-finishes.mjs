// Loaded into the built server before it starts: for every upload that it tells its listeners is finished, it writes a
// line to the file that TELL_FINISHES_TO names. Each line is one append, so that it outlives a SIGKILL of the process,
// and processes that share the file do not write into each other's lines.

import { appendFileSync } from 'node:fs'
import { TidemarkServer } from '../../dist/server/host/tidemark-server.js'

const file = process.env.TELL_FINISHES_TO
if (file === undefined) throw new Error('TELL_FINISHES_TO is not set')

const start = TidemarkServer.prototype.start
const heard = new WeakSet()
TidemarkServer.prototype.start = function () {
  if (!heard.has(this)) {
    heard.add(this)
    const listener = (/** @type {unknown[]} */ ...[, , upload, event]) => {
      const { id, size } = /** @type {{ id: string, size?: number }} */ (upload)
      const eventId = /** @type {{ id?: string } | undefined} */ (event)?.id
      appendFileSync(file, `${JSON.stringify({ upload: id, size, event: eventId, pid: process.pid })}\n`)
    }
    this.on('POST_FINISH', /** @type {never} */ (listener))
  }
  return start.call(this)
}
