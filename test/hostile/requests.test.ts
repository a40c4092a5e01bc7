// Requests that are whole, and say the oddest things: in headers, in methods, in URLs. Every one has an answer.

import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seed } from '../support/seed.ts'
import { Besieged, bytesAt, expectProper, headOf, version } from './besieged.ts'
import { header, ids } from './values.ts'
import { faultsOf } from './wire.ts'

let besieged: Besieged
beforeAll(async () => {
  besieged = await Besieged.start()
})
afterAll(() => besieged?.stop())

const methods = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('POST', 'HEAD', 'PATCH', 'GET', 'DELETE', 'OPTIONS') },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      'PUT',
      'TRACE',
      'CONNECT',
      'PROPFIND',
      'M-SEARCH',
      'QUERY',
      'patch',
      'X',
      'PRI',
    ),
  },
)

describe('any headers', () => {
  const request = fc.record({
    method: methods,
    place: fc.constantFrom('collection', 'scratch', 'finished', 'absent', 'elsewhere'),
    hostile: fc.array(header, { maxLength: 4 }),
    isFitting: fc.boolean(),
    body: fc.constantFrom('', 'hello', 'x'.repeat(5000)),
    isChunked: fc.boolean(),
  })

  it('are answered, and never by a server error', async () => {
    const finished = await besieged.create(5, Buffer.from('hello'))
    await fc.assert(
      fc.asyncProperty(request, async ({ method, place, hostile, isFitting, body, isChunked }) => {
        const scratch = place === 'scratch' ? await besieged.create('deferred') : ''
        const url = {
          collection: '/files/',
          scratch,
          finished,
          absent: '/files/absent',
          elsewhere: '/nothing',
        }[place]
        const fit = isFitting ? bytesAt(0, 0).filter(([name]) => name !== 'Content-Length') : version
        const framing = isChunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${body.length}`
        const chunk = body === '' ? '' : `${body.length.toString(16)}\r\n${body}\r\n`
        const wire = besieged.open().expects(method)
        wire.write(headOf(method, url, [...hostile, ...fit]).replace(/\r\n\r\n$/, `\r\n${framing}\r\n\r\n`))
        wire.write(isChunked ? `${chunk}0\r\n\r\n` : body)
        try {
          expectProper(await wire.answers())
          expect(wire.surplus).toBe('')
        } finally {
          await wire.cut()
        }
      }),
      { seed, numRuns: 400 },
    )
    await besieged.expectCalm()
  })

  it('are read to the last, however many there are', async () => {
    const path = await besieged.create(5)
    const many = Array.from({ length: 5000 }, (_, i) => [`x${i}`, 'y'] as const)
    const wrong = ['Upload-Checksum', 'sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA='] as const
    const answer = await besieged.send('PATCH', path, [...many, ...bytesAt(0, 5), wrong], 'hello')
    expectProper([answer])
    expect([answer.status, await besieged.shown(path)]).toEqual([460, '0/5'])
  })

  it('beyond what a server takes are refused, and the client can read it', async () => {
    for (const length of [200, 2000]) {
      const answer = await besieged.send('PATCH', '/files/x', [['X', 'a'.repeat(length * 1024)], ...version])
      expectProper([answer])
      expect(answer.status).toBe(431)
    }
    await besieged.expectCalm()
  })

  for (const [what, head] of [
    ['no host', 'GET /files/x HTTP/1.1\r\nTus-Resumable: 1.0.0\r\n\r\n'],
    ['two hosts', 'GET /files/x HTTP/1.1\r\nHost: a\r\nHost: b\r\nTus-Resumable: 1.0.0\r\n\r\n'],
    ['the method CONNECT', 'CONNECT example:443 HTTP/1.1\r\nHost: example:443\r\n\r\n'],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
    ['HTTP/0.9', 'GET /files/x\r\n\r\n'],
    ['HTTP/3.7', 'GET /files/x HTTP/3.7\r\nHost: a\r\n\r\n'],
  ] as const)
    it(`with ${what} are answered by a refusal`, async () => {
      const wire = besieged.open().expects('GET')
      wire.write(head)
      const [answer] = await wire.answers()
      await wire.cut()
      expectProper([answer!])
      expect(answer!.status).toBeGreaterThanOrEqual(400)
    })

  for (const host of ['', 'a b', 'a/../b', 'x"><script>', 'a@b', 'a#', 'a?'])
    it(`with the host ${JSON.stringify(host)} never make a Location that leads elsewhere`, async () => {
      const wire = besieged.open().expects('POST')
      wire.write(`POST /files/ HTTP/1.1\r\nHost: ${host}\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 5\r\n\r\n`)
      const [answer] = await wire.answers()
      await wire.cut()
      expectProper([answer!])
      if (answer!.status === 201) expect(answer!.headers.get('location')).toMatch(/^\/files\/[0-9a-f]{32}$/)
    })
})

describe('any name of an upload', () => {
  it('leads to nothing, if it is none', async () => {
    const { begun, finished } = besieged.paths
    const own = [begun, finished].map((path) => path.slice('/files/'.length))
    const isOwn = (id: string) => {
      try {
        return own.includes(decodeURIComponent(id.replace(/[?#].*$/s, '')))
      } catch {
        return false
      }
    }
    const request = fc.record({
      method: fc.constantFrom('HEAD', 'GET', 'PATCH', 'DELETE', 'POST'),
      id: ids(own).filter((id) => !isOwn(id)),
      prefix: fc.constantFrom(
        '/files/',
        '/files/',
        '/files/',
        '/files//',
        '/',
        '//',
        'http://x/files/',
        'http://x',
      ),
    })
    await fc.assert(
      fc.asyncProperty(request, async ({ method, id, prefix }) => {
        fc.pre(!besieged.isProtected(prefix + id) || prefix.startsWith('/files/'))
        const body = method === 'PATCH' ? 'hello' : ''
        const wire = besieged.open().expects(method)
        wire.write(headOf(method, prefix + id, bytesAt(0, body.length)))
        wire.write(body)
        const [answer] = await wire.answers()
        await wire.cut()
        const isPage = answer!.status === 200 && answer!.headers.get('content-type')?.startsWith('text/html')
        expect(faultsOf(answer!, { isTus: !isPage })).toEqual([])
        if (!isPage) expect(answer!.status).toBeGreaterThanOrEqual(400)
      }),
      { seed, numRuns: 400 },
    )
    await besieged.expectCalm()
  })
})
