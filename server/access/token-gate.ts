/**
 * Sign-in by API tokens from a file. The file is looked at again when it is older than a second in memory, and always
 * before an upload is finished; a file that can not be read or understood changes nothing, and is told of once.
 */
import { readFile, stat } from 'node:fs/promises'
import { bearerOf } from './bearer.ts'
import { type AccessRequest, type Gate, hasEnded, unauthorized } from './gate.ts'
import type { Identity } from './identity.ts'
import { idOfToken, isToken, type KnownToken, parseTokens } from './tokens.ts'

export interface TokenGateOptions {
  readonly path: string
  /** Told when the file can not be used, and the tokens that were known go on; and when it was read anew. */
  readonly report?: ((event: TokenGateEvent) => void) | undefined
  readonly now?: (() => number) | undefined
  /** How old the tokens in memory may be. Default 1000. */
  readonly lookAgainMs?: number | undefined
}

export type TokenGateEvent =
  | { readonly is: 'tokens-read'; readonly path: string; readonly count: number }
  | { readonly is: 'tokens-unreadable'; readonly path: string; readonly error: unknown }

export class TokenGate implements Gate {
  readonly #path: string
  readonly #report: (event: TokenGateEvent) => void
  readonly #now: () => number
  readonly #lookAgainMs: number
  #tokens = new Map<string, KnownToken>()
  /** What the file looked like when it was last read, or could not be. */
  #seen = ''
  #lookedAt = Number.NEGATIVE_INFINITY
  #looking: Promise<void> | undefined

  private constructor({ path, report = () => {}, now = Date.now, lookAgainMs = 1000 }: TokenGateOptions) {
    this.#lookAgainMs = lookAgainMs
    this.#path = path
    this.#report = report
    this.#now = now
  }

  /** Fails when the file can not be used: a server that starts without its tokens would refuse everybody. */
  static async open(options: TokenGateOptions): Promise<TokenGate> {
    const gate = new TokenGate(options)
    const seen = await gate.#appearance()
    gate.#tokens = parseTokens(await readFile(options.path, 'utf8'))
    gate.#seen = seen
    gate.#lookedAt = performance.now()
    return gate
  }

  async identify(request: AccessRequest, moment: 'begin' | 'finish'): Promise<Identity> {
    const text = bearerOf(request)
    const id = idOfToken(text)
    // A token that was just made is good at once; looking for one that is made up costs as little as any absent upload.
    const isNew = id !== undefined && !this.#tokens.has(id)
    await this.#refresh(moment === 'finish' || isNew ? 0 : this.#lookAgainMs)
    const known = id === undefined ? undefined : this.#tokens.get(id)
    if (!isToken(text, known)) throw unauthorized('invalid_token', 'this token is not known')
    if (known.isRevoked) throw unauthorized('invalid_token', 'this token was revoked')
    if (hasEnded(known.identity, this.#now())) throw unauthorized('invalid_token', 'this token has expired')
    return known.identity
  }

  stands(identity: Identity): boolean {
    void this.#refresh(this.#lookAgainMs)
    const known = this.#tokens.get(identity.tokenId ?? '')
    return (
      known !== undefined &&
      !known.isRevoked &&
      known.identity.owner === identity.owner &&
      !hasEnded(known.identity, this.#now())
    )
  }

  /** Reads the file when it may have changed. Never throws. */
  async #refresh(lookAgainMs: number): Promise<void> {
    if (performance.now() - this.#lookedAt < lookAgainMs) return
    // A look that began earlier may have missed what happened since.
    if (lookAgainMs === 0) await this.#looking
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
    })
    await this.#looking
  }

  async #look(): Promise<void> {
    this.#lookedAt = performance.now()
    const seen = await this.#appearance().catch((error: NodeJS.ErrnoException) => `away: ${error.code}`)
    if (seen === this.#seen) return
    this.#seen = seen
    try {
      this.#tokens = parseTokens(await readFile(this.#path, 'utf8'))
      this.#report({ is: 'tokens-read', path: this.#path, count: this.#tokens.size })
    } catch (error) {
      this.#report({ is: 'tokens-unreadable', path: this.#path, error })
    }
  }

  async #appearance(): Promise<string> {
    const { ino, size, mtimeNs, ctimeNs } = await stat(this.#path, { bigint: true })
    return `${ino} ${size} ${mtimeNs} ${ctimeNs}`
  }
}
