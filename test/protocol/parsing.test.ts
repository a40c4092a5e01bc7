// The dialect as pure functions: what a request means, where it points, and what it is told. Property tests where a
// table would only show what somebody thought of.

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Refusal } from '../../server/errors.ts'
import { formatMetadata, parseMetadata } from '../../server/protocol/metadata.ts'
import { methodOf, parseTus, type RequestHeaders, type Target } from '../../server/protocol/tus.ts'
import { originOf, pathOf, targetOf } from '../../server/protocol/upload-url.ts'

const version = { 'tus-resumable': '1.0.0' }
const bytes = { ...version, 'content-type': 'application/offset+octet-stream' }
const collection: Target = { is: 'collection' }
const upload: Target = { is: 'upload', id: 'u' }
const nothing: Target = { is: 'nothing' }
const abilities = { extensions: [], maxBytes: undefined, digests: 'verified' as const }

/** The command, or the code of the refusal. */
function parse(method: string, target: Target, headers: RequestHeaders): unknown {
  try {
    return parseTus({ method, target, headers, trailers: () => ({}) }, abilities)
  } catch (error) {
    if (error instanceof Refusal) return error.code
    throw error
  }
}

describe('parseTus', () => {
  const create = { do: 'create', length: 6, isBytes: false, hasBody: false, contentLength: 0 }
  const append = { do: 'append', id: 'u', offset: 3, contentLength: 0 }
  const table: [method: string, target: Target, headers: RequestHeaders, expected: unknown][] = [
    ['OPTIONS', nothing, {}, { do: 'options' }],
    ['HEAD', upload, version, { do: 'offset', id: 'u' }],
    ['GET', upload, {}, { do: 'read', id: 'u' }],
    ['DELETE', upload, version, { do: 'terminate', id: 'u' }],
    ['POST', collection, { ...version, 'upload-length': '6' }, create],
    [
      'POST',
      collection,
      { ...version, 'upload-length': '6', 'upload-metadata': 'a YQ==' },
      { ...create, metadata: 'a YQ==' },
    ],
    ['POST', collection, { ...version, 'upload-defer-length': '1' }, { ...create, length: undefined }],
    [
      'POST',
      collection,
      { ...bytes, 'upload-length': '6', 'content-length': '4' },
      { ...create, isBytes: true, hasBody: true, contentLength: 4 },
    ],
    [
      'POST',
      collection,
      { ...bytes, 'upload-length': '6', 'transfer-encoding': 'chunked' },
      { ...create, isBytes: true, hasBody: true, contentLength: undefined },
    ],
    ['PATCH', upload, { ...bytes, 'upload-offset': '3' }, append],
    [
      'PATCH',
      upload,
      { ...bytes, 'upload-offset': '3', 'upload-length': '9', 'content-length': '2' },
      { ...append, length: 9, contentLength: 2 },
    ],
    [
      'PATCH',
      upload,
      { ...bytes, 'content-type': 'Application/Offset+Octet-Stream; a=b', 'upload-offset': '3' },
      append,
    ],
    ['HEAD', collection, version, 'not-found'],
    ['PATCH', nothing, bytes, 'not-found'],
    ['POST', upload, version, 'not-found'],
    ['HEAD', upload, {}, { do: 'read', id: 'u', isHead: true }],
    ['HEAD', collection, {}, 'version-missing'],
    ['GET', upload, { 'tus-resumable': '0.2' }, 'version-unsupported'],
    ['PUT', upload, {}, 'method-unknown'],
    ['constructor', upload, {}, 'method-unknown'],
    ['PATCH', upload, { ...version, 'upload-offset': '3' }, 'content-type'],
    ['PATCH', upload, bytes, 'offset-invalid'],
    ['PATCH', upload, { ...bytes, 'upload-offset': ['3', '3'] }, 'offset-invalid'],
    ['PATCH', upload, { ...bytes, 'upload-offset': '3', 'upload-length': 'x' }, 'length-invalid'],
    ['PATCH', upload, { ...bytes, 'upload-offset': '3', 'upload-checksum': 'x' }, 'header-unsupported'],
    ['POST', collection, { ...version, 'upload-concat': 'partial' }, 'header-unsupported'],
    ['POST', collection, version, 'length-missing'],
    ['POST', collection, { ...version, 'upload-length': '6', 'upload-defer-length': '1' }, 'length-twice'],
    ['POST', collection, { ...version, 'upload-defer-length': '2' }, 'defer-length-invalid'],
    ['POST', collection, { ...version, 'upload-length': '6', 'content-length': '1' }, 'content-type'],
    ['POST', collection, { ...version, 'upload-length': '6', 'upload-metadata': 'a *' }, 'metadata-invalid'],
  ]
  for (const [method, target, headers, expected] of table)
    it(`${method} on ${target.is} with ${JSON.stringify(headers)}`, () => {
      expect(parse(method, target, headers)).toEqual(expected)
    })

  it('takes every whole number up to 2^53-1 as a length, and nothing else', () => {
    const lengthOf = (text: string) => parse('POST', collection, { ...version, 'upload-length': text })
    fc.assert(
      fc.property(fc.maxSafeNat(), (length) => {
        expect(lengthOf(String(length))).toMatchObject({ length })
      }),
    )
    fc.assert(
      fc.property(
        fc.string().filter((text) => !/^\d{1,16}$/.test(text)),
        (text) => {
          expect(lengthOf(text)).toBe('length-invalid')
        },
      ),
    )
  })

  it('answers any headers at all with a command or a refusal', () => {
    const names = [
      'tus-resumable',
      'upload-offset',
      'upload-length',
      'upload-metadata',
      'content-type',
      'trailer',
    ]
    const headers = fc.dictionary(fc.constantFrom(...names), fc.oneof(fc.string(), fc.array(fc.string())))
    const methods = fc.constantFrom('POST', 'PATCH', 'HEAD', 'GET', 'DELETE', 'OPTIONS', 'X')
    fc.assert(
      fc.property(methods, fc.constantFrom(collection, upload, nothing), headers, (method, target, some) => {
        expect(['string', 'object']).toContain(typeof parse(method, target, some))
      }),
    )
  })
})

describe('methodOf', () => {
  it('lets the override win, in any case of letters, and ignores an empty one', () => {
    expect(methodOf('POST', { 'x-http-method-override': 'patch' })).toBe('PATCH')
    expect(methodOf('POST', { 'x-http-method-override': '' })).toBe('POST')
    expect(methodOf('HEAD', {})).toBe('HEAD')
  })
})

describe('targetOf', () => {
  const table: [url: string, mountPath: string, expected: Target][] = [
    ['/files', '/files', collection],
    ['/files/', '/files', collection],
    ['/files/', '/files/', collection],
    ['/files?x=/y', '/files', collection],
    ['http://h/files', '/files', collection],
    ['/', '/', collection],
    ['/u', '/', upload],
    ['/files/u', '/files', upload],
    ['/files/u?a=1', '/files/', upload],
    ['/files/u#f', '/files', upload],
    ['HTTPS://h:1/files/u', '/files', upload],
    ['/files/%75', '/files', upload],
    ['/files/%2575', '/files', { is: 'upload', id: '%75' }],
    ['/files/a%2Fb', '/files', { is: 'upload', id: 'a/b' }],
    ['/files/u/', '/files', nothing],
    ['/files/a/u', '/files', nothing],
    ['/files//', '/files', nothing],
    ['/filesu', '/files', nothing],
    ['/other/u', '/files', nothing],
    ['/files/%', '/files', nothing],
    ['/files/%ff', '/files', nothing],
    ['*', '/files', nothing],
    ['', '/files', nothing],
  ]
  for (const [url, mountPath, expected] of table)
    it(`${url || 'an empty URL'} under ${mountPath} is ${JSON.stringify(expected)}`, () => {
      expect(targetOf(url, mountPath)).toEqual(expected)
    })

  it('finds every id in the URL that is made of it', () => {
    const ids = fc.string({ unit: 'grapheme', minLength: 1 })
    fc.assert(
      fc.property(ids, fc.webQueryParameters(), (id, query) => {
        const url = `/files/${encodeURIComponent(id)}?${query}`
        expect(targetOf(url, '/files')).toEqual({ is: 'upload', id })
      }),
    )
  })

  it('knows the path of a URL in either form', () => {
    expect(['/a?b', 'http://h/a?b', 'http://h', '?b'].map(pathOf)).toEqual(['/a', '/a', '/', '/'])
  })
})

describe('originOf', () => {
  const host = 'inner:1080'
  const table: [headers: RequestHeaders, trustsForwarded: boolean, isEncrypted: boolean, expected: string][] =
    [
      [{ host }, false, false, 'http://inner:1080'],
      [{ host }, false, true, 'https://inner:1080'],
      [{}, false, false, 'nowhere'],
      [{ host: '' }, false, false, 'nowhere'],
      [{ host: 'a/../b' }, false, false, 'nowhere'],
      [{ host: 'a@b', 'x-forwarded-host': 'c' }, true, false, 'http://c'],
      [{ host, 'x-forwarded-proto': 'https', 'x-forwarded-host': 'a' }, false, false, 'http://inner:1080'],
      [{ host, 'x-forwarded-proto': 'https', 'x-forwarded-host': 'a' }, true, false, 'https://a'],
      [{ host, 'x-forwarded-proto': 'HTTPS , http', 'x-forwarded-host': ' a , b' }, true, false, 'https://a'],
      [{ host, 'x-forwarded-proto': ['https', 'http'] }, true, false, 'https://inner:1080'],
      [{ host, 'x-forwarded-proto': 'http' }, true, true, 'http://inner:1080'],
      [{ host, 'x-forwarded-proto': 'gopher' }, true, true, 'https://inner:1080'],
      [{ host, forwarded: 'for=1;HOST="[::1]:8080"; proto=https' }, true, false, 'https://[::1]:8080'],
      [{ host, forwarded: 'proto=https', 'x-forwarded-host': 'a' }, true, false, 'https://a'],
      [{ host, 'x-forwarded-host': 'a b' }, true, false, 'http://inner:1080'],
      [{ host, 'x-forwarded-host': 'a\\b' }, true, false, 'http://inner:1080'],
      [{ host, 'x-forwarded-host': 'a#b' }, true, false, 'http://inner:1080'],
    ]
  for (const [headers, trustsForwarded, isEncrypted, expected] of table)
    it(`${JSON.stringify(headers)}, ${trustsForwarded ? '' : 'not '}trusted, is ${expected}`, () => {
      const origin = originOf(headers, { isEncrypted, trustsForwarded })
      expect(origin.host === undefined ? 'nowhere' : `${origin.proto}://${origin.host}`).toBe(expected)
    })
})

describe('metadata', () => {
  const key = fc.stringMatching(/^[\x21-\x2b\x2d-\x7e]{1,12}$/)
  const value = fc.option(fc.string({ unit: 'grapheme', minLength: 1 })) // An empty value is no value.

  it('comes back as it was: parse(format(m)) = m, for any keys and values', () => {
    fc.assert(
      fc.property(fc.dictionary(key, value, { minKeys: 1, noNullPrototype: false }), (metadata) => {
        expect({ ...parseMetadata(formatMetadata(metadata)) }).toEqual({ ...metadata })
      }),
    )
  })

  it('is the same header again when nothing was changed, for any bytes as values', () => {
    const pairs = fc.uniqueArray(fc.tuple(key, fc.option(fc.uint8Array({ minLength: 1 }))), {
      minLength: 1,
      selector: ([name]) => name,
    })
    fc.assert(
      fc.property(pairs, (sent) => {
        const words = sent.map(([name, blob]) =>
          blob === null ? name : `${name} ${Buffer.from(blob).toString('base64')}`,
        )
        const parsed = parseMetadata(words.join(','))!
        const again = formatMetadata(parsed, words.join(','))
        expect(again.split(',').sort()).toEqual(words.sort())
      }),
    )
  })

  it('answers any header at all with metadata or undefined', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (header) => {
        const metadata = parseMetadata(header)
        if (metadata) for (const name of Object.keys(metadata)) expect(name).toMatch(/^[\x21-\x7e]+$/)
      }),
    )
  })
})
