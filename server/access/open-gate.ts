/** From settings to the gate that they ask for; what is wrong with one of their files is told with its name. */
import { readFile } from 'node:fs/promises'
import type { Logger } from 'pino'
import type { Config } from '../config.ts'
import { ownFolder } from '../place.ts'
import { BadValue } from '../setting-kinds.ts'
import type { Gate } from './gate.ts'
import type { JwtKeys } from './jwt-keys.ts'
import { TicketGate, ticketKey } from './tickets.ts'
import type { TokenGateEvent } from './token-gate.ts'

export type GateEvent = TokenGateEvent | { readonly is: 'keys-away'; readonly error: unknown }

const lines = {
  'tokens-read': ['info', 'the file of tokens was read anew'],
  'tokens-unreadable': ['error', 'the file of tokens can not be used; the tokens that were known go on'],
  'keys-away': ['error', 'the keys of tokens can not be fetched; those that are known go on'],
} as const

export function logGateEvent(logger: Logger, { is, ...facts }: GateEvent): void {
  const [level, sentence] = lines[is]
  logger[level]('error' in facts ? { ...facts, error: undefined, err: facts.error } : facts, sentence)
}

/** A whole sentence for whoever starts the server. */
export class GateError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'GateError'
  }
}

/** Undefined where everybody may come in. */
export async function openGate(
  config: Config,
  report: (event: GateEvent) => void,
): Promise<Gate | undefined> {
  if (config.auth === 'none') return undefined
  const gate = await openSignIn(config, report)
  return new TicketGate({ gate, key: await ticketKey(ownFolder(config.uploadDir)), path: config.basePath })
}

async function openSignIn(config: Config, report: (event: GateEvent) => void): Promise<Gate> {
  if (config.auth === 'tokens') {
    const { TokenGate } = await import('./token-gate.ts')
    const path = config.authTokensFile!
    return inWords('--auth-tokens-file', path, () => TokenGate.open({ path, report }))
  }
  // Only who signs in by claims pays for loading jose.
  const { JwtGate } = await import('./jwt-gate.ts')
  return new JwtGate({
    keys: await openKeys(config, report),
    issuer: config.jwtIssuer,
    audience: config.jwtAudience,
    clockToleranceMs: config.jwtClockToleranceMs,
  })
}

async function openKeys(config: Config, report: (event: GateEvent) => void): Promise<JwtKeys> {
  const { publicKeys, remoteKeys, secretKeys } = await import('./jwt-keys.ts')
  const { jwtSecret, jwtSecretFile, jwtKeyFile, jwtJwksUrl } = config
  if (jwtSecret !== undefined) return inWords('--jwt-secret', undefined, () => secretKeys(jwtSecret))
  if (jwtSecretFile !== undefined)
    return inWords('--jwt-secret-file', jwtSecretFile, async () =>
      secretKeys(withoutLineEnd(await readFile(jwtSecretFile))),
    )
  if (jwtKeyFile !== undefined)
    return inWords('--jwt-key-file', jwtKeyFile, async () => publicKeys(await readFile(jwtKeyFile, 'utf8')))
  return remoteKeys({
    url: new URL(jwtJwksUrl!),
    onAway: (error) => report({ is: 'keys-away', error }),
  })
}

/** Editors and `echo` end a file with a line end that nobody means. */
function withoutLineEnd(bytes: Buffer): Buffer {
  let end = bytes.length
  while (end > 0 && (bytes[end - 1] === 0x0a || bytes[end - 1] === 0x0d)) end--
  return bytes.subarray(0, end)
}

async function inWords<T>(name: string, path: string | undefined, work: () => Promise<T> | T): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    const given = path === undefined ? name : `${name} ${JSON.stringify(path)}`
    if (cause instanceof BadValue)
      throw new GateError(`${given} can not be used: it ${cause.message}`, { cause })
    const code = (cause as NodeJS.ErrnoException).code
    if (code === undefined) throw cause
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : code
    throw new GateError(`${given} can not be used: ${why}`, { cause })
  }
}
