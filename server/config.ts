/**
 * From command line and variables to one frozen `Config`, or to one sentence that says what is wrong.
 *
 * Pure: it is given arguments and variables, and touches neither process nor disk. A flag wins over its variable, the
 * variable over the default. What is not known is refused rather than ignored: a typing error never goes unseen.
 */
import { parseArgs } from 'node:util'
import { BadValue } from './setting-kinds.ts'
import type { Setting } from './settings/setting.ts'
import { type Config, rules, type SettingKey, settings, variableOf } from './settings.ts'

export { plainPathOf } from './settings/paths.ts'
export type { Config } from './settings.ts'

/** A setting that can not be used. `message` is a whole sentence and names the setting as the user wrote it. */
export class SettingError extends Error {
  readonly setting: string
  constructor(setting: string, message: string) {
    super(message)
    this.name = 'SettingError'
    this.setting = setting
  }
}

type Variables = Readonly<Record<string, string | undefined>>

/** Throws a `SettingError`. Single-dash flags (`-port 80`), as tusd takes them, are understood too. */
export function loadConfig(argv: readonly string[], env: Variables): Config {
  const given = new Map([...readVariables(env), ...readFlags(argv)])
  const values = Object.fromEntries(
    entries().map(([key, setting]) => [key, parseValue(setting, given.get(key))]),
  )
  const config = Object.freeze(values) as unknown as Config

  const seen = {
    config,
    isGiven: (key: SettingKey) => given.has(key),
    name: (key: SettingKey) => given.get(key)?.written ?? `--${settings[key].flag}`,
  }
  for (const rule of rules) {
    if (!seen.isGiven(rule.setting) || !rule.breaks(seen)) continue
    const name = seen.name(rule.setting)
    throw new SettingError(name, `${name} ${rule.says(seen)}`)
  }
  return config
}

/** Whether the user asks for words rather than for a server. Asking wins over everything else that was written. */
export function asksFor(argv: readonly string[]): 'help' | 'version' | undefined {
  const end = argv.indexOf('--')
  const flags = end < 0 ? argv : argv.slice(0, end)
  if (flags.some((arg) => /^(-h|--?help)$/.test(arg))) return 'help'
  if (flags.some((arg) => /^(-v|--?version)$/.test(arg))) return 'version'
  return undefined
}

interface GivenValue {
  readonly text: string
  /** The name of the setting as the user wrote it: `--port`, `-port`, `TIDEMARK_PORT`. */
  readonly written: string
}

function readFlags(argv: readonly string[]): Map<SettingKey, GivenValue> {
  const given = new Map<SettingKey, GivenValue>()
  // parseArgs would read -port as four short flags; a second dash makes it the flag that was meant.
  const args = argv.map((arg) => (/^-[a-z]/.test(arg) ? `-${arg}` : arg))
  const { tokens } = parseArgs({ args, options: flagTypes(), strict: false, tokens: true })
  for (const token of tokens) {
    if (token.kind === 'option-terminator') continue
    if (token.kind === 'positional') {
      throw new SettingError(
        token.value,
        `${shown(token.value)} is not a setting; settings are written as --name value, see --help`,
      )
    }
    const dashes = argv[token.index]?.startsWith('--') ? '--' : '-'
    const written = `${dashes}${token.name}`
    const key = byFlag.get(token.name)
    if (key === undefined) throw unknown(written, [...byFlag.keys()], token.name, dashes)
    if (given.has(key)) throw new SettingError(written, `${written} is given more than once`)
    given.set(key, { written, text: flagText(key, written, token.value, token.inlineValue) })
  }
  return given
}

function flagText(
  key: SettingKey,
  written: string,
  value: string | undefined,
  isInline: boolean | undefined,
): string {
  if (settings[key].kind.takes === 'true|false') return value ?? 'true'
  // A flag that swallowed the next flag as its value would hide two mistakes.
  if (value === undefined || (!isInline && /^-[-a-z]/.test(value))) {
    throw new SettingError(written, `${written} needs a value: ${written} ${settings[key].kind.takes}`)
  }
  return value
}

const flagTypes = () =>
  Object.fromEntries(
    entries().map(([, { flag, kind }]) => [
      flag,
      { type: kind.takes === 'true|false' ? ('boolean' as const) : ('string' as const) },
    ]),
  )

/** An empty variable is one that is not set: compose files hand those over for what nobody filled in. */
function readVariables(env: Variables): Map<SettingKey, GivenValue> {
  const given = new Map<SettingKey, GivenValue>()
  for (const [written, text] of Object.entries(env)) {
    if (!written.startsWith('TIDEMARK_')) continue
    const key = byVariable.get(written)
    if (key === undefined) throw unknown(written, [...byVariable.keys()], written, '')
    if (text) given.set(key, { written, text })
  }
  return given
}

function parseValue(setting: Setting<unknown>, given: GivenValue | undefined): unknown {
  if (given === undefined) return setting.kind.parse(setting.default)
  try {
    return setting.kind.parse(given.text)
  } catch (error) {
    if (!(error instanceof BadValue)) throw error
    const value = setting.kind.secret ? '' : `, not ${shown(given.text)}`
    const hint = error.hint ? ` (did you mean ${error.hint}?)` : ''
    throw new SettingError(given.written, `${given.written} ${error.message}${value}${hint}`)
  }
}

function unknown(written: string, names: readonly string[], name: string, dashes: string): SettingError {
  const near = nearest(name, names)
  const help = near ? `did you mean ${dashes}${near}?` : 'see --help'
  return new SettingError(written, `${written} is not a setting; ${help}`)
}

/** The name that takes the fewest single-letter changes, if it is near enough to be what was meant. */
function nearest(name: string, names: readonly string[]): string | undefined {
  const ranked = names
    .map((candidate) => ({ candidate, changes: changesBetween(name.slice(0, 64), candidate) }))
    .sort((a, b) => a.changes - b.changes)
  const best = ranked[0]
  return best && best.changes <= Math.max(2, name.replace('TIDEMARK_', '').length / 3)
    ? best.candidate
    : undefined
}

function changesBetween(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      row.push(Math.min(replaced, previous[j]! + 1, row[j - 1]! + 1))
    }
    previous = row
  }
  return previous[b.length]!
}

/** A user's text inside a sentence: in quotes, on one line, and not without end. */
function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text)
}

function entries(): [SettingKey, Setting<unknown>][] {
  return Object.entries(settings) as [SettingKey, Setting<unknown>][]
}

const byFlag = new Map(entries().map(([key, { flag }]) => [flag, key]))
const byVariable = new Map(entries().map(([key, { flag }]) => [variableOf(flag), key]))
