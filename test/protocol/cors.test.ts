// Browsers from other origins. Row numbers are those of docs/protocol.md.

import { describe, expect, it } from 'vitest'
import { type Answer, startSite } from './exchange.ts'

const origin = 'https://app.example'
const asked = ['authorization', 'content-type', 'tus-resumable', 'upload-checksum', 'upload-concat']
const alsoAsked = ['upload-defer-length', 'upload-length', 'upload-metadata', 'upload-offset', 'x-request-id']
const override = ['x-http-method-override', 'x-requested-with', 'range']

function listOf(answer: Answer, name: string): string[] {
  return (answer.headers[name] ?? '').split(', ').map((word) => word.toLowerCase())
}

describe('preflight', () => {
  it('row 49: preflight -> allows every method, GET included, every header that clients send, and may be kept', async () => {
    const site = await startSite()
    const answer = await site.send('OPTIONS', '/files/x', {
      Origin: origin,
      'Access-Control-Request-Method': 'PATCH',
      'Access-Control-Request-Headers': [...asked, ...alsoAsked].join(','),
      'Tus-Resumable': undefined,
    })
    expect(answer.status).toBe(200)
    expect(listOf(answer, 'access-control-allow-methods').sort()).toEqual([
      'delete',
      'get',
      'head',
      'options',
      'patch',
      'post',
    ])
    expect(listOf(answer, 'access-control-allow-headers')).toEqual(
      expect.arrayContaining([...asked, ...alsoAsked, ...override]),
    )
    expect(Number(answer.headers['access-control-max-age'])).toBeGreaterThan(0)
    expect(answer.headers['access-control-allow-origin']).toBe('*')
  })

  it('row 49: preflight -> allows the headers that the setting adds', async () => {
    const site = await startSite({ allowedHeaders: ['X-Tenant'] })
    expect(listOf(await site.send('OPTIONS', '/files'), 'access-control-allow-headers')).toContain('x-tenant')
  })
})

describe('answers', () => {
  it('row 49: answers -> expose all Upload-*, Tus-*, Location and what belongs to downloads', async () => {
    const site = await startSite({ exposedHeaders: ['X-Tenant'] })
    const answer = await site.send('POST', '/files', { 'Upload-Length': 6, Origin: origin })
    expect(listOf(answer, 'access-control-expose-headers')).toEqual(
      expect.arrayContaining([
        ...['upload-offset', 'upload-length', 'upload-defer-length', 'upload-metadata', 'upload-expires'],
        ...['upload-concat', 'tus-resumable', 'tus-version', 'tus-extension', 'tus-max-size'],
        ...['tus-checksum-algorithm', 'location', 'content-range', 'accept-ranges', 'etag', 'retry-after'],
        'x-tenant',
      ]),
    )
  })

  it('row 49: errors and downloads carry CORS too', async () => {
    const site = await startSite()
    const url = await site.createFinished('abc')
    const answers = [
      await site.send('HEAD', '/files/none', { Origin: origin }),
      await site.send('POST', '/files', { Origin: origin }),
      await site.send('POST', '/files', { Origin: origin, 'Tus-Resumable': undefined }),
      await site.append(url, 0, 'abc', { Origin: origin }),
      await site.send('GET', url, { Origin: origin }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([404, 400, 412, 409, 200])
    for (const { headers } of answers) {
      expect(headers['access-control-allow-origin']).toBe('*')
      expect(headers['access-control-expose-headers']).toContain('Upload-Offset')
    }
  })
})

describe('origins', () => {
  const kinds = {
    'a list': [origin],
    'a pattern': (asking: string) => /^https:\/\/app\.example$/.test(asking),
  }
  for (const [kind, allowedOrigins] of Object.entries(kinds))
    it(`row 49: origins by ${kind} -> one that is on it is named, another is not let in`, async () => {
      const site = await startSite({ allowedOrigins })
      const from = async (Origin: string | undefined) =>
        (await site.send('OPTIONS', '/files', { Origin })).headers
      expect(await from(origin)).toMatchObject({ 'access-control-allow-origin': origin, vary: 'Origin' })
      for (const other of ['https://evil.example', `${origin}.evil.example`, 'null', undefined]) {
        const headers = await from(other)
        expect(headers).not.toHaveProperty('access-control-allow-origin')
        expect(headers.vary).toBe('Origin')
      }
    })

  it('row 49: with credentials the origin itself is named, as browsers want it', async () => {
    const site = await startSite({ allowedCredentials: true })
    expect((await site.send('OPTIONS', '/files', { Origin: origin })).headers).toMatchObject({
      'access-control-allow-origin': origin,
      'access-control-allow-credentials': 'true',
      vary: 'Origin',
    })
  })
})
