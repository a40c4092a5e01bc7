/**
 * The kinds of values that settings take: how each is written, and what it becomes.
 *
 * A kind parses text to a typed value or throws a `BadValue`, whose sentence goes on after the name of the setting:
 * "--port" + "must be a whole number from 0 to 65535". Units are part of the text, so nobody has to guess them.
 */
import proxyAddr from 'proxy-addr'
import { parseRedisUrl, RedisUrlError } from '../stores/redis/redis-url.ts'

export interface Kind<T> {
  /** How the value is shown in help: `<duration>`, or the words that are allowed. */
  readonly takes: string
  parse(text: string): T
  /** Values of a secret kind are never repeated to anybody. */
  readonly secret?: boolean
}

/** Why a value can not be used: a sentence without its subject, and perhaps what was meant. */
export class BadValue extends Error {
  readonly hint: string | undefined
  constructor(message: string, hint?: string) {
    super(message)
    this.hint = hint
  }
}

export const text = (takes: string): Kind<string> => ({
  takes,
  parse(value) {
    if (value.trim() === '') throw new BadValue('must not be empty')
    return value
  },
})

export const optionalText = (takes: string): Kind<string | undefined> => ({
  takes,
  parse: (value) => (value === '' ? undefined : value),
})

/** A text that nobody may see. */
export const secretText: Kind<string | undefined> = {
  takes: '<secret>',
  secret: true,
  parse: (value) => (value === '' ? undefined : value),
}

export const webUrl: Kind<string | undefined> = {
  takes: '<url>',
  parse(value) {
    if (value === '') return undefined
    if (!URL.canParse(value) || !/^https?:$/.test(new URL(value).protocol))
      throw new BadValue('must be a URL that begins with https:// or http://')
    return value
  },
}

export const flag: Kind<boolean> = {
  takes: 'true|false',
  parse(value) {
    if (value === 'true') return true
    if (value === 'false') return false
    throw new BadValue('must be true or false')
  },
}

export function oneOf<const W extends string>(...words: readonly W[]): Kind<W> {
  return {
    takes: words.join('|'),
    parse(value) {
      const word = words.find((w) => w === value)
      if (word === undefined) throw new BadValue(`must be one of ${words.join(', ')}`)
      return word
    },
  }
}

export const wholeNumber = (min: number, max: number): Kind<number> => ({
  takes: '<number>',
  parse(value) {
    const n = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN
    if (!(n >= min && n <= max)) throw new BadValue(`must be a whole number from ${min} to ${max}`)
    return n
  },
})

/** A port, or none. */
export const optionalPort: Kind<number | undefined> = {
  takes: '<number>',
  parse: (value) => (value === '' ? undefined : wholeNumber(0, 65_535).parse(value)),
}

/** How many processes: a number, or `auto` for one on each core. */
export const workers: Kind<number | 'auto'> = {
  takes: '<number>|auto',
  parse(value) {
    if (value === 'auto') return value
    try {
      return wholeNumber(1, 256).parse(value)
    } catch {
      throw new BadValue('must be a whole number from 1 to 256, or auto')
    }
  },
}

const durationUnits = { d: 86_400_000n, h: 3_600_000n, m: 60_000n, s: 1000n, ms: 1n } as const
/** What a timer of Node can wait, about 24 days: a longer one would fire at once. */
const longestTimerMs = 2 ** 31 - 1
const longestDurationMs = 100 * 365 * 86_400_000

/** Milliseconds, written as in Go, and with days: `500ms`, `20s`, `1h30m`, `7d`. A bare number is refused, except 0. */
export const duration = ({ min = 0, max = longestTimerMs, orZero = false } = {}): Kind<number> => ({
  takes: '<duration>',
  parse(value) {
    const ms = parseDuration(value)
    if (ms === undefined) {
      const hint = /^\d+(\.\d+)?$/.test(value) ? `${value}s` : undefined
      throw new BadValue('must be a duration with its unit, such as 500ms, 20s, 5m, 1h or 7d', hint)
    }
    const inRange = (ms >= min && ms <= max) || (orZero && ms === 0)
    if (!inRange) {
      const range = `from ${formatDuration(min)} to ${formatDuration(max)}`
      throw new BadValue(`must be a duration ${range}${orZero ? ', or 0' : ''}`)
    }
    return ms
  },
})

function parseDuration(value: string): number | undefined {
  if (value === '0') return 0
  if (!/^(\d{1,15}(\.\d{1,15})?(ms|s|m|h|d))+$/.test(value)) return undefined
  let sum = 0n
  for (const [, number, unit] of value.matchAll(/([\d.]+)(ms|s|m|h|d)/g)) {
    const part = timesExactly(number!, durationUnits[unit as keyof typeof durationUnits])
    if (part === undefined) return undefined
    sum += part
  }
  return sum <= BigInt(longestDurationMs) ? Number(sum) : undefined
}

/** The shortest way to write a duration that `duration` reads back as the same. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0'
  let left = BigInt(ms)
  let written = ''
  for (const [unit, size] of Object.entries(durationUnits)) {
    if (left >= size) written += `${left / size}${unit}`
    left %= size
  }
  return written
}

const sizeUnits: Readonly<Record<string, bigint>> = {
  b: 1n,
  kb: 10n ** 3n,
  mb: 10n ** 6n,
  gb: 10n ** 9n,
  tb: 10n ** 12n,
  kib: 2n ** 10n,
  mib: 2n ** 20n,
  gib: 2n ** 30n,
  tib: 2n ** 40n,
}

/** Bytes, as a bare number or with a unit: `1048576`, `10MiB` (1024 x 1024), `5GB` (1000 x 1000 x 1000). */
export const size: Kind<number> = {
  takes: '<size>',
  parse(value) {
    const [, number, unit] = /^(\d{1,16}(?:\.\d{1,15})?) ?([a-z]*)$/i.exec(value) ?? []
    const factor = sizeUnits[unit?.toLowerCase() || 'b']
    const bytes = number !== undefined && factor ? timesExactly(number, factor) : undefined
    if (bytes === undefined || bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new BadValue('must be a size in whole bytes, such as 1048576, 10MiB or 5GB')
    }
    return Number(bytes)
  },
}

/** `1.5` times 1000 is 1500, without the rounding of floating point; undefined when it does not come out whole. */
function timesExactly(number: string, factor: bigint): bigint | undefined {
  const [whole = '', fraction = ''] = number.split('.')
  const scale = 10n ** BigInt(fraction.length)
  const product = BigInt(whole + fraction) * factor
  return product % scale === 0n ? product / scale : undefined
}

/** The path under which uploads live; with a slash at both ends, however it was written. */
export const basePath: Kind<string> = {
  takes: '<path>',
  parse: (value) => parsePath(value, '/files/'),
}

/** A path, or `off`. Without a slash at its end. */
export const pathOrOff: Kind<string | undefined> = {
  takes: '<path>|off',
  parse(value) {
    if (value === 'off') return undefined
    const path = parsePath(value, '/upload').slice(0, -1)
    if (path === '') throw new BadValue('must be a path such as /upload, or off, and can not be /')
    return path
  },
}

/** One path, without a slash at its end. */
export const ownPath: Kind<string> = {
  takes: '<path>',
  parse(value) {
    const path = parsePath(value, '/metrics').slice(0, -1)
    if (path === '') throw new BadValue('must be a path such as /metrics, and can not be /')
    return path
  },
}

function parsePath(value: string, example: string): string {
  if (/^https?:/i.test(value)) {
    throw new BadValue(
      'must be a path without scheme and host; behind a proxy, --behind-proxy makes upload URLs right',
    )
  }
  const path = value.endsWith('/') ? value : `${value}/`
  if (!/^\/([A-Za-z0-9._~-]+\/)*$/.test(path) || /\/\.{1,2}\//.test(path)) {
    throw new BadValue(`must be a path such as ${example}, of letters, digits and . _ ~ -`)
  }
  const taken = ['/health/', '/assets/', '/access/'].find((place) => path.startsWith(place))
  if (taken) throw new BadValue(`must not be below ${taken}, which has its own use`)
  return path
}

/** Addresses, networks, and the names loopback, linklocal and uniquelocal. */
export const addresses: Kind<readonly string[]> = {
  takes: '<address,...>',
  parse(value) {
    const list = splitList(value)
    try {
      proxyAddr.compile(list)
    } catch {
      throw new BadValue(
        'must be a list of addresses, networks (10.0.0.0/8) or the names loopback, linklocal, uniquelocal',
      )
    }
    return Object.freeze(list)
  },
}

/**
 * Which pages of other sites may use the server: `*` for any; origins with `*` for one name in them; or, as with tusd,
 * one regular expression that must match the whole origin, which then begins with `^` (or is `.*`, tusd's default).
 */
export const origins: Kind<'*' | RegExp> = {
  takes: '<origin,...>',
  parse(value) {
    if (value === '*' || value === '.*' || value === '^.*$') return '*'
    if (value.startsWith('^')) return wholeOrigin(value)
    const patterns = splitList(value).map((origin) => {
      if (origin === '*' || !/^https?:\/\/[\w.*-]+(:\d{1,5})?$/i.test(origin)) {
        throw new BadValue(
          'must be *, a list of origins such as https://example.com or https://*.example.com, ' +
            'or a regular expression that begins with ^',
        )
      }
      return origin.toLowerCase().replaceAll('.', '\\.').replaceAll('*', '[\\w-]+')
    })
    return wholeOrigin(patterns.join('|'))
  },
}

function wholeOrigin(pattern: string): RegExp {
  try {
    return new RegExp(`^(?:${pattern})$`, 'u')
  } catch {
    throw new BadValue('must be a valid regular expression, or a list of origins')
  }
}

/** One server, the primary that Sentinel names, or a Cluster: see stores/redis/redis-url.ts. Empty: no Redis. */
export const redisUrl: Kind<string | undefined> = {
  takes: '<url>',
  secret: true,
  parse(value) {
    if (value === '') return undefined
    try {
      parseRedisUrl(value)
    } catch (error) {
      if (error instanceof RedisUrlError) throw new BadValue(error.predicate)
      throw error
    }
    return value
  },
}

/** A URL of Redis as it may be shown: where it leads, without user, password and options. */
export function withoutSecrets(url: string): string {
  return parseRedisUrl(url).shown
}

export function splitList(value: string): string[] {
  const list = value.split(',').map((item) => item.trim())
  if (list.includes('')) throw new BadValue('must be a comma-separated list without empty places')
  return list
}
