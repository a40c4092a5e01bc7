/**
 * Download links for people who signed in: browsers send no token with a link, and a download that a page fetches itself
 * would have to fit into its memory. A ticket is the one thing in a URL that lets somebody in: to one upload, with GET
 * alone, for a minute, as whoever asked for it. It is signed, and nothing of it is kept.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { targetOf } from '../protocol/upload-url.ts'
import { type AccessRequest, type Gate, hasEnded, unauthorized } from './gate.ts'
import { type Identity, isAdmin } from './identity.ts'

const lifeMs = 60_000
const keyBytes = 32
const parameter = 'ticket'

/** Lets in who has a ticket, and asks another gate about everybody else. */
export class TicketGate implements Gate {
  readonly #gate: Gate
  readonly #key: Buffer
  readonly #path: string
  readonly #now: () => number

  /** `path`: where uploads live, as `/files/`. */
  constructor({
    gate,
    key,
    path,
    now = Date.now,
  }: { gate: Gate; key: Buffer; path: string; now?: () => number }) {
    this.#gate = gate
    this.#key = key
    this.#path = path
    this.#now = now
  }

  /** A ticket for one upload; whether it is there, and whose it is, is seen when it is used. */
  issue(identity: Identity, id: string): { query: string; expiresAt: number } {
    const expiresAt = Math.min(this.#now() + lifeMs, identity.expiresAt ?? Number.POSITIVE_INFINITY)
    const claims: Claims = { o: identity.owner, e: expiresAt, ...(isAdmin(identity) && { a: true }) }
    const body = Buffer.from(JSON.stringify(claims)).toString('base64url')
    return { query: `${parameter}=${this.#sign(id, body)}.${body}`, expiresAt }
  }

  identify(request: AccessRequest, moment: 'begin' | 'finish'): Promise<Identity> | Identity {
    const ticket = ticketOf(request)
    return ticket === undefined ? this.#gate.identify(request, moment) : this.#admit(request, ticket)
  }

  stands(identity: Identity): boolean {
    return this.#gate.stands?.(identity) ?? !hasEnded(identity, this.#now())
  }

  async close(): Promise<void> {
    await this.#gate.close?.()
  }

  #admit({ url }: AccessRequest, ticket: string): Identity {
    const target = targetOf(url, this.#path)
    const claims = target.is === 'upload' ? this.#read(target.id, ticket) : undefined
    if (claims === undefined || claims.e <= this.#now())
      throw unauthorized(
        'invalid_token',
        'this link has expired, or is for something else; ask for a new one',
      )
    return { owner: claims.o, scopes: claims.a ? ['read', 'admin'] : ['read'], expiresAt: claims.e }
  }

  #read(id: string, ticket: string): Claims | undefined {
    const [signature = '', body = ''] = ticket.split('.', 2)
    const right = Buffer.from(this.#sign(id, body))
    const given = Buffer.from(signature)
    if (given.length !== right.length || !timingSafeEqual(given, right)) return undefined
    return JSON.parse(Buffer.from(body, 'base64url').toString('utf8')) as Claims
  }

  #sign(id: string, body: string): string {
    return createHmac('sha256', this.#key)
      .update(JSON.stringify(['GET', id, body]))
      .digest('base64url')
  }
}

interface Claims {
  /** Owner. */
  readonly o: string
  /** When it ends, in milliseconds since the epoch. */
  readonly e: number
  /** Of somebody who sees all. */
  readonly a?: boolean
}

/** Only a plain GET, without any other proof, is a download by a link. */
function ticketOf({ method, url, headers, authorization }: AccessRequest): string | undefined {
  const at = url.indexOf('?')
  if (at < 0 || method !== 'GET' || authorization.length > 0) return undefined
  if (headers['x-http-method-override'] !== undefined) return undefined
  const parameters = new URLSearchParams(url.slice(at + 1))
  const tickets = parameters.getAll(parameter)
  return tickets.length === 1 && parameters.size === 1 && tickets[0] !== '' ? tickets[0] : undefined
}

/** The key of all servers that share a folder: made by the first of them, whole or not at all. */
export async function ticketKey(folder: string): Promise<Buffer> {
  const path = join(folder, 'ticket.key')
  const made = join(folder, `.ticket-${randomBytes(8).toString('hex')}`)
  await mkdir(folder, { recursive: true })
  const read = () => readFile(path).catch(() => undefined)
  let key = await read()
  if (key === undefined) {
    await writeFile(made, randomBytes(keyBytes), { mode: 0o600, flag: 'wx' })
    try {
      await link(made, path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    } finally {
      await rm(made, { force: true })
    }
    key = await read()
  }
  // A key of a process is good enough where none can be kept: its links then work on this server alone.
  return key?.length === keyBytes ? key : randomBytes(keyBytes)
}
