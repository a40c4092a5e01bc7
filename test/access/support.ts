// A site behind a gate, and tokens for it. Keys are real, made for each test file; so is the JWKS server.

import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose'
import { onTestFinished } from 'vitest'
import { changeTokens } from '../../server/access/token-file.ts'
import { TokenGate, type TokenGateEvent } from '../../server/access/token-gate.ts'
import { makeToken, type TokenLine } from '../../server/access/tokens.ts'
import type { TidemarkServerOptions } from '../../server/host/server-options.ts'
import { bytesAt, type Headers, type OpenRequest, type Site, startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'

export const as = (token: string, more: Headers = {}): Headers => ({
  Authorization: `Bearer ${token}`,
  ...more,
})

/** The tokens of a file, made as the command makes them. */
export class TokenFile {
  readonly path: string

  constructor(path: string) {
    this.path = path
  }

  async add(line: Omit<TokenLine, 'id' | 'hash'>): Promise<string> {
    const made = makeToken(line)
    await changeTokens(this.path, (lines) => [...lines, made.line])
    return made.token
  }

  async change(token: string, more: Partial<TokenLine>): Promise<void> {
    const id = token.split('_')[1]
    await changeTokens(this.path, (lines) =>
      lines.map((line) => (line.id === id ? { ...line, ...more } : line)),
    )
  }

  revoke(token: string): Promise<void> {
    return this.change(token, { revoked: new Date().toISOString() })
  }
}

export async function tokenFile(): Promise<TokenFile> {
  const file = new TokenFile(join(await temporaryFolder(), 'tokens.jsonl'))
  await changeTokens(file.path, () => [])
  return file
}

export interface TokenSite {
  readonly site: Site
  readonly file: TokenFile
  readonly ann: string
  readonly bob: string
  readonly admin: string
  readonly events: TokenGateEvent[]
}

/** A site with the tokens of Ann and Bob, and one that sees all. */
export async function startTokenSite({
  lookAgainMs,
  ...options
}: Partial<TidemarkServerOptions> & { lookAgainMs?: number } = {}): Promise<TokenSite> {
  const file = await tokenFile()
  const ann = await file.add({ owner: 'ann' })
  const bob = await file.add({ owner: 'bob' })
  const scopes = ['create', 'append', 'ask', 'terminate', 'read', 'admin'] as const
  const admin = await file.add({ owner: 'root', scopes })
  const events: TokenGateEvent[] = []
  const gate = await TokenGate.open({ path: file.path, lookAgainMs, report: (event) => events.push(event) })
  const site = await startSite({ gate, ...options })
  return { site, file, ann, bob, admin, events }
}

export interface Signer {
  readonly alg: string
  readonly key: CryptoKey | Uint8Array
  readonly publicKey: CryptoKey
  readonly jwk: JWK
  sign(claims?: JWTPayload, header?: Record<string, unknown>): Promise<string>
}

type CryptoKey = Awaited<ReturnType<typeof generateKeyPair>>['publicKey']

/** Claims that are good for an hour, unless a test says otherwise; undefined takes one away. */
export function claims(more: JWTPayload = {}): JWTPayload {
  const now = Math.floor(Date.now() / 1000)
  return { sub: 'ann', exp: now + 3600, ...more }
}

export async function signer(alg: 'RS256' | 'ES256' | 'EdDSA', kid = `${alg}-1`): Promise<Signer> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  return {
    ...{ alg, key: privateKey, publicKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } },
    sign: (more, header) =>
      new SignJWT(claims(more)).setProtectedHeader({ alg, kid, ...header }).sign(privateKey),
  }
}

export function signedWith(secret: string, more?: JWTPayload): Promise<string> {
  return new SignJWT(claims(more)).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))
}

/** A text as one part of a token. */
export const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A server of keys, that can be emptied, filled anew, and taken away. */
export class KeyServer {
  keys: JWK[] = []
  asked = 0
  isAway = false
  port = 0
  readonly #http = createServer((_req, res) => {
    this.asked++
    if (this.isAway) res.destroy()
    else res.setHeader('Content-Type', 'application/json').end(JSON.stringify({ keys: this.keys }))
  })

  static async start(...keys: JWK[]): Promise<KeyServer> {
    const server = new KeyServer()
    server.keys = keys
    server.#http.listen(0, '127.0.0.1')
    await once(server.#http, 'listening')
    server.port = (server.#http.address() as AddressInfo).port
    onTestFinished(() => {
      server.#http.closeAllConnections()
      server.#http.close()
    })
    return server
  }

  get url(): URL {
    return new URL(`http://127.0.0.1:${this.port}/keys.json`)
  }
}

/** A PATCH of so many bytes from the beginning, which was let in, and of which none was sent yet. */
export async function beginAppend(
  site: Site,
  url: string,
  token: string,
  length: number,
): Promise<OpenRequest> {
  const headers = bytesAt(0, { 'Content-Length': length, Expect: '100-continue' })
  const sending = site.open('PATCH', url, as(token, headers))
  await sending.continued
  return sending
}
