/**
 * The settings in words, made from their table: `--help` for a terminal of 100 columns, and the tables of
 * docs/configuration.md. A number stands once, in settings/.
 */
import { commandWords } from './commands/index.ts'
import type { Setting } from './settings/setting.ts'
import { settings, variableOf } from './settings.ts'

const columns = 100
const indent = '      '

export function helpText(version: string): string {
  const sections = settingGroups().map(([group, members]) => `${group}\n${members.map(describe).join('')}`)
  return `Tidemark ${version}: a resumable upload service.

Usage: tidemark [--name value | --name=value]...
       tidemark <command> ...

Every setting is a flag, or a variable; a flag wins over its variable.
Durations are written 500ms, 20s, 5m, 1h30m or 7d; sizes in bytes, or as 10MiB or 5GB.

${sections.join('\n')}
Commands
${Object.entries(commandWords).map(describeCommand).join('')}
Words
  --help, --version
`
}

/** The groups in the order of the table. */
export function settingGroups(): [group: string, members: Setting<unknown>[]][] {
  const all = Object.values(settings) as Setting<unknown>[]
  const groups = [...new Set(all.map((setting) => setting.group))]
  return groups.map((group) => [group, all.filter((setting) => setting.group === group)])
}

export const defaultOf = (setting: Setting<unknown>): string => setting.defaultSays ?? setting.default

function describe(setting: Setting<unknown>): string {
  const head = `  --${setting.flag} ${setting.kind.takes}`
  const tail = variableOf(setting.flag)
  const space = ' '.repeat(Math.max(2, columns - head.length - tail.length))
  const body = wrap(`${setting.sentence} Default: ${defaultOf(setting)}.`)
  return `${head}${space}${tail}\n${body.map((line) => `${indent}${line}\n`).join('')}`
}

function describeCommand([name, sentence]: [name: string, sentence: string]): string {
  return `  tidemark ${name}\n${wrap(sentence)
    .map((line) => `${indent}${line}\n`)
    .join('')}`
}

function wrap(text: string): string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1)!
    if (line === '') lines[lines.length - 1] = word
    else if (indent.length + line.length + 1 + word.length > columns) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines
}
