// What log lines say of requests: whose, which upload, what came of it. And what they never say.

import { connect } from 'node:net'
import { pino } from 'pino'
import { expect, it, onTestFinished, vi } from 'vitest'
import { buildApp } from '../../server/app.ts'
import { loadConfig } from '../../server/config.ts'
import { factsOf } from '../../server/host/request-facts.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startServer } from '../support/server-process.ts'

/** Long enough that no accident writes it, and of letters that no encoding changes. */
const secret = 'Geheimnis0Geheimnis1Geheimnis2'
const inBase64 = Buffer.from(secret).toString('base64')
const secretHeaders = {
  Authorization: `Bearer ${secret}`,
  'Proxy-Authorization': `Basic ${Buffer.from(`me:${secret}`).toString('base64')}`,
  Cookie: `session=${secret}`,
  'X-Api-Key': secret,
  'X-Forwarded-For': secret,
  Referer: `http://me:${secret}@example.com/`,
  'User-Agent': secret,
  Origin: `https://${secret.toLowerCase()}.example`,
}

it('show no secret of a request, whatever becomes of it', async () => {
  const server = await startServer({
    dir: await temporaryFolder(),
    args: ['--log-level', 'trace', '--behind-proxy'],
  })
  onTestFinished(async () => void (await server.stop()))
  const send = (method: string, path: string, more: Record<string, string> = {}, body = '') =>
    exchange(server.port, method, path, { ...secretHeaders, 'Tus-Resumable': '1.0.0', ...more }, body)

  const metadata = `filename ${inBase64},${secret.toLowerCase()}`
  const size = { 'Upload-Length': '60', 'Upload-Metadata': metadata }
  const created = await send('POST', `/files/?token=${secret}&${secret}`, size)
  const path = new URL(/^location: (.*)$/im.exec(created)![1]!, 'http://x').pathname
  const bytes = { 'Upload-Offset': '0', 'Content-Type': 'application/offset+octet-stream' }
  const answers = [
    created,
    await send('PATCH', `${path}?sig=${secret}`, bytes, secret), // what was kept, half of it
    await send('PATCH', path, { ...bytes, 'Upload-Offset': '1' }, secret),
    await send('PATCH', path, { ...bytes, 'Upload-Offset': secret }, secret),
    await send('PATCH', path, { ...bytes, 'Upload-Offset': '30', 'Upload-Checksum': `sha1 ${secret}` }, 'x'),
    await send('PATCH', path, { ...bytes, 'Upload-Offset': '30', 'Content-Type': secret }, 'x'),
    await send('HEAD', path),
    await send('GET', path),
    await send('POST', '/files/', { ...size, 'Upload-Metadata': `${secret} ${secret}!` }),
    await send('POST', '/files/', { 'Upload-Length': secret }),
    await send('POST', '/files/', { 'Upload-Concat': `final;${secret}` }),
    await send('POST', '/files/', { ...size, Expect: secret }),
    await send('GET', `http://me:${secret}@127.0.0.1/files/`),
    await send('GET', `/?${secret}`),
    await send('GET', `/nothing?a=${secret}`),
    await send('GET', '/%zz', { 'X-Request-ID': `${secret} x` }),
    await send('GET', '/files/', { 'X-Long': secret.repeat(6000) }),
    await send('GET', '/files/', { 'X-Wrong': `${secret}\x01` }),
    await send(secret.toUpperCase(), '/files/'),
    await send('DELETE', path),
    await exchange(server.port, 'GET', '/files/', { 'Content-Length': secret }, ''),
  ]
  const statuses = answers.map((answer) => Number(/^HTTP\/1.1 (\d{3})/.exec(answer)?.[1]))
  expect(statuses.slice(0, 2)).toEqual([201, 204])
  expect(statuses.filter((status) => status >= 400).length).toBeGreaterThan(13)
  await vi.waitFor(() => expect(server.logs().filter(isOfRequest).length).toBeGreaterThanOrEqual(17))
  expect((await server.stop()).code).toBe(0)
  for (const hidden of [secret, inBase64]) {
    expect(server.output()).not.toContain(hidden)
    expect(server.output().toLowerCase()).not.toContain(hidden.toLowerCase())
  }
  // Only what was asked to come back does: the metadata, to who knows the upload.
  const told = answers.map((answer) => answer.replace(/^Upload-Metadata: .*$/im, '')).filter(tells)
  expect(told).toEqual([])
  // What is said of them instead.
  const urls = server.logs().map(({ url }) => url)
  expect(urls).toEqual(
    expect.arrayContaining(['/files/?token&*', `${path}?sig`, 'http://127.0.0.1/files/', '/?*']),
  )
})

it('name the upload, who it belongs to, and what came of the request', async () => {
  const lines: Record<string, unknown>[] = []
  const logger = pino({ base: null }, { write: (text: string) => void lines.push(JSON.parse(text)) })
  const app = buildApp({
    config: loadConfig([], {}),
    logger,
    uploads: {
      async handle(req, res) {
        Object.assign(factsOf(req), { owner: 'anna', uploadId: 'u1', offset: 3 })
        res.end()
      },
      checkReady: async () => undefined,
      drain: async () => undefined,
      close: async () => undefined,
    },
  })
  onTestFinished(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const address = app.server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  await exchange(port, 'HEAD', '/files/u1', {}, '')
  await vi.waitFor(() => expect(lines).toHaveLength(1))
  expect(lines[0]).toMatchObject({
    method: 'HEAD',
    url: '/files/u1',
    uploadId: 'u1',
    owner: 'anna',
    offset: 3,
  })
})

function tells(answer: string): boolean {
  return answer
    .toLowerCase()
    .replace(/^access-control-allow-origin: .*$/m, '')
    .includes(secret.toLowerCase())
}

function isOfRequest({ msg }: Record<string, unknown>): boolean {
  return msg === 'request'
}

/** The whole answer of one request on a connection of its own. */
function exchange(
  port: number,
  method: string,
  path: string,
  headers: Record<string, string>,
  body: string,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    const length = 'Content-Length' in headers ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }
    const all = { Host: 'x', Connection: 'close', ...length, ...headers }
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
    socket.setEncoding('latin1').on('data', (text: string) => {
      answer += text
    })
    socket.once('error', reject).once('close', () => resolve(answer))
    socket.write(Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`, 'latin1'))
  })
}
