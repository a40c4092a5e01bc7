// @tus/server as its documentation shows it: `node tus-server.mjs PORT FOLDER`.

import { createServer } from 'node:http'
import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'

const [port, directory = '.'] = process.argv.slice(2)
const tus = new Server({ path: '/files', datastore: new FileStore({ directory }) })
const server = createServer((req, res) => void tus.handle(req, res))
// Node's own 300 s would cut long requests.
server.requestTimeout = 0
server.listen(Number(port), '127.0.0.1')

// On Node 20 a connection that ends at the wrong moment closes a web stream twice, somewhere where nobody can catch it,
// and the process is gone (seen in every third run). What is measured here is another thing.
process.on('uncaughtException', (error) => {
  if (/** @type {NodeJS.ErrnoException} */ (error).code === 'ERR_INVALID_STATE') return
  process.stderr.write(`${error.stack}\n`)
  process.exit(1)
})
