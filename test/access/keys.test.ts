// Keys from a JWKS URL: they change, they go away, and come back.
import { expect, it } from 'vitest'
import { JwtGate } from '../../server/access/jwt-gate.ts'
import { type RemoteKeysOptions, remoteKeys } from '../../server/access/jwt-keys.ts'
import { startSite } from '../protocol/exchange.ts'
import { as, beginAppend, KeyServer, signer } from './support.ts'

async function siteWith(server: KeyServer, more: Partial<RemoteKeysOptions> = {}) {
  const away: unknown[] = []
  const keys = remoteKeys({ url: server.url, onAway: (error) => away.push(error), ...more })
  const gate = new JwtGate({ keys })
  const site = await startSite({ gate })
  const knock = async (token: string) =>
    (await site.send('POST', '/files', as(token, { 'Upload-Length': 3 }))).status
  return { site, gate, knock, away }
}

it('takes a new key as soon as a token names it, and forgets one that is gone', async () => {
  const [first, second] = [await signer('RS256', 'one'), await signer('ES256', 'two')]
  const server = await KeyServer.start(first.jwk)
  const { knock, gate } = await siteWith(server, { cooldownMs: 0, refreshMs: 200 })
  expect(await knock(await first.sign())).toBe(201)
  expect(await knock(await second.sign())).toBe(401)
  server.keys = [first.jwk, second.jwk]
  expect(await knock(await second.sign())).toBe(201)
  expect(await knock(await first.sign())).toBe(201)
  server.keys = [second.jwk]
  await expect.poll(async () => knock(await first.sign())).toBe(401)
  expect(await knock(await second.sign())).toBe(201)
  gate.close()
})

it('does not ask for keys again and again because somebody makes them up', async () => {
  const good = await signer('EdDSA', 'good')
  const server = await KeyServer.start(good.jwk)
  const { knock } = await siteWith(server)
  expect(await knock(await good.sign())).toBe(201)
  const evil = await signer('EdDSA', 'evil')
  for (let i = 0; i < 10; i++) expect(await knock(await evil.sign({}, { kid: `evil-${i}` }))).toBe(401)
  expect(server.asked).toBe(1)
  expect(await knock(await evil.sign({}, { kid: 'good' }))).toBe(401)
})

it('goes on with known keys while the server of keys is away; refuses new data of others with 503, and asks them to ask again with 423', async () => {
  const [known, fresh] = [await signer('RS256', 'one'), await signer('RS256', 'two')]
  const server = await KeyServer.start(known.jwk)
  const { site, knock, away } = await siteWith(server, { cooldownMs: 0 })
  const url = await site.create(3, as(await known.sign()))
  server.isAway = true
  for (let i = 0; i < 3; i++) {
    const post = await site.send('POST', '/files', as(await fresh.sign(), { 'Upload-Length': 3 }))
    expect([post.status, post.headers['retry-after']]).toEqual([503, '1'])
    expect((await site.append(url, 0, 'abc', as(await fresh.sign()))).status).toBe(503)
    const head = await site.send('HEAD', url, as(await fresh.sign()))
    expect([head.status, head.headers['retry-after']]).toEqual([423, '1'])
    expect(await knock(await known.sign())).toBe(201)
  }
  expect(server.asked, 'once, and then not before a second is over').toBeLessThan(4)
  expect(away).toHaveLength(1)
  server.isAway = false
  server.keys = [known.jwk, fresh.jwk]
  await expect.poll(async () => knock(await fresh.sign()), { timeout: 5000 }).toBe(201)
})

it('begins without keys, and lets people in as soon as there are some', async () => {
  const good = await signer('RS256', 'one')
  const server = await KeyServer.start(good.jwk)
  server.isAway = true
  const { site, knock, away } = await siteWith(server)
  expect(await knock(await good.sign())).toBe(503)
  expect((await site.send('HEAD', '/files/x', as(await good.sign()))).status).toBe(423)
  expect((await site.send('HEAD', '/files/x')).status, 'without a token no key is needed').toBe(401)
  server.isAway = false
  await expect.poll(async () => knock(await good.sign()), { timeout: 5000 }).toBe(201)
  expect(away).toHaveLength(1)
})

it('finishes what a known key began, also when the server of keys goes away meanwhile', async () => {
  const good = await signer('RS256', 'one')
  const server = await KeyServer.start(good.jwk)
  const { site } = await siteWith(server)
  const token = await good.sign()
  const url = await site.create(3, as(token))
  const sending = await beginAppend(site, url, token, 3)
  server.isAway = true
  sending.write('abc')
  expect((await sending.answer).status).toBe(204)
})

it('takes no secret and no private key from a URL', async () => {
  const good = await signer('RS256', 'one')
  const { exportJWK, SignJWT } = await import('jose')
  const secret = Buffer.from('a secret that somebody published by mistake')
  const server = await KeyServer.start(good.jwk, {
    kty: 'oct',
    kid: 'oct',
    k: secret.toString('base64url'),
    alg: 'HS256',
  })
  const { knock } = await siteWith(server)
  const token = await new SignJWT({ sub: 'ann' })
    .setExpirationTime('1h')
    .setProtectedHeader({ alg: 'HS256', kid: 'oct' })
    .sign(secret)
  expect(await knock(token)).toBe(401)
  expect(await exportJWK(good.publicKey)).not.toHaveProperty('d')
})
