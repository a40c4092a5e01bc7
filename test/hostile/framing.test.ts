// Where one request ends and the next begins: bodies whose length is said twice or wrong, chunks that are none, requests
// in one row, requests cut anywhere. What follows a doubtful body is never taken for a request.

import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seed } from '../support/seed.ts'
import { Besieged, bytesAt, expectProper, type Headers, headOf, version } from './besieged.ts'

let besieged: Besieged
beforeAll(async () => {
  besieged = await Besieged.start()
})
afterAll(() => besieged?.stop())

const chunk = '5\r\nhello\r\n'
const lastChunk = '0\r\n\r\n'

describe('a request behind a body of doubtful length', () => {
  const te = 'Transfer-Encoding: chunked'
  const doubtful: [what: string, framing: string, body: string][] = [
    ['Content-Length and chunked', `Content-Length: 5\r\n${te}`, chunk + lastChunk],
    ['chunked and Content-Length', `${te}\r\nContent-Length: 5`, chunk + lastChunk],
    ['chunked and Content-Length 0', `${te}\r\nContent-Length: 0`, chunk + lastChunk],
    ['two lengths', 'Content-Length: 5\r\nContent-Length: 6', 'hello'],
    ['the same length twice', 'Content-Length: 5\r\nContent-Length: 5', 'hello'],
    ['a list of lengths', 'Content-Length: 5, 5', 'hello'],
    ['a length with a sign', 'Content-Length: +5', 'hello'],
    ['a negative length', 'Content-Length: -5', 'hello'],
    ['a length in hex', 'Content-Length: 0x5', 'hello'],
    ['a length with a space in it', 'Content-Length: 5 5', 'hello'],
    ['a length beyond 2^64', 'Content-Length: 99999999999999999999', 'hello'],
    ['a space before the colon', 'Transfer-Encoding : chunked', chunk + lastChunk],
    ['a folded coding', 'Transfer-Encoding:\r\n chunked', chunk + lastChunk],
    ['another coding', 'Transfer-Encoding: identity', 'hello'],
    ['a coding that is not known', 'Transfer-Encoding: xchunked', chunk + lastChunk],
    ['another coding last', 'Transfer-Encoding: chunked, identity', chunk + lastChunk],
    ['chunked twice', `${te}\r\n${te}`, chunk + lastChunk],
    ['a control character in the coding', 'Transfer-Encoding: \x0bchunked', chunk + lastChunk],
    ['a bare line feed behind a header', `X: y\n${te}`, chunk + lastChunk],
    ['a bare carriage return in a header', `X: y\r${te}`, chunk + lastChunk],
    ['a NUL in a header', `X: \x00\r\n${te}`, chunk + lastChunk],
    ['a header without a colon', `X\r\n${te}`, chunk + lastChunk],
    ['a chunk size with a sign', te, `-5\r\nhello\r\n${lastChunk}`],
    ['a chunk size with 0x', te, `0x5\r\nhello\r\n${lastChunk}`],
    ['a chunk size that is none', te, `five\r\nhello\r\n${lastChunk}`],
    ['a chunk size beyond 2^64', te, `10000000000000005\r\nhello\r\n${lastChunk}`],
    ['no chunk size', te, `\r\nhello\r\n${lastChunk}`],
    ['a chunk that is longer than it says', te, `3\r\nhello\r\n${lastChunk}`],
    ['a chunk with a bare line feed', te, `5\nhello\n${lastChunk}`],
    ['a chunk extension with a line feed', te, `5;a\nhello\r\n${lastChunk}`],
    ['a chunk extension of 100 KiB', te, `5;${'a'.repeat(100 * 1024)}\r\nhello\r\n${lastChunk}`],
    ['trailers of 300 KiB', te, `${chunk}0\r\nX: ${'a'.repeat(300 * 1024)}\r\n\r\n`],
    ['a trailer that is none', te, `${chunk}0\r\nDELETE / HTTP/1.1\r\n\r\n`],
  ]
  for (const [what, framing, body] of doubtful)
    it(`is never looked at: ${what}`, async () => {
      const victim = await besieged.create(5)
      const path = await besieged.create('deferred')
      const head = headOf('PATCH', path, bytesAt(0, 0).slice(0, -1)).replace(
        /\r\n\r\n$/,
        `\r\n${framing}\r\n\r\n`,
      )
      const wire = besieged.open().expects('PATCH')
      wire.write(`${head}${body}${headOf('DELETE', victim, version)}`)
      const answers = await wire.untilClosed()
      expectProper(answers)
      expect(answers.map(({ status }) => status)).toEqual([
        expect.toSatisfy((status: number) => status >= 400),
      ])
      expect(answers[0]!.headers.get('connection')).toBe('close')
      expect(await besieged.shown(victim)).toBe('0/5')
    })

  it('is refused with a length beyond 2^53, and nothing is kept of it', async () => {
    for (const length of ['9007199254740993', '18446744073709551615']) {
      const path = await besieged.create(5)
      const wire = besieged.open().expects('PATCH')
      wire.write(headOf('PATCH', path, [...bytesAt(0, 0).slice(0, -1), ['Content-Length', length]]))
      const answers = await wire.answers()
      await wire.cut()
      expect([answers[0]!.status, await besieged.shown(path)]).toEqual([413, '0/5'])
    }
  })

  it('is refused in a coding that would be kept as it is', async () => {
    const path = await besieged.create(5)
    const headers: Headers = [...bytesAt(0, 0).slice(0, -1), ['Transfer-Encoding', 'gzip, chunked']]
    const answer = await besieged.send('PATCH', path, headers, chunk + lastChunk)
    expect([answer.status, await besieged.shown(path)]).toEqual([400, '0/5'])
  })

  it('leaves nothing behind', () => besieged.expectCalm())
})

describe('a row of requests', () => {
  it('is answered in its order', async () => {
    const path = await besieged.create('deferred')
    const methods = Array.from({ length: 200 }, (_, i) => ['HEAD', 'OPTIONS', 'GET', 'PATCH'][i % 4]!)
    const wire = besieged.open().expects(...methods)
    const requests = methods.map((method, i) => headOf(method, path, [...bytesAt(0, 0), ['X-Request-ID', i]]))
    wire.write(requests.join(''))
    const answers = await wire.answers(methods.length)
    await wire.cut()
    expectProper(answers)
    expect(answers.map(({ headers }) => headers.get('x-request-id'))).toEqual(
      methods.map((_, i) => String(i)),
    )
  })

  it('of appends to one upload keeps what was acknowledged', async () => {
    const path = await besieged.create('deferred')
    const wire = besieged.open().expects(...Array<string>(20).fill('PATCH'))
    wire.write(
      Array.from({ length: 20 }, (_, i) => `${headOf('PATCH', path, bytesAt(i, 1))}${i % 10}`).join(''),
    )
    const answers = await wire.answers(20)
    await wire.cut()
    expectProper(answers)
    const kept = answers
      .filter(({ status }) => status === 204)
      .map(({ headers }) => Number(headers.get('upload-offset')))
    const end = Math.max(...kept)
    expect(await besieged.shown(path)).toBe(`${end}/?`)
    expect((await besieged.stored(path)).toString()).toBe('01234567890123456789'.slice(0, end))
  })

  it('gets the answers to what was right before what was wrong', async () => {
    const path = await besieged.create(5)
    const wire = besieged.open().expects('PATCH', 'OPTIONS', 'GET')
    wire.write(
      `${headOf('PATCH', path, bytesAt(0, 5))}hello${headOf('OPTIONS', path, version)}no request\r\n\r\n`,
    )
    const answers = await wire.untilClosed()
    expectProper(answers)
    expect(answers.map(({ status }) => status)).toEqual([204, 200, 400])
  })

  it('whose answers nobody reads ends with its connection', async () => {
    const { finished } = besieged.paths
    const wire = besieged.open()
    wire.socket.pause()
    wire.write(headOf('GET', finished, version).repeat(20))
    wire.write(headOf('HEAD', finished, version).repeat(2000))
    // Its answers have begun to come, and more of them than the system keeps.
    const other = await besieged.send('HEAD', finished, version)
    expect(other.status).toBe(200)
    await wire.cut('reset')
    await besieged.expectCalm()
  })
})

describe('a request', () => {
  const cuts = fc.constantFrom('end', 'destroy', 'reset') satisfies fc.Arbitrary<'end' | 'destroy' | 'reset'>

  it('changed anywhere and sent in any pieces does no harm', async () => {
    const path = await besieged.create('deferred')
    const right = [
      `${headOf('PATCH', path, bytesAt(0, 5))}hello`,
      `${headOf('PATCH', path, [...bytesAt(0, 0).slice(0, -1), ['Transfer-Encoding', 'chunked'], ['Trailer', 'Upload-Checksum']])}${chunk}0\r\nUpload-Checksum: sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=\r\n\r\n`,
      `${headOf('POST', '/files/', [...bytesAt(0, 5), ['Upload-Length', 9], ['Upload-Metadata', 'a YQ==']])}hello`,
      headOf('HEAD', path, version) + headOf('OPTIONS', '/files/', version),
    ]
    const change = fc.record({
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      removed: fc.constantFrom(0, 0, 1, 2, 10, 100),
      added: fc.oneof(
        fc.constantFrom(
          '',
          '\r\n',
          '\r',
          '\n',
          '\0',
          ' ',
          ':',
          '0\r\n\r\n',
          'ffff\r\n',
          '\xff',
          'a'.repeat(9000),
        ),
        fc.uint8Array({ maxLength: 10 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
      ),
    })
    const broken = fc.record({
      request: fc.constantFrom(...right),
      changes: fc.array(change, { minLength: 1, maxLength: 3 }),
      pieces: fc.array(fc.integer({ min: 1, max: 200 }), { maxLength: 5 }),
      how: cuts,
    })
    await fc.assert(
      fc.asyncProperty(broken, async ({ request, changes, pieces, how }) => {
        let text = request
        for (const { at, removed, added } of changes) {
          const from = Math.floor(at * text.length)
          text = text.slice(0, from) + added + text.slice(from + removed)
        }
        fc.pre(!besieged.isProtected(text))
        const wire = besieged.open().expects(...methodsIn(text))
        for (const length of pieces) {
          await new Promise((resolve) =>
            wire.socket.write(Buffer.from(text.slice(0, length), 'latin1'), resolve),
          )
          text = text.slice(length)
        }
        wire.write(text)
        await wire.cut(how)
        const answers = await wire.untilClosed()
        expectProper(answers)
      }),
      { seed, numRuns: 300 },
    )
    await besieged.expectCalm()
  })

  it('with bytes, cut anywhere, leaves a prefix of them', async () => {
    const path = await besieged.create('deferred')
    let kept = Buffer.alloc(0)
    const append = fc.record({
      bytes: fc.uint8Array({ minLength: 1, maxLength: 20_000, size: 'max' }),
      end: fc.double({ min: 0, max: 1.2, noNaN: true }),
      isChunked: fc.boolean(),
      how: cuts,
    })
    await fc.assert(
      fc.asyncProperty(append, async ({ bytes, end, isChunked, how }) => {
        const framing = isChunked
          ? ([['Transfer-Encoding', 'chunked']] as const)
          : ([['Content-Length', bytes.length]] as const)
        const head = headOf('PATCH', path, [...bytesAt(kept.length, 0).slice(0, -1), ...framing])
        const text = Buffer.from(bytes).toString('latin1')
        const all = isChunked ? `${head}${bytes.length.toString(16)}\r\n${text}\r\n${lastChunk}` : head + text
        const wire = besieged.open().expects('PATCH')
        wire.write(all.slice(0, Math.floor(end * all.length)))
        if (end >= 1) expectProper(await wire.answers())
        await wire.cut(how)
        await wire.untilClosed()
        const shown = await besieged.shown(path)
        const offset = Number(shown.split('/')[0])
        expect(shown).toBe(`${offset}/?`)
        const possible = Buffer.concat([kept, bytes])
        expect(offset).toBeGreaterThanOrEqual(end >= 1 ? possible.length : kept.length)
        expect(offset).toBeLessThanOrEqual(possible.length)
        kept = possible.subarray(0, offset)
        expect((await besieged.stored(path)).subarray(0, offset).equals(kept)).toBe(true)
      }),
      { seed, numRuns: 150, endOnFailure: true },
    )
    await besieged.expectCalm()
  })
})

/** What the requests in a text would be answered as. */
function methodsIn(text: string): string[] {
  return [...text.matchAll(/^(\S+) \S+ HTTP\/1\.[01]\r?$/gm)].map(([, method]) => method!)
}
