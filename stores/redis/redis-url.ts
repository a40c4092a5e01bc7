/**
 * Where Redis is, from one URL: a single server, the primary that Sentinel names, or a Cluster.
 *
 *   redis://user:password@host:6379/0
 *   redis+sentinel://user:password@host1:26379,host2:26379/name/0
 *   redis+cluster://user:password@host1:6379,host2:6379
 *
 * `rediss` in place of `redis` is TLS, to the sentinels too. User and password are those of the servers with the data.
 * No sentence about a URL repeats a part of it, since any part may be a password that was written without encoding.
 */
import { isIPv6 } from 'node:net'

export type RedisTarget = {
  readonly nodes: readonly RedisNode[]
  readonly isTls: boolean
  readonly username: string | undefined
  readonly password: string | undefined
  /** Which addresses of a name are taken; 0 for any. */
  readonly family: 0 | 4 | 6
  /** The URL without user, password and options: the only form that may be shown. */
  readonly shown: string
} & (
  | { readonly is: 'single'; readonly database: number }
  | {
      readonly is: 'sentinel'
      readonly database: number
      /** What the sentinels call the primary. */
      readonly name: string
      readonly sentinelUsername: string | undefined
      readonly sentinelPassword: string | undefined
    }
  | { readonly is: 'cluster' }
)

export interface RedisNode {
  readonly host: string
  readonly port: number
}

export class RedisUrlError extends Error {
  /** The sentence without its subject, for whoever knows the URL by another name. */
  readonly predicate: string

  constructor(predicate: string) {
    super(`The URL of Redis ${predicate}.`)
    this.name = 'RedisUrlError'
    this.predicate = predicate
  }
}

export function parseRedisUrl(url: string): RedisTarget {
  const [, scheme, kind, rest = ''] = /^(rediss?)(\+sentinel|\+cluster)?:\/\/(.*)$/s.exec(url) ?? []
  if (scheme === undefined) {
    throw new RedisUrlError(
      'must be a URL such as redis://localhost:6379/0, redis+sentinel://host1:26379,host2:26379/mymaster or ' +
        'redis+cluster://host1:6379,host2:6379, with rediss in place of redis for TLS',
    )
  }
  const [, authority = '', path = '', query = '', fragment] = /^([^/?#]*)([^?#]*)\??([^#]*)(#.*)?$/s.exec(
    rest,
  )!
  if (fragment !== undefined) {
    throw new RedisUrlError('must not contain #; in a password it is written as %23')
  }
  // The last one: an @ inside a password is understood without being encoded, as everywhere.
  const at = authority.lastIndexOf('@')
  const hosts = authority.slice(at + 1)
  const defaultPort = kind === '+sentinel' ? 26_379 : 6379
  const options = parseOptions(query, kind === '+sentinel')
  const target = {
    nodes: hosts.split(',').map((host) => parseNode(host, defaultPort)),
    isTls: scheme === 'rediss',
    ...parseUser(at < 0 ? '' : authority.slice(0, at)),
    family: options.family ?? 0,
    shown: `${scheme}${kind ?? ''}://${hosts}${path === '/' ? '' : path}`,
  }
  const parts = path.split('/').slice(1)
  if (kind === '+cluster') {
    if (parts.some((part) => part !== '' && part !== '0')) {
      throw new RedisUrlError('must not name a database: a Cluster has only one')
    }
    return { is: 'cluster', ...target }
  }
  if (kind === '+sentinel') {
    const [name = '', database, ...more] = parts
    if (name === '') throw new RedisUrlError('must name the primary after the hosts, such as /mymaster')
    if (more.length > 0) throw new RedisUrlError('must end with the name of the primary and a database')
    const { sentinelUsername, sentinelPassword } = options
    const credentials = { sentinelUsername, sentinelPassword }
    return {
      is: 'sentinel',
      ...target,
      ...credentials,
      name: decode(name),
      database: parseDatabase(database),
    }
  }
  if (target.nodes.length > 1) {
    throw new RedisUrlError('names several hosts; redis+sentinel:// or redis+cluster:// says what they are')
  }
  if (parts.length > 1) throw new RedisUrlError('must have nothing but a database after the host, such as /0')
  return { is: 'single', ...target, database: parseDatabase(parts[0]) }
}

function parseUser(text: string) {
  const colon = text.indexOf(':')
  const username = decode(colon < 0 ? text : text.slice(0, colon))
  const password = colon < 0 ? '' : decode(text.slice(colon + 1))
  if (username !== '' && password === '') {
    throw new RedisUrlError('has a user without a password; a password alone is written as :password@')
  }
  return { username: username || undefined, password: password || undefined }
}

function parseNode(text: string, defaultPort: number): RedisNode {
  const [, bracketed, name, digits] = /^(?:\[([^\]]*)\]|([\w.-]+))(?::(.*))?$/s.exec(text) ?? []
  const host = bracketed ?? name
  if (host === undefined || (bracketed !== undefined && !isIPv6(bracketed))) {
    throw new RedisUrlError(
      'must name hosts as host:port, IPv6 addresses as [::1]:port, several separated by commas',
    )
  }
  const port = digits === undefined ? defaultPort : /^\d{1,5}$/.test(digits) ? Number(digits) : 0
  if (port < 1 || port > 65_535) {
    throw new RedisUrlError(
      'has a port that is no number from 1 to 65535 (in a password, / is written as %2F, ? as %3F and # as %23)',
    )
  }
  return { host, port }
}

function parseDatabase(text = ''): number {
  if (text !== '' && !/^\d{1,5}$/.test(text)) throw new RedisUrlError('has a database that is no number')
  return Number(text)
}

interface Options {
  family?: 0 | 4 | 6
  sentinelUsername?: string
  sentinelPassword?: string
}

function parseOptions(query: string, isSentinel: boolean): Options {
  const options: Options = {}
  for (const part of query.split('&').filter(Boolean)) {
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(part)!
    if (name === 'family') options.family = parseFamily(value)
    else if (isSentinel && (name === 'sentinelUsername' || name === 'sentinelPassword')) {
      options[name] = decode(value)
    } else {
      throw new RedisUrlError(
        `has an option that is not known; there is family=4 or 6${isSentinel ? ', sentinelUsername and sentinelPassword' : ''}`,
      )
    }
  }
  return options
}

function parseFamily(value: string): 0 | 4 | 6 {
  if (value === '0') return 0
  if (value === '4') return 4
  if (value === '6') return 6
  throw new RedisUrlError('has a family that is not 4, 6 or 0 (any)')
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new RedisUrlError('has a % that begins no encoded character; the sign itself is written as %25')
  }
}
