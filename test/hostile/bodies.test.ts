// Bodies that nobody wants, that come in crumbs, or never; and the many connections that they come on.

import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { randomBytes } from '../support/random-file.ts'
import { Besieged, bytesAt, expectProper, type Headers, headOf, version } from './besieged.ts'
import { faultsOf, type Wire } from './wire.ts'

const MiB = 1024 * 1024

let besieged: Besieged
beforeAll(async () => {
  besieged = await Besieged.start()
})
afterAll(() => besieged?.stop())

/** Sends until all is sent or the server has had enough. */
async function pour(wire: Wire, bytes: number): Promise<void> {
  const piece = Buffer.alloc(64 * 1024, 'x')
  for (let sent = 0; sent < bytes && !wire.socket.destroyed; sent += piece.length)
    if (!wire.write(piece)) await wire.drained()
}

describe('a refusal while a large body arrives', () => {
  const long = 64 * MiB
  const type: Headers = [['Content-Type', 'application/offset+octet-stream']]
  const refused: [what: string, method: string, url: string, headers: Headers, status: number][] = [
    ['of an upload that is not there', 'PATCH', '/files/absent', bytesAt(0, long), 404],
    ['of a wrong version', 'PATCH', '/files/absent', [['Tus-Resumable', '0.1']], 412],
    ['of a wrong type', 'PATCH', '/files/absent', version, 415],
    ['of a wrong offset', 'PATCH', 'begun', bytesAt(7, long), 409],
    ['beyond the length', 'PATCH', 'begun', bytesAt(0, long), 413],
    ['of a method that is not known', 'PUT', '/files/absent', version, 405],
    ['of a creation without a length', 'POST', '/files/', [...version, ...type], 400],
    ['of a name that can not be decoded', 'PATCH', '/files/%zz', bytesAt(0, long), 400],
    ['where there is nothing', 'POST', '/nothing', [], 404],
    ['where there is only a page', 'POST', '/', [], 404],
    ['of a form where there is nothing', 'POST', '/nothing', [['Content-Type', 'application/json']], 0],
    ['of an expectation', 'PATCH', '/files/absent', [['Expect', 'miracles'], ...bytesAt(0, long)], 417],
    ['of two hosts', 'PATCH', '/files/absent', [['Host', 'other'], ...bytesAt(0, long)], 400],
    ['of a header that is none', 'PATCH', '/files/absent', [['X', '\x00'], ...bytesAt(0, long)], 400],
    [
      'of headers that are too large',
      'PATCH',
      '/files/x',
      [['X', 'a'.repeat(300_000)], ...bytesAt(0, long)],
      431,
    ],
  ]
  for (const isChunked of [false, true])
    for (const [what, method, place, headers, status] of refused)
      it(`can be read: ${what}${isChunked ? ', chunked' : ''}`, async () => {
        const url = { finished: besieged.paths.finished, begun: await besieged.create(5) }[place] ?? place
        const others = headers.filter(([name]) => name !== 'Content-Length')
        const framing = isChunked
          ? (['Transfer-Encoding', 'chunked'] as const)
          : (['Content-Length', long] as const)
        const wire = besieged.open().expects(method)
        wire.write(headOf(method, url, [...others, framing]))
        if (isChunked) wire.write(`${long.toString(16)}\r\n`)
        const poured = pour(wire, long)
        const [answer] = await wire.answers()
        await wire.cut()
        await poured
        expect(faultsOf(answer!)).toEqual([])
        if (status) expect(answer!.status).toBe(status)
      })

  it('leaves nothing behind', () => besieged.expectCalm())
})

describe('bytes in crumbs', () => {
  const content = randomBytes('crumbs', MiB)

  it('of one to a chunk are stored as they were sent, in little memory', async () => {
    const path = await besieged.create(content.length)
    const before = await besieged.server.rssBytes()
    const wire = besieged.open().expects('PATCH')
    wire.write(headOf('PATCH', path, [...bytesAt(0, 0).slice(0, -1), ['Transfer-Encoding', 'chunked']]))
    for (let at = 0; at < content.length; at += 8192) {
      const crumbs = Array.from(
        content.subarray(at, at + 8192),
        (byte) => `1\r\n${String.fromCharCode(byte)}\r\n`,
      )
      if (!wire.write(crumbs.join(''))) await wire.drained()
    }
    wire.write('0\r\n\r\n')
    const answers = await wire.answers()
    await wire.cut()
    expectProper(answers)
    expect(answers[0]!.status).toBe(204)
    expect((await besieged.stored(path)).equals(content)).toBe(true)
    expect((await besieged.server.peakRssBytes()) - before).toBeLessThan(100 * MiB)
  })

  it('of one to a packet, head and all, are a request like any other', async () => {
    const path = await besieged.create(5)
    const wire = besieged.open().expects('PATCH')
    for (const byte of `${headOf('PATCH', path, bytesAt(0, 5))}hello`)
      await new Promise((resolve) => wire.socket.write(byte, resolve))
    const [answer] = await wire.answers()
    await wire.cut()
    expect([answer!.status, await besieged.shown(path)]).toEqual([204, '5/5'])
    await besieged.expectCalm()
  })
})

describe('a length that is wrong', () => {
  it('because less comes: what came is kept', async () => {
    const path = await besieged.create(9)
    const wire = besieged.open().expects('PATCH')
    wire.write(headOf('PATCH', path, [...bytesAt(0, 9), ['Expect', '100-continue']]))
    await wire.continued
    wire.write('hello')
    await wire.cut('end')
    await wire.untilClosed()
    expect(await besieged.shown(path)).toBe('5/9')
  })

  it('because more comes: what is too much is no part of the upload, and no request', async () => {
    const path = await besieged.create(9)
    const wire = besieged.open().expects('PATCH')
    wire.write(`${headOf('PATCH', path, bytesAt(0, 5))}hello, world`)
    const answers = await wire.untilClosed()
    expectProper(answers)
    expect(answers.map(({ status }) => status)).toEqual([204, 400])
    expect(await besieged.shown(path)).toBe('5/9')
  })
})

describe('many connections', () => {
  it('that say nothing, half a head, half a body, or do not read, harm nobody and leave nothing', async () => {
    const { finished } = besieged.paths
    const halves = await Promise.all(Array.from({ length: 40 }, () => besieged.create(1000)))
    const wires: Wire[] = []
    const open = (text: string) => {
      const wire = besieged.open()
      wires.push(wire)
      if (text !== '') wire.write(text)
      return wire
    }
    for (let i = 0; i < 200; i++) open('')
    for (let i = 0; i < 100; i++) open(`PATCH /files/x HTTP/1.1\r\nHost: a\r\nX: ${'a'.repeat(i * 1000)}`)
    for (const path of halves) open(`${headOf('PATCH', path, bytesAt(0, 1000))}hello`)
    for (let i = 0; i < 40; i++) open(headOf('GET', finished, version)).socket.pause()
    for (let i = 0; i < 40; i++) open(`${headOf('GET', '/health/live', [['Content-Length', 1000]])}x`)
    await Promise.all(wires.map(({ socket }) => (socket.connecting ? once(socket, 'connect') : undefined)))
    expect((await besieged.send('GET', '/health/ready', [])).status).toBe(200)
    // Others take their uploads over, though their first holders are still there.
    const answers = await Promise.all(halves.map((path) => besieged.send('HEAD', path, version)))
    expectProper(answers)
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))

    await Promise.all(wires.map((wire, i) => wire.cut(i % 2 ? 'reset' : 'destroy')))
    await besieged.expectCalm()
  })

  it('that are still there when the server ends do not keep it', async () => {
    const path = await besieged.create(1000)
    for (const text of [
      '',
      'PATCH ',
      `${headOf('PATCH', path, bytesAt(0, 1000))}hello`,
      headOf('HEAD', path, version),
    ])
      besieged.open().write(text)
    await besieged.shown(path)
  })
})
