/**
 * One request that was let in: what it may do, at its start, while its bytes come, and when it is about to finish an
 * upload. A token that was taken back meanwhile ends the request at its last byte; what came is kept.
 */
import type { UploadHead } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { Command } from '../protocol/messages.ts'
import { declaredType } from '../protocol/metadata.ts'
import type { Asker } from '../uploads/upload-request.ts'
import { type AccessRequest, type Gate, hasEnded, outOfScope, unauthorized } from './gate.ts'
import { type Identity, isAdmin, isTypeAllowed, may, type OwnQuotas, type Scope } from './identity.ts'

const scopeByMethod: Readonly<Record<string, Scope>> = {
  POST: 'create',
  PUT: 'create',
  PATCH: 'append',
  HEAD: 'ask',
  DELETE: 'terminate',
  GET: 'read',
}

export class Admission {
  readonly identity: Identity
  readonly #gate: Gate
  readonly #request: AccessRequest
  readonly #now: () => number

  /** Throws the refusal of a request that is not let in, before anything else is told about what it asks for. */
  static async of(gate: Gate, request: AccessRequest, now: () => number): Promise<Admission> {
    const identity = await identified(gate, request, 'begin')
    const scope = scopeByMethod[request.method]
    if (scope !== undefined && !may(identity, scope)) throw outOfScope(scope)
    return new Admission(gate, request, identity, now)
  }

  private constructor(gate: Gate, request: AccessRequest, identity: Identity, now: () => number) {
    this.#gate = gate
    this.#request = request
    this.identity = identity
    this.#now = now
  }

  get asker(): Asker {
    const { owner, limits } = this.identity
    return { owner, seesAll: isAdmin(this.identity), ...(limits?.quotas && { limits: limits.quotas }) }
  }

  /** A creation that carries bytes sends them, too. */
  refuse(command: Command): Refusal | undefined {
    const sends = command.do === 'create' && command.hasBody
    return sends && !may(this.identity, 'append') ? outOfScope('append') : undefined
  }

  /** Throws when this is not allowed, beside what the method says by itself. */
  demand(scope: Scope): void {
    if (!may(this.identity, scope)) throw outOfScope(scope)
  }

  maxBytes(ofServer: number): number {
    return Math.min(ofServer, this.identity.limits?.maxBytes ?? Number.POSITIVE_INFINITY)
  }

  /** The head of a new upload within the limits of who makes it, or the refusal. Parts have no type of their own. */
  limit(head: UploadHead, length: number | undefined): UploadHead {
    const { types, expireAfterMs, maxBytes, quotas } = this.identity.limits ?? {}
    const isPart = head.concat !== undefined && head.parts === undefined
    // It is made behind everybody's back, when all parts are there and nobody asks for whom.
    if (maxBytes !== undefined && head.parts !== undefined && length === undefined)
      throw new Refusal('too-large', {
        detail: `say the length of every part first: this token makes uploads of ${maxBytes} bytes at most`,
      })
    if (quotas && limitsBytes(quotas) && head.parts !== undefined && length === undefined)
      throw new Refusal('too-large', {
        detail: 'say the length of every part first: this token has a quota of bytes of its own',
      })
    if (types !== undefined && !isPart) {
      const declared = declaredType(head.metadata)
      if (declared === undefined || !isTypeAllowed(declared, types)) throw typeRefused(declared, types)
    }
    return expireAfterMs === undefined
      ? head
      : { ...head, expireAfterMs: Math.min(expireAfterMs, head.expireAfterMs ?? Number.POSITIVE_INFINITY) }
  }

  /** Whether more bytes of this request are taken. Answers at once, by what is known here. */
  mayGoOn(): boolean {
    const { stands } = this.#gate
    return stands ? stands.call(this.#gate, this.identity) : !hasEnded(this.identity, this.#now())
  }

  /** Asks the gate once more. Throws what refuses the request now. */
  async again(): Promise<void> {
    const now = await identified(this.#gate, this.#request, 'finish')
    const scope = scopeByMethod[this.#request.method]
    if (scope !== undefined && !may(now, scope)) throw outOfScope(scope)
    if (now.owner !== this.identity.owner)
      throw unauthorized('invalid_token', 'this token has another owner now')
  }
}

/** A question is never answered as an error of the server: clients would take the upload for lost. */
async function identified(gate: Gate, request: AccessRequest, moment: 'begin' | 'finish'): Promise<Identity> {
  try {
    return await gate.identify(request, moment)
  } catch (error) {
    if (request.method === 'HEAD' && error instanceof Refusal && error.status >= 500)
      throw new Refusal('busy', { retryAfterS: error.retryAfterS ?? 1, cause: error })
    throw error
  }
}

function limitsBytes({ unfinishedBytes, totalBytes }: OwnQuotas): boolean {
  return unfinishedBytes !== undefined || totalBytes !== undefined
}

function typeRefused(declared: string | undefined, types: readonly string[]): Refusal {
  const allowed = types.join(', ')
  const detail =
    declared === undefined
      ? `say the type of the file as "filetype" in Upload-Metadata; allowed are ${allowed}`
      : `files of this type are not accepted here; allowed are ${allowed}`
  return new Refusal('type-refused', { detail })
}
