// tus-js-client meets a hook that does not want what it sent.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { DetailedError } from 'tus-js-client'
import { expect, it, onTestFinished } from 'vitest'
import { startSite } from '../protocol/exchange.ts'
import { makeCertificate } from '../support/certificate.ts'
import { temporaryFolder } from '../support/folder.ts'
import { prepareUpload } from '../support/tus-client.ts'
import { Receiver } from './receiver.ts'

it('tus-js-client is told why an upload is not accepted, and asks again by its last byte', async () => {
  const receiver = await Receiver.start()
  const site = await startSite({
    hooks: { http: { url: receiver.url }, enabled: ['pre-finish', 'post-finish'] },
  })
  receiver.answers = { 'pre-finish': { HTTPResponse: { StatusCode: 422, Body: 'a virus' } } }
  const content = randomBytes(300_000)
  const endpoint = `http://${site.host}/files`
  const first = prepareUpload(content, { endpoint, retryDelays: [] })
  first.upload.start()
  const error = await first.done.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(DetailedError)
  expect((error as DetailedError).originalResponse?.getBody()).toBe('a virus')

  receiver.answers = {}
  const uploadUrl = first.upload.url!
  const second = prepareUpload(content, { endpoint, uploadUrl, retryDelays: [] })
  second.upload.start()
  await second.done
  const shown = second.exchanges.map(({ method, status, offset, answeredOffset }) => [
    method,
    status,
    offset ?? answeredOffset,
  ])
  expect(shown).toEqual([
    ['HEAD', 200, 299_999],
    ['PATCH', 204, 299_999],
  ])
  await receiver.until('post-finish')
  expect(receiver.types).toEqual(['pre-finish', 'pre-finish', 'post-finish'])
  expect(Buffer.from(await (await fetch(uploadUrl)).arrayBuffer()).equals(content)).toBe(true)
})

it('tus-js-client goes on by itself when the hook could not be asked', async () => {
  const receiver = await Receiver.start()
  const hooks = { http: { url: receiver.url }, enabled: ['pre-finish'] as const, retries: 0 }
  const site = await startSite({ hooks })
  await receiver.down()
  const options = { endpoint: `http://${site.host}/files`, retryDelays: Array<number>(50).fill(50) }
  const running = prepareUpload(Buffer.from('abcdef'), options)
  running.upload.options.onShouldRetry = () => {
    receiver.up().catch(() => undefined)
    return true
  }
  running.upload.start()
  await running.done
  expect(receiver.types).toEqual(['pre-finish'])
})

it('a certificate that nobody vouches for is refused, unless that was asked for', async () => {
  const { certFile, keyFile } = await makeCertificate(await temporaryFolder())
  const files = { cert: await readFile(certFile), key: await readFile(keyFile) }
  const server = createServer(files, (_, response) => {
    response.writeHead(200, { 'Content-Type': 'application/json' }).end('{}')
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const strict = await startSite({ hooks: { http: { url }, enabled: ['pre-create'], retries: 0 } })
  expect((await strict.send('POST', '/files', { 'Upload-Length': 3 })).status).toBe(500)
  const lax = await startSite({ hooks: { http: { url, skipVerify: true }, enabled: ['pre-create'] } })
  expect((await lax.send('POST', '/files', { 'Upload-Length': 3 })).status).toBe(201)
})
