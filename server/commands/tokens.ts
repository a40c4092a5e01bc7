/** `tidemark tokens add|list|revoke`: makes API tokens and takes them back, in the file that servers read. */
import { type ParseArgsConfig, parseArgs } from 'node:util'
import {
  allScopes,
  isOwnerName,
  parseLimits,
  parseScopes,
  parseTypes,
  quotaNames,
} from '../access/identity.ts'
import { changeTokens, readTokens } from '../access/token-file.ts'
import { makeToken, type TokenLine } from '../access/tokens.ts'
import { BadValue, duration } from '../setting-kinds.ts'
import type { Terminal } from './index.ts'

const usage = `Usage: tidemark tokens add --owner <owner> [--name <text>] [--scopes <scope,...>] [--max-size <size>]
                           [--types <type,...>] [--expire-after <duration>] [--read-only] [--expires <time>]
                           [--open-uploads <n>] [--creations-per-minute <n>] [--unfinished-bytes <size>]
                           [--total-bytes <size>] [--running-requests <n>]
       tidemark tokens list
       tidemark tokens revoke <id>

  --auth-tokens-file <path>  The file; or the variable TIDEMARK_AUTH_TOKENS_FILE.
  --scopes        ${allScopes.join(', ')}. Default: all but admin.
  --read-only     The same as --scopes ask,read.
  --max-size      Largest upload that is created with it: 10MiB.
  --types         Media types that uploads may declare: image/*,application/pdf.
  --expire-after  How long unfinished uploads that are created with it live: 1d.
  --open-uploads and the like: quotas of the owner in place of those of the server; 0 is no limit.
  --expires       When the token ends: 2030-01-31, 2030-01-31T12:00:00Z, or 90d from now.

A new token is printed once, and kept nowhere: only its hash is in the file.
`

const options = {
  'auth-tokens-file': { type: 'string' },
  owner: { type: 'string' },
  name: { type: 'string' },
  scopes: { type: 'string' },
  'max-size': { type: 'string' },
  types: { type: 'string' },
  'expire-after': { type: 'string' },
  'read-only': { type: 'boolean' },
  'open-uploads': { type: 'string' },
  'creations-per-minute': { type: 'string' },
  'unfinished-bytes': { type: 'string' },
  'total-bytes': { type: 'string' },
  'running-requests': { type: 'string' },
  expires: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies ParseArgsConfig['options']

type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>['values']

export async function run(argv: readonly string[], terminal: Terminal): Promise<number> {
  try {
    const { values, positionals } = parseArgs({ args: [...argv], options, allowPositionals: true })
    const [verb, ...rest] = positionals
    if (values.help) {
      terminal.out(usage)
      return 0
    }
    const path = values['auth-tokens-file'] ?? terminal.env.TIDEMARK_AUTH_TOKENS_FILE
    if (!path) throw new BadValue('say where the tokens are kept: --auth-tokens-file <path>')
    if (verb === 'add' && rest.length === 0) return await add(path, values, terminal)
    if (verb === 'list' && rest.length === 0) return await list(path, terminal)
    if (verb === 'revoke' && rest.length === 1) return await revoke(path, rest[0]!, terminal)
    throw new BadValue(`tidemark tokens needs add, list or revoke <id>\n\n${usage}`)
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException
    if (!(error instanceof BadValue) && !/^(ERR_PARSE_ARGS|E[A-Z]+$)/.test(code)) throw error
    terminal.err(`tidemark: ${message}\n`)
    return error instanceof BadValue || code.startsWith('ERR_PARSE_ARGS') ? 2 : 1
  }
}

async function add(path: string, values: Values, { out, err }: Terminal): Promise<number> {
  const { owner, name, scopes, types } = values
  if (!isOwnerName(owner)) throw new BadValue('--owner must say whose token it is, in 1 to 255 characters')
  const readOnly = values['read-only'] === true
  if (readOnly && scopes !== undefined)
    throw new BadValue('--read-only can not be used together with --scopes')
  const expires = values.expires === undefined ? undefined : timeOf(values.expires)
  const made = makeToken({
    owner,
    ...(name !== undefined && { name }),
    ...(scopes !== undefined && { scopes: named('--scopes', () => parseScopes(scopes)) }),
    ...(values['max-size'] !== undefined && { maxSize: values['max-size'] }),
    ...(types !== undefined && { types: named('--types', () => parseTypes(types)) }),
    ...(values['expire-after'] !== undefined && { expireAfter: values['expire-after'] }),
    ...(readOnly && { readOnly }),
    ...quotasOf(values),
    created: new Date().toISOString(),
    ...(expires !== undefined && { expires }),
  })
  const { maxSize, expireAfter } = made.line
  parseLimits(quotasOf(values))
  parseLimits({
    ...(maxSize !== undefined && { maxSize }),
    ...(expireAfter !== undefined && { expireAfter }),
  })
  await changeTokens(path, (lines) => [...lines, made.line])
  out(`${made.token}\n`)
  err(`token ${made.line.id} of ${owner} is in ${path}; it is not shown again\n`)
  return 0
}

async function list(path: string, { out }: Terminal): Promise<number> {
  const rows = (await readTokens(path)).map((line) => [
    line.id,
    line.owner,
    line.name ?? '',
    line.readOnly ? 'read-only' : (line.scopes?.join(',') ?? 'all but admin'),
    limitsInWords(line),
    stateOf(line, Date.now()),
  ])
  const table = [['ID', 'OWNER', 'NAME', 'SCOPES', 'LIMITS', 'STATE'], ...rows]
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  for (const row of table)
    out(
      `${row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd()}\n`,
    )
  return 0
}

async function revoke(path: string, given: string, { err }: Terminal): Promise<number> {
  // Who has the whole token at hand may not know which part of it is the id.
  const id = /^tm_([0-9a-z]{12})_/.exec(given)?.[1] ?? given
  await changeTokens(path, (lines) => {
    if (!lines.some((line) => line.id === id))
      throw new BadValue(`there is no token with the id ${JSON.stringify(id)}`)
    return lines.map((line) =>
      line.id === id && line.revoked === undefined ? { ...line, revoked: new Date().toISOString() } : line,
    )
  })
  err(`token ${id} is revoked\n`)
  return 0
}

/** `--open-uploads` is `openUploads`. */
function quotasOf(values: Values): Partial<Record<(typeof quotaNames)[number], string>> {
  const flagOf = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  const given = quotaNames.map((name) => [name, values[flagOf(name) as keyof Values]] as const)
  return Object.fromEntries(given.filter(([, value]) => value !== undefined))
}

function limitsInWords(line: TokenLine): string {
  const { maxSize, types, expireAfter } = line
  const words = [
    ...(maxSize === undefined ? [] : [`up to ${maxSize}`]),
    ...(types === undefined ? [] : [types.join(',')]),
    ...(expireAfter === undefined ? [] : [`unfinished for ${expireAfter}`]),
    ...quotaNames.flatMap((name) => (line[name] === undefined ? [] : [`${name} ${line[name]}`])),
  ]
  return words.join('; ')
}

function stateOf({ revoked, expires }: TokenLine, now: number): string {
  if (revoked !== undefined) return `revoked ${revoked}`
  if (expires === undefined) return 'good'
  return Date.parse(expires) <= now ? `expired ${expires}` : `good until ${expires}`
}

function timeOf(text: string): string {
  try {
    return new Date(
      Date.now() + duration({ min: 1000, max: 100 * 365 * 86_400_000 }).parse(text),
    ).toISOString()
  } catch {
    const at = /^\d{4}-\d\d-\d\d(T|$)/.test(text) ? new Date(text) : new Date(Number.NaN)
    if (Number.isNaN(at.getTime()))
      throw new BadValue('--expires must be a time such as 2030-01-31T12:00:00Z, or a duration such as 90d')
    return at.toISOString()
  }
}

function named<T>(name: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    throw error instanceof BadValue ? new BadValue(`${name} ${error.message}`) : error
  }
}
