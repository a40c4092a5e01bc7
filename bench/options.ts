/** The command line of `npm run bench`. */
import { parseArgs } from 'node:util'
import type { Scale } from './cases/case.ts'

export interface Options {
  /** Undefined for all, or the main ones. */
  readonly cases: readonly string[] | undefined
  /** The main cases alone, where none are named. */
  readonly main: boolean
  readonly servers: readonly string[] | undefined
  readonly rounds: number
  readonly scale: Scale
  readonly warmUp: Scale
  /** Where the folders of the servers are made; undefined for one in memory. */
  readonly folder: string | undefined
  readonly disk: string | undefined
  readonly json: string | undefined
  readonly write: boolean
  readonly help: boolean
}

export const usage = `Usage: npm run bench -- [...]

  --cases big,head       only these cases; --servers tidemark,tusd only these servers; --list names all of them
  --main                 the cases that tell most, in a quarter of the time
  --rounds 3             how often each server is measured in each case
  --size 2GiB            of the large upload
  --seconds 2            of the cases that go on for a time, after so many others: --warm-up 10
  --clients 16           at once, where a case has many
  --slow 1000            slow uploads at once; --many 10000 very many
  --quick                one round and small sizes, to see that everything works
  --folder DIR           where servers keep their files, in place of memory
  --disk DIR             a folder on a real disk, for the servers that sync
  --json FILE            every single measurement
  --write                put the report into bench/README.md
`

const usual = {
  rounds: '3',
  size: '2GiB',
  seconds: '2',
  'warm-up': '10',
  clients: '16',
  slow: '1000',
  many: '10000',
}
const quick = {
  rounds: '1',
  size: '16MiB',
  seconds: '0.3',
  'warm-up': '0.1',
  clients: '4',
  slow: '40',
  many: '80',
}

/** Throws with one sentence. */
export function parseOptions(args: readonly string[]): Options & { list: boolean } {
  const { values } = parseArgs({
    args: [...args],
    options: {
      cases: { type: 'string' },
      servers: { type: 'string' },
      rounds: { type: 'string' },
      size: { type: 'string' },
      seconds: { type: 'string' },
      'warm-up': { type: 'string' },
      clients: { type: 'string' },
      slow: { type: 'string' },
      many: { type: 'string' },
      main: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      folder: { type: 'string' },
      disk: { type: 'string' },
      json: { type: 'string' },
      write: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const defaults = values.quick ? quick : usual
  const number = (name: keyof typeof usual) => positive(name, values[name] ?? defaults[name])
  const scale: Scale = {
    bigBytes: bytesOf(values.size ?? defaults.size),
    seconds: number('seconds'),
    clients: number('clients'),
    slowUploads: number('slow'),
    manyUploads: number('many'),
  }
  const warmUp = {
    ...scale,
    bigBytes: Math.max(1, Math.floor(scale.bigBytes / 2)),
    seconds: number('warm-up'),
  }
  const listed = (text: string | undefined) => text?.split(',').filter(Boolean)
  const { main, folder, disk, json, write, list, help } = values
  return {
    cases: listed(values.cases),
    servers: listed(values.servers),
    rounds: Math.ceil(number('rounds')),
    ...{ main, scale, warmUp, folder, disk, json, write, list, help },
  }
}

/** Those that are asked for, in their own order; throws for a name that nobody bears. */
export function chosen<T extends { readonly name: string }>(
  all: readonly T[],
  names: readonly string[] | undefined,
): T[] {
  const unknown = names?.filter((name) => !all.some((one) => one.name === name)) ?? []
  if (unknown.length > 0) {
    throw new Error(`${unknown.join(', ')}: unknown; there are ${all.map(({ name }) => name).join(', ')}`)
  }
  return all.filter(({ name }) => names?.includes(name) ?? true)
}

function positive(name: string, text: string): number {
  const value = Number(text)
  if (value > 0 && Number.isFinite(value)) return value
  throw new Error(`--${name} takes a number above 0, not ${text}`)
}

function bytesOf(text: string): number {
  const [, number, unit = ''] = text.match(/^(\d+(?:\.\d+)?)(KiB|MiB|GiB)?$/) ?? []
  if (number === undefined) throw new Error(`--size takes 64MiB or 2GiB, not ${text}`)
  return Math.ceil(Number(number) * { '': 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }[unit]!)
}
