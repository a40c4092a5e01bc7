// Whoever tries to get in with what is not a good token: refused before anything is told, and nothing is made.
import { createHash, generateKeyPairSync } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { exportSPKI, type JWTPayload, SignJWT } from 'jose'
import { expect, it } from 'vitest'
import { JwtGate, type JwtGateOptions } from '../../server/access/jwt-gate.ts'
import { publicKeys, secretKeys } from '../../server/access/jwt-keys.ts'
import { isToken, makeToken, parseTokens } from '../../server/access/tokens.ts'
import { bytesAt, bytesType, type Headers, pathOf, type Site, startSite } from '../protocol/exchange.ts'
import { as, claims, part, signedWith, signer, startTokenSite } from './support.ts'

const secret = 'a secret of this test, long enough to be one'
const hour = 3600
const now = () => Math.floor(Date.now() / 1000)

const jwtSite = (options: Omit<JwtGateOptions, 'keys'> & { keys?: JwtGateOptions['keys'] } = {}) =>
  startSite({ gate: new JwtGate({ keys: secretKeys(secret), ...options }) })

/** What a creation is answered: `201`, or `401 error="..."`. */
async function knock(site: Site, headers: Headers): Promise<string> {
  const { status, headers: answer } = await site.send('POST', '/files', { 'Upload-Length': 3, ...headers })
  if (status !== 201) expect(answer['www-authenticate']).toMatch(/^Bearer realm="Tidemark"/)
  const error = /error="([^"]*)"/.exec(answer['www-authenticate'] ?? '')?.[1]
  return error === undefined ? String(status) : `${status} ${error}`
}

it('asks every request but a preflight to sign in, before it tells anything', async () => {
  const { site, ann } = await startTokenSite()
  const url = await site.create(3, as(ann))
  for (const method of ['POST', 'HEAD', 'PATCH', 'GET', 'DELETE', 'PUT', 'BREW'])
    for (const path of ['/files', '/files/', url, '/files/none', '/files/a/b']) {
      // Without a version or any other header, too: what is wrong with those is told to nobody.
      const answer = await site.send(method, path, {
        'Tus-Resumable': undefined,
        Origin: 'https://a.example',
      })
      expect([method, path, answer.status]).toEqual([method, path, method === 'BREW' ? 400 : 401])
      if (method === 'BREW') continue
      expect(answer.headers['www-authenticate']).toBe('Bearer realm="Tidemark"')
      expect(answer.headers['access-control-allow-origin']).toBe('*')
      expect(answer.headers['access-control-expose-headers']).toContain('WWW-Authenticate')
    }
  const preflight = await site.send('OPTIONS', url, { Origin: 'https://a.example' })
  expect(preflight.status).toBe(200)
  expect(preflight.headers['access-control-allow-headers']).toContain('Authorization')
})

it('does not take the method of a preflight for another one', async () => {
  const { site, ann } = await startTokenSite()
  const url = await site.createFinished('abc', as(ann))
  for (const method of ['GET', 'HEAD', 'DELETE', 'PATCH', 'delete']) {
    const answer = await site.send('OPTIONS', url, { 'X-HTTP-Method-Override': method })
    expect([method, answer.status]).toEqual([method, 401])
  }
  expect((await site.send('GET', url, as(ann))).text).toBe('abc')
})

it('knows a good token in any case of the word Bearer, and no other scheme', async () => {
  const { site, ann } = await startTokenSite()
  for (const word of ['Bearer', 'bearer', 'BEARER'])
    expect(await knock(site, { Authorization: `${word} ${ann}` })).toBe('201')
  const refused = '401 invalid_request'
  expect(await knock(site, { Authorization: ann })).toBe(refused)
  expect(await knock(site, { Authorization: `Basic ${Buffer.from(`ann:${ann}`).toString('base64')}` })).toBe(
    refused,
  )
  expect(await knock(site, { Authorization: `Bearer ${ann} ${ann}` })).toBe(refused)
  expect(await knock(site, { Authorization: `Bearer ${ann},Bearer ${ann}` })).toBe(refused)
  expect(await knock(site, { Authorization: 'Bearer' })).toBe(refused)
  expect(await knock(site, { Authorization: '' })).toBe(refused)
})

it('refuses two Authorization headers, whichever of them is good', async () => {
  const { site, ann } = await startTokenSite()
  for (const [one, two] of [
    [ann, 'tm_x'],
    ['tm_x', ann],
    [ann, ann],
  ] as const)
    expect(await knock(site, { Authorization: `Bearer ${one}`, authorization: `Bearer ${two}` })).toBe(
      '401 invalid_request',
    )
})

it('refuses a token in a URL, also a good one beside a good header', async () => {
  const { site, ann } = await startTokenSite()
  const url = await site.createFinished('abc', as(ann))
  for (const query of [
    `access_token=${ann}`,
    `token=${ann}`,
    `Token=x`,
    `acc%65ss_token=${ann}`,
    `a=1&jwt=x`,
    `t=${ann}`,
    `x=eyJhbGciOiJub25lIn0.e30.`,
  ]) {
    for (const headers of [{}, as(ann)]) {
      const answer = await site.send('GET', `${url}?${query}`, headers)
      expect([query, answer.status]).toEqual([query, 401])
      expect(answer.text).toContain('must not stand in a URL')
      expect(answer.text).not.toContain(ann)
    }
  }
  expect((await site.send('GET', `${url}?page=1`, as(ann))).status).toBe(200)
})

it('refuses what is not quite a token that was made here', async () => {
  const { site, ann } = await startTokenSite()
  const other = makeToken({ owner: 'ann' }).token
  const [, id, key] = /^tm_([^_]*)_(.*)$/.exec(ann)!
  const wrong = [
    other,
    `tm_${id}_${other.slice(16)}`,
    `tm_${other.slice(3, 15)}_${key}`,
    ann.slice(0, -1),
    `${ann}A`,
    ann.slice(0, -1) + (ann.endsWith('A') ? 'B' : 'A'),
    ann.toUpperCase(),
    `sha256:${createHash('sha256').update(ann).digest('base64url')}`.replace(':', '.'),
    `tm_${'x'.repeat(8000)}`,
    'x'.repeat(60_000),
  ]
  for (const token of wrong)
    expect([token.slice(0, 80), await knock(site, as(token))]).toEqual([
      token.slice(0, 80),
      '401 invalid_token',
    ])
  expect(await knock(site, as(ann))).toBe('201')
})

it('compares a token with one that is known, or with none, by a digest of it', () => {
  const { token, line } = makeToken({ owner: 'ann' })
  const [known] = parseTokens(JSON.stringify(line)).values()
  expect(JSON.stringify(line)).not.toContain(token.slice(16))
  expect(isToken(token, known)).toBe(true)
  expect(isToken(token, undefined)).toBe(false)
  expect(isToken(`${token.slice(0, -1)}.`, known)).toBe(false)
})

it('refuses tokens before and after their time', async () => {
  const { site, file } = await startTokenSite()
  const ended = await file.add({ owner: 'ann', expires: new Date(Date.now() - 1000).toISOString() })
  const lasting = await file.add({ owner: 'ann', expires: new Date(Date.now() + 60_000).toISOString() })
  await expect.poll(() => knock(site, as(lasting))).toBe('201')
  expect(await knock(site, as(ended))).toBe('401 invalid_token')
})

it('refuses claims that are expired, not good yet, without an owner or an end, or of somebody else', async () => {
  const site = await jwtSite({
    issuer: 'https://issuer.example',
    audience: 'tidemark',
    clockToleranceMs: 5000,
  })
  const good = { iss: 'https://issuer.example', aud: 'tidemark' }
  const wanted = async (more: object) => knock(site, as(await signedWith(secret, { ...good, ...more })))
  expect(await wanted({})).toBe('201')
  expect(await wanted({ aud: ['other', 'tidemark'] })).toBe('201')
  expect(await wanted({ exp: now() - 2 }), 'within the tolerance').toBe('201')
  for (const more of [
    { exp: now() - 10 },
    { nbf: now() + hour },
    { exp: undefined },
    { exp: '2999-01-01' },
    { sub: undefined },
    { sub: '' },
    { sub: 'a\nb' },
    { sub: 'a'.repeat(256) },
    { sub: 7 },
    { iss: 'https://issuer.example.evil' },
    { iss: undefined },
    { aud: 'tidemark2' },
    { aud: undefined },
    { tidemark: { maxsize: 5 } },
    { tidemark: { maxSize: -1 } },
    { tidemark: 'read-only' },
  ])
    expect([more, await wanted(more)]).toEqual([more, '401 invalid_token'])
})

it('refuses claims that nobody signed, or that are signed with what everybody knows', async () => {
  const rsa = await signer('RS256')
  const pem = await exportSPKI(rsa.publicKey)
  const site = await jwtSite({ keys: publicKeys(pem) })
  expect(await knock(site, as(await rsa.sign()))).toBe('201')
  const body = part(claims())
  const unsigned = ['none', 'None', 'NONE', 'nOnE'].flatMap((alg) => [
    `${part({ alg })}.${body}.`,
    `${part({ alg, typ: 'JWT' })}.${body}.AAAA`,
  ])
  const confused = await Promise.all(
    [pem, pem.trim(), pem.replaceAll('\n', '')].map((text) =>
      new SignJWT(claims()).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(text)),
    ),
  )
  const other = await signer('RS256')
  const stranger = await signer('ES256')
  const [head, , signature] = (await rsa.sign()).split('.')
  const forged = [
    ...unsigned,
    ...confused,
    await other.sign(),
    await stranger.sign(),
    `${head}.${part(claims({ sub: 'bob' }))}.${signature}`,
    `${head}.${body}`,
    'a.b.c',
    '..',
    `${head}.${'A'.repeat(7000)}.${signature}`,
  ]
  for (const token of forged) {
    const answer = await knock(site, as(token))
    expect([token.slice(0, 60), answer]).toEqual([
      token.slice(0, 60),
      token === '..' ? answer : '401 invalid_token',
    ])
    expect(answer).toMatch(/^401/)
  }
})

it('takes no key from the token itself', async () => {
  const good = await signer('RS256')
  const evil = await signer('RS256', 'RS256-1')
  const site = await jwtSite({ keys: publicKeys(JSON.stringify({ keys: [good.jwk] })) })
  expect(await knock(site, as(await good.sign()))).toBe('201')
  for (const header of [
    { jwk: evil.jwk },
    { jku: 'http://127.0.0.1:9/keys.json' },
    { x5u: 'http://127.0.0.1:9/cert.pem' },
    { kid: '../../../../dev/null' },
    { kid: "' UNION SELECT 'key" },
    { kid: 'a'.repeat(2000) },
    { kid: '__proto__' },
  ])
    await expect(evil.sign({}, header).then((token) => knock(site, as(token)))).resolves.toBe(
      '401 invalid_token',
    )
})

it('takes RS256, ES256 and EdDSA by the kind of the key, and HS256 by a secret', async () => {
  for (const alg of ['RS256', 'ES256', 'EdDSA'] as const) {
    const { publicKey, jwk, sign } = await signer(alg)
    for (const keys of [
      publicKeys(await exportSPKI(publicKey)),
      publicKeys(JSON.stringify(jwk)),
      publicKeys(JSON.stringify({ keys: [jwk] })),
    ])
      expect(await knock(await jwtSite({ keys }), as(await sign()))).toBe('201')
  }
  expect(await knock(await jwtSite(), as(await signedWith(secret)))).toBe('201')
})

it('tries the only key of a file that gives it no name, whatever a token calls its key', async () => {
  const { jwk, sign } = await signer('ES256')
  const { kid: _, ...nameless } = jwk
  const site = await jwtSite({ keys: publicKeys(JSON.stringify(nameless)) })
  expect(await knock(site, as(await sign({}, { kid: 'a-name' })))).toBe('201')
  const evil = await signer('ES256', 'ES256-1')
  expect(await knock(site, as(await evil.sign()))).toBe('401 invalid_token')
  const named = await jwtSite({ keys: publicKeys(JSON.stringify(jwk)) })
  expect(await knock(named, as(await sign({}, { kid: 'another-name' })))).toBe('401 invalid_token')
})

it('refuses keys that are no keys for this', () => {
  const pem = (key: { export(options: { type: 'spki'; format: 'pem' }): unknown }) =>
    String(key.export({ type: 'spki', format: 'pem' }))
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 1024 })
  expect(() => publicKeys(pem(publicKey))).toThrow('2048 bits')
  expect(() => publicKeys(String(privateKey.export({ type: 'pkcs8', format: 'pem' })))).toThrow('private')
  expect(() => publicKeys(JSON.stringify(privateKey.export({ format: 'jwk' })))).toThrow('private')
  expect(() => publicKeys(pem(generateKeyPairSync('ec', { namedCurve: 'secp384r1' }).publicKey))).toThrow(
    'P-256',
  )
  expect(() => publicKeys('{"kty":"oct","k":"AAAA"}')).toThrow('--jwt-secret-file')
  expect(() => publicKeys('{"keys":[]}')).toThrow('at least one key')
  expect(() => publicKeys('nothing')).toThrow('PEM, a JWK or a JWKS')
  expect(() => secretKeys('short')).toThrow('32 bytes')
  expect(() => secretKeys(pem(publicKey))).toThrow('--jwt-key-file')
})

it('does what the scopes say, and says which one is missing', async () => {
  const { site, file, ann } = await startTokenSite()
  const url = await site.create(6, as(ann))
  const done = await site.createFinished('abc', as(ann))
  const may = async (token: string) => {
    const answers = [
      await site.send('POST', '/files', as(token, { 'Upload-Length': 3 })),
      await site.send('POST', '/files', as(token, { 'Upload-Length': 3, ...bytesType }), 'abc'),
      await site.append(url, 99, '', as(token)),
      await site.send('HEAD', url, as(token)),
      await site.send('GET', done, as(token)),
      await site.send('DELETE', '/files/none', as(token)),
    ]
    for (const { status, headers, text } of answers)
      if (status === 403) {
        expect(headers['www-authenticate']).toMatch(/error="insufficient_scope", scope="[a-z]+"/)
        expect(text).not.toContain(token)
      }
    return answers.map(({ status }) => status).join(' ')
  }
  const made = (line: object) => file.add({ owner: 'ann', ...line })
  const [all, create, both, readOnly, nothing, admin] = await Promise.all([
    made({}),
    made({ scopes: ['create'] }),
    made({ scopes: ['create', 'append'] }),
    made({ readOnly: true }),
    made({ scopes: [] }),
    made({ scopes: ['admin'] }),
  ])
  await expect.poll(() => knock(site, as(all))).toBe('201')
  expect(await may(all)).toBe('201 201 409 200 200 404')
  expect(await may(create)).toBe('201 403 403 403 403 403')
  expect(await may(both)).toBe('201 201 409 403 403 403')
  expect(await may(readOnly)).toBe('403 403 403 200 200 403')
  expect(await may(nothing)).toBe('403 403 403 403 403 403')
  expect(await may(admin)).toBe('403 403 403 403 403 403')
})

it('reads the scopes of claims as a text or a list, and passes over those of other services', async () => {
  const site = await jwtSite()
  const status = async (more: JWTPayload) =>
    (await site.send('POST', '/files', as(await signedWith(secret, more), { 'Upload-Length': 3 }))).status
  expect(await status({ scope: 'openid create profile' })).toBe(201)
  expect(await status({ scopes: ['tidemark:create'] })).toBe(201)
  expect(await status({ scope: 'openid profile' })).toBe(403)
  expect(await status({ scope: '' })).toBe(403)
  expect(await status({ scope: 'create', tidemark: { readOnly: true } })).toBe(403)
  expect(await status({ scope: 7 })).toBe(401)
})

it('lets a token lower the largest size, the types and the life of what it creates', async () => {
  const { site, file } = await startTokenSite({
    maxSize: 8,
    expiry: { afterMs: 3_600_000, mode: 'absolute' },
  })
  const small = await file.add({ owner: 'ann', maxSize: 4 })
  const images = await file.add({ owner: 'ann', types: ['image/*', 'application/pdf'], expireAfter: '1m' })
  const large = await file.add({ owner: 'ann', maxSize: '1GiB', expireAfter: '2h' })
  const made = (token: string, length: number | 'deferred', more: Headers = {}, body?: string) => {
    const size: Headers = length === 'deferred' ? { 'Upload-Defer-Length': 1 } : { 'Upload-Length': length }
    return site.send('POST', '/files', as(token, { ...size, ...more }), body)
  }
  await expect.poll(async () => (await made(large, 8)).status).toBe(201)
  expect((await made(large, 9)).status, 'a token lifts nothing').toBe(413)
  expect((await made(small, 4)).status).toBe(201)
  expect((await made(small, 5)).status).toBe(413)
  expect((await made(small, 'deferred', bytesType, 'abcde')).status).toBe(413)
  const deferred = (await made(small, 'deferred')).headers.location!
  expect((await site.append(new URL(deferred).pathname, 0, 'abcde', as(small))).status).toBe(413)
  expect(
    (await site.append(new URL(deferred).pathname, 0, 'ab', as(small, { 'Upload-Length': 5 }))).status,
  ).toBe(413)

  const typed = (type: string, name = 'filetype') => ({
    'Upload-Metadata': `${name} ${Buffer.from(type).toString('base64')}`,
  })
  for (const type of ['image/png', 'IMAGE/JPEG', 'image/svg+xml; charset=utf-8', 'application/pdf'])
    expect([type, (await made(images, 3, typed(type))).status]).toEqual([type, 201])
  expect((await made(images, 3, typed('image/png', 'type'))).status).toBe(201)
  for (const type of ['text/html', 'imagex/png', 'application/pdfx', 'text/html, image/png', ''])
    expect([type, (await made(images, 3, typed(type))).status]).toEqual([type, 415])
  const both = `${typed('text/html')['Upload-Metadata']},${typed('image/png', 'type')['Upload-Metadata']}`
  expect((await made(images, 3, { 'Upload-Metadata': both })).status, 'the one that it is served with').toBe(
    415,
  )
  const untyped = await made(images, 3)
  expect([untyped.status, untyped.text]).toEqual([415, expect.stringContaining('image/*, application/pdf')])
  expect((await made(images, 3, { 'Upload-Concat': 'partial' })).status).toBe(201)

  const livesMs = ({ headers }: { headers: Readonly<Record<string, string>> }) =>
    Date.parse(headers['upload-expires']!) - Date.now()
  expect(livesMs(await made(images, 3, typed('image/png')))).toBeLessThanOrEqual(60_000)
  expect(livesMs(await made(large, 3))).toBeLessThanOrEqual(3_600_000)
  expect(livesMs(await made(large, 3))).toBeGreaterThan(3_500_000)
})

it('does not let parts become more together than their token may make', async () => {
  const { site, file } = await startTokenSite()
  const small = await file.add({ owner: 'ann', maxSize: 4 })
  const part = async (size: Headers) =>
    pathOf(await site.send('POST', '/files', as(small, { 'Upload-Concat': 'partial', ...size })))
  const final = (...parts: string[]) =>
    site.send('POST', '/files', as(small, { 'Upload-Concat': `final;${parts.join(' ')}` }))
  const [two, three, unknown] = [
    await part({ 'Upload-Length': 2 }),
    await part({ 'Upload-Length': 3 }),
    await part({ 'Upload-Defer-Length': 1 }),
  ]
  expect((await final(two, two)).status).toBe(201)
  expect((await final(two, three)).status).toBe(413)
  expect((await final(two, unknown)).status, 'it could become anything').toBe(413)
})

it('lets nothing into the folder that was refused', async () => {
  const { site, bob } = await startTokenSite()
  await site.send('POST', '/files', { 'Upload-Length': 3, ...bytesType }, 'abc')
  await site.send('PATCH', '/files/x', bytesAt(0), 'abc')
  await site.send('POST', '/files', as(`${bob}x`, { 'Upload-Length': 3 }))
  expect((await readdir(site.folder)).filter((name) => !name.startsWith('.'))).toEqual([])
})
