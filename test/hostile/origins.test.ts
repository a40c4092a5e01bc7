// Origins that look like those that may call: of sites that somebody else can have, or that no browser sends.

import fc from 'fast-check'
import { pino } from 'pino'
import { describe, expect, it, onTestFinished } from 'vitest'
import { buildApp } from '../../server/app.ts'
import { assemble } from '../../server/assemble.ts'
import { loadConfig } from '../../server/config.ts'
import { corsHeaders } from '../../server/protocol/cors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { seed } from '../support/seed.ts'

const lookAlikes = [
  ...[
    'https://example.com.evil',
    'https://example.com.evil.net',
    'https://evilexample.com',
    'https://example.comevil',
  ],
  ...[
    'https://evil.net/https://example.com',
    'https://evil.net#https://example.com',
    'https://example.com@evil.net',
  ],
  ...[
    'https://evil.net?https://example.com',
    'https://example.com/',
    'https://example.com/x',
    'https://example.com?',
  ],
  ...[
    'http://example.com',
    'ftp://example.com',
    'example.com',
    '//example.com',
    'https:example.com',
    'https://',
  ],
  ...['https://example.com:443', 'https://example.com:8443', 'https://example.com:', 'https://example.com.'],
  ...['https://EXAMPLE.com', 'HTTPS://example.com', ' https://example.com', 'https://example.com '],
  ...[
    'https://ex\u0430mple.com',
    'https://example\u3002com',
    'https://example.com\u200b',
    'https://ex\u00e4mple.com',
  ],
  ...[
    'https://example.com\nhttps://evil.net',
    'https://evil.net\nhttps://example.com',
    'https://example.com\0',
  ],
  ...['https://example.com, https://evil.net', 'https://example.com https://evil.net', 'https://exampleXcom'],
  ...[
    'null',
    '',
    '*',
    'undefined',
    'file://',
    'data:',
    'chrome-extension://example.com',
    'https://%65xample.com',
  ],
]

const patterns = [
  ['a list', 'https://example.com,https://other.example'],
  ['a regular expression', '^https://example\\.com$'],
  ['a regular expression without an end', '^https://example\\.com'],
  ['a regular expression of two', '^https://example\\.com|https://other\\.example'],
] as const

describe.each(patterns)('%s', (_, setting) => {
  it('lets in its own sites, and none that looks like them', () => {
    expect(letIn(setting, 'https://example.com')).toBe('https://example.com')
    expect(lookAlikes.filter((origin) => letIn(setting, origin) !== undefined)).toEqual([])
  })

  it('lets in nothing that anybody thinks of', () => {
    const piece = fc.constantFrom(
      'https://',
      'http://',
      'example',
      '.',
      'com',
      'evil',
      ':',
      '443',
      '/',
      '@',
      '\n',
      '*',
    )
    const origin = fc.oneof(
      fc.string(),
      fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join('')),
    )
    fc.assert(
      fc.property(origin, (asking) => {
        fc.pre(asking !== 'https://example.com' && asking !== 'https://other.example')
        expect(letIn(setting, asking)).toBeUndefined()
      }),
      { seed, numRuns: 2000 },
    )
  })
})

describe('a list with a *', () => {
  const setting = 'https://*.example.com'

  it('means one name in that place, and no more', () => {
    for (const name of ['a', 'app-1', 'xn--bcher-kva', 'A_b']) {
      const origin = `https://${name}.example.com`
      expect(letIn(setting, origin)).toBe(origin)
    }
    const wrong = [
      'https://example.com',
      'https://.example.com',
      'https://a.b.example.com',
      'https://*.example.com',
    ]
    const hidden = ['https://evil.net/.example.com', 'https://evil?.example.com', 'https://evil#.example.com']
    const more = [
      'https://a@.example.com',
      'https://a%2f.example.com',
      'https://a\\.example.com',
      'https://a:1.example.com',
    ]
    const others = [
      'https://a.example.com.evil',
      'https://a.exampleXcom',
      'http://a.example.com',
      'https://a\n.example.com',
    ]
    for (const origin of [...wrong, ...hidden, ...more, ...others, ...lookAlikes])
      expect([origin, letIn(setting, origin)]).toEqual([origin, undefined])
  })
})

it('is not tried on what is longer than an origin, however a pattern is written', () => {
  let tried = 0
  const allowedOrigins = () => ++tried > 0
  expect(corsHeaders({ origin: `https://${'a'.repeat(100_000)}` }, { allowedOrigins }, false)).toEqual({
    Vary: 'Origin',
  })
  expect(tried).toBe(0)
})

it('is told alike by uploads, by the host and by what is refused unread', async () => {
  const args = ['--cors-allow-origin', 'https://example.com', '--upload-dir', await temporaryFolder()]
  const config = loadConfig(args, {})
  const logger = pino({ level: 'silent' })
  const app = buildApp({ config, logger, uploads: await assemble(config, logger) })
  onTestFinished(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  for (const path of ['/files/', '/files/none', '/nothing', '/%zz'])
    for (const [origin, allowed] of [
      ['https://example.com', 'https://example.com'],
      ['https://example.com.evil', null],
      ['null', null],
    ] as const) {
      const { headers } = await fetch(url + path, { headers: { Origin: origin } })
      expect([path, origin, headers.get('access-control-allow-origin')]).toEqual([path, origin, allowed])
      expect(headers.get('vary')).toContain('Origin')
      expect(headers.get('access-control-allow-credentials')).toBeNull()
    }
})

/** The origin that an answer lets in. */
function letIn(setting: string, origin: string): string | undefined {
  const allowed = loadConfig(['--cors-allow-origin', setting], {}).corsAllowOrigin
  if (allowed === '*') throw new Error('everybody is let in')
  const allowedOrigins = (asking: string) => allowed.test(asking)
  return corsHeaders({ origin }, { allowedOrigins }, true)['Access-Control-Allow-Origin']
}
