// The plain dialect as pure functions: which requests mean what, and which are refused.

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Refusal } from '../../server/errors.ts'
import { isName, metadataOf, parseContentRange, parsePlain, typeOf } from '../../server/protocol/plain.ts'

const parse = (method: string, url: string, headers: Record<string, string> = {}) =>
  parsePlain({ method, url, headers }, '/upload')

function codeOf(work: () => unknown): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    return error instanceof Refusal ? error.code : `not a refusal: ${String(error)}`
  }
}

describe('names', () => {
  it('decodes percent-encoding once, and takes any Unicode', () => {
    const put = parse('PUT', '/upload/gr%C3%B6%C3%9Fe%20%F0%9F%90%8B.bin?x=1', { 'content-length': '1' })
    expect(put).toMatchObject({ do: 'put', name: 'größe 🐋.bin' })
    expect(parse('GET', '/upload/%252e%252e')).toEqual({ do: 'read', name: '%2e%2e' })
    expect(parse('GET', 'http://somewhere/upload/a..b')).toEqual({ do: 'read', name: 'a..b' })
  })

  it.each([
    '..',
    '%2e%2e',
    '.',
    '../x',
    '%2e%2e%2fx',
    'a/b',
    'a%2Fb',
    'a%5Cb',
    'a%00b',
    'a%0Ab',
    'a%7Fb',
    '%C3',
    '%',
    'x'.repeat(256),
    '%C3%A4'.repeat(128),
  ])('refuses the name %s', (name) => {
    for (const method of ['PUT', 'HEAD', 'GET', 'DELETE'])
      expect(codeOf(() => parse(method, `/upload/${name}`))).toBe('name-invalid')
  })

  it('lets through nothing that could be a path or a control', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (name) => {
        if (!isName(name)) return
        expect(name).not.toMatch(/[/\\\p{Cc}]/u)
        expect(['', '.', '..']).not.toContain(name)
        expect(Buffer.from(name).toString()).toBe(name)
      }),
    )
  })

  it('asks for a name where there is none', () => {
    expect(codeOf(() => parse('PUT', '/upload'))).toBe('name-invalid')
    expect(codeOf(() => parse('DELETE', '/upload/'))).toBe('name-invalid')
  })
})

describe('Content-Range', () => {
  it('is read with a size, and without', () => {
    expect(parseContentRange('bytes 5-9/10')).toEqual({ first: 5, last: 9, size: 10 })
    expect(parseContentRange('BYTES 0-0/*')).toEqual({ first: 0, last: 0, size: undefined })
  })

  it('may say that nothing is left, as curl does', () => {
    expect(parseContentRange('bytes 5-4/5')).toEqual({ first: 5, last: 4, size: 5 })
  })

  it.each([
    'bytes 5-4/9',
    'bytes 9-5/10',
    'bytes 5-10/10',
    'bytes */10',
    'bytes 0-1',
    'bytes 0-9/10, 20-29/30',
    'items 0-9/10',
    'bytes -5/10',
    'bytes 0-99999999999999999/*',
    'bytes 0-9007199254740992/*',
    'bytes 0x0-0x1/0x2',
    '',
  ])('is refused as %s', (range) => {
    const headers = { 'content-range': range, 'transfer-encoding': 'chunked' }
    expect(codeOf(() => parse('PUT', '/upload/f', headers))).toBe('range-invalid')
  })

  it('must be as long as the body', () => {
    const headers = { 'content-range': 'bytes 5-9/10', 'content-length': '4' }
    expect(codeOf(() => parse('PUT', '/upload/f', headers))).toBe('range-length')
  })
})

describe('a form', () => {
  const multipart = 'multipart/form-data; boundary=x'

  it('is multipart, with a boundary', () => {
    expect(parse('POST', '/upload', { 'content-type': multipart })).toEqual({ do: 'form', key: undefined })
    expect(parse('POST', '/upload/', { 'content-type': multipart, 'upload-key': ' me ' })).toEqual({
      do: 'form',
      key: 'me',
    })
    for (const type of [
      '',
      'multipart/form-data',
      'application/x-www-form-urlencoded',
      'multipart/mixed; boundary=x',
    ])
      expect(codeOf(() => parse('POST', '/upload', { 'content-type': type }))).toBe('form-type')
  })

  it('is not sent to a name', () => {
    expect(codeOf(() => parse('POST', '/upload/f', { 'content-type': multipart }))).toBe('method-plain')
  })
})

it('keeps no body that is encoded in a way that it does not undo', () => {
  expect(codeOf(() => parse('PUT', '/upload/f', { 'transfer-encoding': 'gzip, chunked' }))).toBe(
    'coding-unknown',
  )
  expect(codeOf(() => parse('PUT', '/upload/f', { 'content-encoding': 'gzip' }))).toBe('content-encoded')
})

it('keeps the type of a file where one was said', () => {
  expect(typeOf('Image/PNG; x=y')).toBe('image/png')
  for (const type of [undefined, '', 'png', 'a b/c', `text/${'x'.repeat(200)}`])
    expect(typeOf(type)).toBeUndefined()
  expect(parse('PUT', '/upload/f', { 'content-type': 'application/x-www-form-urlencoded' })).toMatchObject({
    type: undefined,
  })
})

it('says name and type as tus clients do', () => {
  expect(metadataOf('ä.png', 'image/png')).toBe('filename w6QucG5n,filetype aW1hZ2UvcG5n')
  expect(metadataOf('a', undefined)).toBe('filename YQ==')
})
