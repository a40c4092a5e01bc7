// Location behind proxies. Row numbers are those of docs/protocol.md.

import { describe, expect, it } from 'vitest'
import { type Headers, type Site, startSite } from './exchange.ts'

async function originOfLocation(site: Site, headers: Headers): Promise<string> {
  const { headers: answer } = await site.send('POST', '/files', { 'Upload-Length': 6, ...headers })
  return new URL(answer.location!).origin
}

describe('Location', () => {
  const forwarded: [string, Headers, string][] = [
    [
      'proto and host',
      { 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'up.example' },
      'https://up.example',
    ],
    [
      'lists, by their first element',
      { 'X-Forwarded-Proto': 'https,http', 'X-Forwarded-Host': 'up.example:8443, inner' },
      'https://up.example:8443',
    ],
    [
      'Forwarded',
      { Forwarded: 'for=10.0.0.1;proto=https;host="up.example:8443"' },
      'https://up.example:8443',
    ],
    ['Forwarded as a list', { Forwarded: 'host=up.example;proto=https, host=inner' }, 'https://up.example'],
    [
      'Forwarded before X-Forwarded-*',
      { Forwarded: 'host=up.example', 'X-Forwarded-Host': 'other.example' },
      'http://up.example',
    ],
  ]
  for (const [what, headers, expected] of forwarded)
    it(`row 18: Location behind a trusted proxy (${what}) -> what the client sees`, async () => {
      const site = await startSite({ respectForwardedHeaders: true, trustsProxy: () => true })
      expect(await originOfLocation(site, headers)).toBe(expected)
    })

  const nonsense: [string, Headers][] = [
    ['a host with a path', { 'X-Forwarded-Host': 'evil.example/x' }],
    ['a host with a user', { 'X-Forwarded-Host': 'a@evil.example' }],
    ['an empty host', { 'X-Forwarded-Host': '' }],
    ['another scheme', { 'X-Forwarded-Proto': 'javascript' }],
    ['a broken Forwarded', { Forwarded: ';;=,host' }],
  ]
  for (const [what, headers] of nonsense)
    it(`row 18: nonsense in forwarded headers (${what}) -> 201, as if it was not there`, async () => {
      const site = await startSite({ respectForwardedHeaders: true })
      expect(await originOfLocation(site, headers)).toBe(`http://${site.host}`)
    })

  const proto = { 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'up.example' }

  for (const header of ['X-Forwarded-For', 'X-Forwarded-Proto', 'Forwarded', 'Via'])
    it(`row 18: behind a proxy that is not declared (${header}) -> a relative Location, where that is asked for`, async () => {
      const site = await startSite({ relativeLocation: 'behind-unknown-proxy' })
      const direct = await site.send('POST', '/files', { 'Upload-Length': 6 })
      expect(direct.headers.location).toMatch(new RegExp(`^http://${site.host}/files/[0-9a-f]{32}$`))
      const proxied = await site.send('POST', '/files', { 'Upload-Length': 6, [header]: 'for=10.0.0.1' })
      expect(proxied.headers.location).toMatch(/^\/files\/[0-9a-f]{32}$/)
    })

  it('row 18: forwarded headers of a peer that is no trusted proxy -> ignored', async () => {
    const asked: string[] = []
    const trustsProxy = (address: string) => asked.push(address) === 0
    const site = await startSite({ respectForwardedHeaders: true, trustsProxy })
    expect(await originOfLocation(site, proto)).toBe(`http://${site.host}`)
    expect(asked).toEqual(['127.0.0.1'])
  })

  it('row 18: forwarded headers where behind-proxy is off -> ignored', async () => {
    const site = await startSite()
    expect(await originOfLocation(site, proto)).toBe(`http://${site.host}`)
  })
})
