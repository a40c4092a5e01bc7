// A page that other people's programs could have: a script of the tests and the clients that it imports, bundled, on an
// origin of its own.

import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { build, type Rollup } from 'vite'
import { onTestFinished } from 'vitest'

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
  const result = await build({
    configFile: false,
    logLevel: 'error',
    define: { 'process.env.NODE_ENV': '"production"', 'process.env.DEBUG': '""' },
    build: { write: false, lib: { entry: scriptFile, formats: ['iife'], name: 'clients' } },
  })
  const [{ output }] = result as unknown as [Rollup.RollupOutput]
  const styles = output.flatMap((part) => (part.type === 'asset' ? [part.source] : []))
  const pages: Record<string, [type: string, body: string | Buffer]> = {
    '/': [
      'text/html',
      '<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">' +
        '<body><script src="/client.js"></script>',
    ],
    '/client.js': ['text/javascript', output[0].code],
    '/style.css': ['text/css', styles.map(String).join('\n')],
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
