// The ceiling: what Node can do at all. Bytes go from node:http to a file in batches of 1 MiB, and nothing is checked,
// locked, kept across requests or answered beyond what the load asks for. `node bare.mjs PORT FOLDER [discard]`; with
// `discard` the bytes are only counted, which shows how much the load itself could send.

import { randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, stat, unlink } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'

const batchBytes = 1024 * 1024
const [port, folder = '.', mode] = process.argv.slice(2)
const discards = mode === 'discard'
/** @type {Map<string, number>} */
const discarded = new Map()

const server = createServer((req, res) => {
  respond(req, res).catch((error) => {
    process.stderr.write(`${error.stack}\n`)
    res.destroy()
  })
})
server.requestTimeout = 0
// The load looks at what it sent for some seconds, and comes back.
server.keepAliveTimeout = 0
server.listen(Number(port), '127.0.0.1')

/**
 * @param {import('node:http').IncomingMessage} req
 * @param {import('node:http').ServerResponse} res
 */
async function respond(req, res) {
  const isNew = req.method === 'POST'
  const id = isNew ? randomBytes(16).toString('hex') : (req.url ?? '').slice('/files/'.length)
  const from = Number(req.headers['upload-offset'] ?? 0)
  if (req.method === 'POST' || req.method === 'PATCH') {
    const offset = await receive(req, id, from, isNew)
    const headers = { 'Upload-Offset': String(offset) }
    res.writeHead(
      isNew ? 201 : 204,
      isNew ? { ...headers, Location: `/files/${id}`, 'Content-Length': 0 } : headers,
    )
    res.end()
    return
  }
  if (req.method === 'HEAD') {
    const offset = discards ? discarded.get(id) : (await stat(join(folder, id))).size
    res.writeHead(200, { 'Upload-Offset': String(offset) }).end()
    return
  }
  if (req.method === 'DELETE') {
    if (!discards) await unlink(join(folder, id))
    res.writeHead(204).end()
    return
  }
  const { size } = await stat(join(folder, id))
  res.writeHead(200, { 'Content-Length': size })
  createReadStream(join(folder, id), { highWaterMark: 256 * 1024 }).pipe(res)
}

/**
 * @param {import('node:http').IncomingMessage} req
 * @param {string} id
 * @param {number} from
 * @param {boolean} isNew
 * @returns {Promise<number>} the offset behind the last byte
 */
async function receive(req, id, from, isNew) {
  if (discards) return discard(req, id, from)
  const file = await open(join(folder, id), isNew ? 'wx' : 'r+')
  try {
    return await new Promise((resolve, reject) => {
      /** @type {Buffer[]} */
      let batch = []
      let bytes = 0
      let written = from
      let isWriting = false
      let hasEnded = false
      const write = () => {
        const buffers = batch
        const position = written
        written += bytes
        batch = []
        bytes = 0
        isWriting = true
        file.writev(buffers, position).then(() => {
          isWriting = false
          if (bytes >= batchBytes || (hasEnded && bytes > 0)) write()
          else if (hasEnded) resolve(written)
          if (!hasEnded) req.resume()
        }, reject)
      }
      req.on('data', (/** @type {Buffer} */ chunk) => {
        batch.push(chunk)
        bytes += chunk.length
        if (bytes < batchBytes) return
        if (isWriting) req.pause()
        else write()
      })
      req.on('end', () => {
        hasEnded = true
        if (isWriting) return
        if (bytes > 0) write()
        else resolve(written)
      })
      req.on('error', reject)
    })
  } finally {
    await file.close()
  }
}

/**
 * @param {import('node:http').IncomingMessage} req
 * @param {string} id
 * @param {number} from
 * @returns {Promise<number>}
 */
function discard(req, id, from) {
  return new Promise((resolve, reject) => {
    let offset = from
    req.on('data', (/** @type {Buffer} */ chunk) => {
      offset += chunk.length
    })
    req.on('end', () => {
      discarded.set(id, offset)
      resolve(offset)
    })
    req.on('error', reject)
  })
}
