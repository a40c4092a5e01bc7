// A page that other people's programs could have: a script of the tests and the clients that it imports, bundled, on an
// origin of its own.

import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import { bundlePage } from './page-bundle.ts'

/**
 * For use inside a test: serves the page until the test has finished, and says where it is.
 *
 * @param scriptFile what runs in the page
 * @param contents what the page may fetch beside it, by path
 */
export async function startClientPage(
  scriptFile: string,
  contents: Record<string, Buffer> = {},
): Promise<string> {
  const { script, styles } = await bundlePage(scriptFile)
  const pages: Record<string, [type: string, body: string | Buffer]> = {
    '/': [
      'text/html',
      '<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">' +
        '<body><script src="/client.js"></script>',
    ],
    '/client.js': ['text/javascript', script],
    '/style.css': ['text/css', styles],
  }
  for (const [path, content] of Object.entries(contents)) pages[path] = ['application/octet-stream', content]
  const http = createServer((req, res) => {
    const page = pages[req.url!]
    if (page) res.writeHead(200, { 'Content-Type': page[0] }).end(page[1])
    else res.writeHead(404).end()
  }).listen(0, '127.0.0.1')
  onTestFinished(() => {
    http.closeAllConnections()
    http.close()
  })
  await once(http, 'listening')
  return `http://127.0.0.1:${(http.address() as AddressInfo).port}/`
}
