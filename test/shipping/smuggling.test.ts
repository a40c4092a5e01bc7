// Requests that two readers could understand differently, with another request hidden where only one of them would see
// it: sent to the server itself, and through the nginx that is shipped. The hidden one is never done.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Besieged, bytesAt, type Headers, headOf, version } from '../hostile/besieged.ts'
import { type Answer, Wire } from '../hostile/wire.ts'
import { type Nginx, startNginx } from './nginx.ts'

let besieged: Besieged
let nginx: Nginx
beforeAll(async () => {
  besieged = await Besieged.start()
  nginx = await startNginx([besieged.port])
})
afterAll(async () => {
  await nginx?.stop()
  await besieged?.stop()
})

const places = [
  ['the server itself', () => besieged.port],
  ['nginx', () => nginx.port],
] as const

/** A head whose framing is written by hand, since no client would write it so. */
function headWith(method: string, path: string, framing: string): string {
  const rest = method === 'PATCH' ? bytesAt(0, 0).filter(([name]) => name !== 'Content-Length') : version
  return headOf(method, path, rest).replace(/\r\n\r\n$/, `\r\n${framing}\r\n\r\n`)
}

describe.each(places)('a request hidden from %s', (where, port) => {
  const chunked = 'Transfer-Encoding: chunked'
  /** `$` is the length of the hidden request with its five bytes before it. */
  const hidden: readonly (readonly [what: string, framing: string, before: string, method?: string])[] = [
    ['both lengths, the chunks first', `${chunked}\r\nContent-Length: $`, '0\r\n\r\n'],
    ['both lengths, the chunks last', `Content-Length: $\r\n${chunked}`, '0\r\n\r\n'],
    ['two lengths', 'Content-Length: 5\r\nContent-Length: $', 'hello'],
    ['two lengths, the other way round', 'Content-Length: $\r\nContent-Length: 5', 'hello'],
    ['two lengths that are the same', 'Content-Length: 5\r\nContent-Length: 5', 'hello'],
    ['a list of lengths', 'Content-Length: 5, $', 'hello'],
    ['a length with a sign', 'Content-Length: +$', 'hello'],
    ['a negative length', 'Content-Length: -5', 'hello'],
    ['a length in hexadecimal', 'Content-Length: 0x5', 'hello'],
    ['a length with a space in it', 'Content-Length: 5 $', 'hello'],
    ['no length where one is named', 'Content-Length:', 'hello'],
    ['a space before the colon of a length', 'Content-Length : 5', 'hello'],
    ['a space before the colon of chunks', `Transfer-Encoding : chunked\r\nContent-Length: $`, '0\r\n\r\n'],
    ['chunks on a folded line', `Transfer-Encoding:\r\n chunked\r\nContent-Length: $`, '0\r\n\r\n'],
    ['chunks in the fold of another header', `X: a\r\n ${chunked}\r\nContent-Length: $`, '0\r\n\r\n'],
    ['chunks behind a tab', `X: a\r\n\t${chunked}\r\nContent-Length: $`, '0\r\n\r\n'],
    ['chunks behind a bare LF', `X: a\n${chunked}\r\nContent-Length: $`, '0\r\n\r\n'],
    ['chunks behind a bare CR', `X: a\r${chunked}\r\nContent-Length: $`, '0\r\n\r\n'],
    ['chunks behind a NUL', `X: a\0\r\n${chunked}\r\nContent-Length: $`, '0\r\n\r\n'],
    ['chunks twice', `${chunked}\r\n${chunked}\r\nContent-Length: $`, '0\r\n\r\n'],
    ['chunks that are not the last coding', 'Transfer-Encoding: chunked, identity', '0\r\n\r\n'],
    ['a coding that is none', 'Transfer-Encoding: xchunked\r\nContent-Length: $', '0\r\n\r\n'],
    ['a coding behind a vertical tab', 'Transfer-Encoding: \x0bchunked\r\nContent-Length: $', '0\r\n\r\n'],
    ['a coding in quotes', 'Transfer-Encoding: "chunked"\r\nContent-Length: $', '0\r\n\r\n'],
    ['an underscore for a dash', 'Transfer_Encoding: chunked\r\nContent-Length: $', '0\r\n\r\n'],
    ['a length that nginx takes off', 'Content-Length: $\r\nConnection: Content-Length', 'hello'],
    ['the body of a HEAD', 'Content-Length: $', 'hello', 'HEAD'],
    ['the body of a GET', 'Content-Length: $', 'hello', 'GET'],
    ['the body of a GET with both lengths', `${chunked}\r\nContent-Length: $`, '0\r\n\r\n', 'GET'],
    ['the body of an OPTIONS', 'Content-Length: $', 'hello', 'OPTIONS'],
    ['chunks whose sizes differ by who reads them', `${chunked}`, '5\rhello\r\n0\r\n\r\n'],
    ['a chunk with a size beyond all', chunked, 'ffffffffffffffff5\r\nhello\r\n0\r\n\r\n'],
    ['a chunk with a sign', chunked, '+5\r\nhello\r\n0\r\n\r\n'],
    ['a chunk in hexadecimal', chunked, '0x5\r\nhello\r\n0\r\n\r\n'],
  ]
  for (const [what, framing, before, method = 'PATCH'] of hidden)
    it(`by ${what} is not done`, async () => {
      const [victim, path] = [await besieged.create(5), await besieged.create('deferred')]
      const inner = headOf('DELETE', victim, [...version, ['Connection', 'close']])
      const length = String(before.length + inner.length)
      const head = headWith(method, path, framing.replace('$', length))
      const answers = await converse(port(), method, head + before + inner)
      // Refused, or read by all as the body that its length says: then it is bytes, and no request.
      expect(answers.slice(1).filter(({ status }) => status < 400)).toEqual([])
      expect(await besieged.shown(victim)).toBe('0/5')
    })

  // nginx takes LF for the end of a line, and writes anew what it hands on: both then read the same two requests.
  it('is refused with chunks that end with LF alone, or read alike by all', async () => {
    const [victim, path] = [await besieged.create(5), await besieged.create('deferred')]
    const text = `${headWith('PATCH', path, chunked)}5\nhello\n0\n\n`
    const [first] = await converse(port(), 'PATCH', text + headOf('DELETE', victim, version))
    const [offset, done] = where === 'nginx' ? ['5/?', '404'] : ['0/?', '0/5']
    expect(first!.status).toBe(where === 'nginx' ? 204 : 400)
    expect([await besieged.shown(path), await besieged.shown(victim)]).toEqual([offset, done])
  })

  it('is done neither after an upgrade nor after a CONNECT that nobody takes', async () => {
    const victim = await besieged.create(5)
    const upgrade: Headers = [
      ...version,
      ['Connection', 'Upgrade, HTTP2-Settings'],
      ['Upgrade', 'h2c'],
      ['HTTP2-Settings', 'AAMAAABkAAQAAP__'],
      ['Content-Length', 0],
    ]
    for (const text of [
      headOf('HEAD', '/files/none', upgrade) + headOf('DELETE', '/files/none', version),
      'CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n'.concat(headOf('DELETE', victim, version)),
    ]) {
      const answers = await converse(port(), text.split(' ')[0]!, text)
      expect(answers.filter(({ status }) => status < 400)).toEqual([])
    }
    expect(await besieged.shown(victim)).toBe('0/5')
  })

  // nginx may keep a connection for a minute, until somebody needs it.
  it('leaves nothing behind', () => besieged.expectCalm(75_000), 90_000)
})

describe.each(places)('a path that is written oddly, to %s', (where, port) => {
  const inside = ['metrics', 'secret', '.tidemark/records', '.tidemark/outbox']
  const ways = [
    (name: string) => `/files/../${name}`,
    (name: string) => `/files/..%2f${name}`,
    (name: string) => `/files/%2e%2e/${name}`,
    (name: string) => `/files/%2e%2e%2f${name}`,
    (name: string) => `/files/..%5c${name}`,
    (name: string) => `/files/%252e%252e%252f${name}`,
    (name: string) => `/files/..;/${name}`,
    (name: string) => `/files//../${name}`,
    (name: string) => `/files/./../${name}`,
    (name: string) => `/files/${name}`,
    (name: string) => `/files/.%00/../${name}`,
    (name: string) => `/files/%c0%ae%c0%ae/${name}`,
    (name: string) => `/assets/../../${name}`,
    (name: string) => `/assets/..%2f..%2f${name}`,
    (name: string) => `/assets/%2e%2e%2f%2e%2e%2f${name}`,
    (name: string) => `http://127.0.0.1/files/../${name}`,
    (name: string) => `http://evil.example/files/..%2f${name}`,
    (name: string) => `http:/files/../${name}`,
    (name: string) => `//evil.example/${name}`,
    (name: string) => `../${name}`,
    (name: string) => `\\..\\${name}`,
  ]
  it.each(inside)('leads to nothing: %s', async (name) => {
    for (const method of ['GET', 'HEAD', 'DELETE', 'PATCH'])
      for (const way of ways) {
        const [answer] = await ask(port(), method, way(name))
        expect([method, way(name), answer?.status ?? 400]).toEqual([
          method,
          way(name),
          expect.toSatisfy((status: number) => status >= 400),
        ])
        expect(answer?.body.toString() ?? '').not.toMatch(/tusd_|nobody reads/)
      }
  })

  it('leads to no upload that it does not name', async () => {
    const victim = (await besieged.create(5)).slice('/files/'.length)
    const odd = [
      `/x/../files/${victim}`,
      `/files/x/../${victim}`,
      `/files/x%2f..%2f${victim}`,
      `/files/%2e/${victim}`,
      `/files//${victim}`,
      `//files/${victim}`,
      `/FILES/${victim}`,
      `/files/${victim}/`,
      `/files/${victim}%00`,
      `/files/${victim}%20`,
      `/files/${victim};x`,
      `/files/.${victim}.0.mark`,
      `/files/.${victim}.0.data`,
      `/files\\${victim}`,
    ]
    for (const path of odd) {
      const [answer] = await ask(port(), 'DELETE', path)
      expect([path, answer?.status]).toEqual([path, expect.toSatisfy((status: number) => status >= 400)])
    }
    expect(await besieged.shown(`/files/${victim}`)).toBe('0/5')
  })

  it(`shows the metrics only where they are for those inside: ${where}`, async () => {
    const [answer] = await ask(port(), 'GET', '/metrics')
    expect(answer!.status).toBe(where === 'nginx' ? 404 : 200)
    if (where !== 'nginx') return
    const odd = [
      '/metrics?x',
      '/%6detrics',
      '//metrics',
      '/x/../metrics',
      '/./metrics',
      '/metrics/',
      '/metrics%00',
    ]
    for (const path of [
      ...odd,
      '/metrics;x',
      '/METRICS',
      'http://x/metrics',
      '/metrics%2f',
      '/metrics#',
      '/metrics%20',
    ])
      for (const method of ['GET', 'HEAD', 'POST', 'OPTIONS']) {
        const [answer] = await ask(port(), method, path)
        expect([path, answer!.status]).toEqual([path, expect.toSatisfy((status: number) => status >= 400)])
        expect(answer!.body.toString()).not.toContain('tusd_')
      }
  })
})

function ask(port: number, method: string, path: string): Promise<Answer[]> {
  return converse(
    port,
    method,
    headOf(method, path, [...version, ['Connection', 'close'], ['Content-Length', 0]]),
  )
}

/** All answers to a text whose first request has this method. Nothing more is sent, so that what is done ends. */
async function converse(port: number, method: string, text: string): Promise<Answer[]> {
  const wire = new Wire(port).expects(method, 'DELETE')
  wire.write(text)
  const [first] = await wire.answers()
  if (first!.headers.get('connection') !== 'close') await wire.cut('end')
  return wire.untilClosed()
}
