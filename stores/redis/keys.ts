/**
 * The name of everything that Tidemark keeps in Redis, in one place.
 *
 * All keys of one upload share the hash tag `{id}`, and those of one account its name, so that one script may touch them in
 * a Cluster too. The indexes
 * live in other slots; they are hints and are never part of a script.
 */
export class Keys {
  readonly prefix: string

  constructor(prefix = 'tidemark:') {
    this.prefix = prefix
  }

  /** Hash: token, fence, holder, channel, wanted. Lives as long as the lease. */
  lock(id: string): string {
    return `${this.prefix}lock:${tag(id)}`
  }
  /** Hash: token and channel of the newest waiter. */
  wait(id: string): string {
    return `${this.prefix}wait:${tag(id)}`
  }
  /** Hash: last (fence that was given out), askedAt (when a holder was asked to release). Outlives the lock by an hour. */
  fence(id: string): string {
    return `${this.prefix}fence:${tag(id)}`
  }
  /** Hash: generation, sequence, expiresAt, body. */
  record(id: string): string {
    return `${this.prefix}record:${tag(id)}`
  }
  /** Sorted set: ids by the time at which they expire. */
  get expiry(): string {
    return `${this.prefix}index:expiry`
  }
  /** Sorted set: ids by the time at which they were created. */
  get recent(): string {
    return `${this.prefix}index:recent`
  }
  /** Sorted set: ids of finished uploads with one digest, of all or of one owner, by the time at which they were created. */
  digest(entry: string): string {
    return `${this.prefix}index:digest:${entry}`
  }
  /** Sorted set: ids of what one owner has, but for parts, by the time at which they were created. */
  owned(owner: string): string {
    return `${this.prefix}index:owner:${owner}`
  }
  /** String: there while some process wants to hear of records. */
  get newsWanted(): string {
    return `${this.prefix}news:wanted`
  }
  /** Channel: processes say that they want to hear of records. */
  get newsWishes(): string {
    return `${this.prefix}to:news-wishes`
  }
  /** Channel: what happens to records, while somebody wants to hear it. */
  get news(): string {
    return `${this.prefix}to:news`
  }
  /** Hash: what an account has, its sums and an entry for each upload. Lives as long as it has one. */
  account(account: string): string {
    return `${this.prefix}account:${tag(account)}`
  }
  /** Hash: creations of an account, by the second. Lives for a minute. */
  creations(account: string): string {
    return `${this.prefix}creations:${tag(account)}`
  }
  /** Hash: running requests of an account. Lives for minutes. */
  running(account: string): string {
    return `${this.prefix}running:${tag(account)}`
  }
  /** Sorted set: entries of accounts by the time at which to look at their uploads. */
  get ledger(): string {
    return `${this.prefix}index:ledger`
  }
  /** Set: accounts that have entries. */
  get accounts(): string {
    return `${this.prefix}index:accounts`
  }
  /** The last walk through all uploads: when it began, and the run id of Redis. */
  get walk(): string {
    return `${this.prefix}walk`
  }
  /** Channel of one process: what its locks and waiters are told. */
  channel(processToken: string): string {
    return `${this.prefix}to:${processToken}`
  }
  /** One value of the config store for @tus/server. */
  config(key: string): string {
    return `${this.#configPrefix}${key}`
  }
  /** The key that `config` was given; undefined for any other name. */
  configKey(name: string): string | undefined {
    return name.startsWith(this.#configPrefix) ? name.slice(this.#configPrefix.length) : undefined
  }
  /** Matches every name that `config` makes. */
  get configPattern(): string {
    return `${this.#configPrefix.replace(/[\\*?[\]]/g, '\\$&')}*`
  }

  get #configPrefix(): string {
    return `${this.prefix}config:`
  }
}

/** Braces in an id would move the hash tag, and scatter its keys over slots. */
function tag(id: string): string {
  return /[{}%]/.test(id) ? `{${id.replace(/[{}%]/g, encodeBrace)}}` : `{${id}}`
}

function encodeBrace(character: string): string {
  return `%${character.charCodeAt(0).toString(16)}`
}
