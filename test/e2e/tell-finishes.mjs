// Loaded into the built server before it starts: it says a line for every upload that it tells its listeners is finished.

import { TidemarkServer } from '../../dist/server/host/tidemark-server.js'

const start = TidemarkServer.prototype.start
const heard = new WeakSet()
TidemarkServer.prototype.start = function () {
  if (!heard.has(this)) {
    heard.add(this)
    this.on('POST_FINISH', (_request, _response, upload) => {
      process.stdout.write(`${JSON.stringify({ finished: upload.id, size: upload.size })}\n`)
    })
  }
  return start.call(this)
}
