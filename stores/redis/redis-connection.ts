/**
 * One process's way to Redis, be it one server, a primary that Sentinel names, or a Cluster: connections for commands,
 * and one for messages when somebody subscribes.
 *
 * Nothing ever waits for Redis to come back. Commands are not queued while it is away, they fail at once; a command
 * that was cut off is never sent again by itself, because it may have been executed; a silent connection is cut after
 * one command timeout. The connections heal by themselves.
 */
import type { Redis, RedisOptions } from 'ioredis'
import type { Meter, Spread } from '../meter.ts'
import { IndexHints } from './index-hints.ts'
import { KeyQuestions } from './key-questions.ts'
import { Keys } from './keys.ts'
import type { ClientOptions } from './redis-client.ts'
import { RedisCluster } from './redis-cluster.ts'
import { asStoreError, describe, isTimeout, RedisFailure } from './redis-failure.ts'
import type { HomeEvents, RedisHome } from './redis-home.ts'
import { RedisNews } from './redis-news.ts'
import { RedisSingle } from './redis-single.ts'
import { RedisSubscriber } from './redis-subscriber.ts'
import { parseRedisUrl, type RedisTarget } from './redis-url.ts'
import { runScript, type Script } from './scripts.ts'

export { RedisFailure } from './redis-failure.ts'

export interface RedisConnectionOptions {
  /**
   * `redis://user:password@host:6379/0`, `redis+sentinel://user:password@host1:26379,host2:26379/name/0` or
   * `redis+cluster://user:password@host1:6379,host2:6379`; with `rediss` for TLS.
   */
  readonly url: string
  /** Stands before every key and channel. */
  readonly keyPrefix?: string
  /** A command without an answer for so long has failed, and its connection is cut. Below a third of the lease. */
  readonly commandTimeoutMs?: number
  /** Certificates and the like, for `rediss`. */
  readonly tls?: NonNullable<RedisOptions['tls']>
  /** Where it is counted how long commands take. */
  readonly meter?: Meter
  /** Is told what changes, once for each change. */
  readonly report?: (event: RedisEvent) => void
}

/**
 * - `available`: commands are answered (again)
 * - `away`: it cannot be reached; everything fails at once until `available`. Of a Cluster a part is enough, and what
 *   belongs to the other parts is still answered
 * - `replaced`: another server, or the same one restarted, answers now; its data may be empty or older
 * - `may-evict`: its settings allow it to throw keys away (`maxmemory-policy` is not `noeviction`)
 */
export type RedisEvent =
  | { readonly is: 'available' }
  | { readonly is: 'away'; readonly cause: string }
  | { readonly is: 'replaced'; readonly runId: string }
  | { readonly is: 'may-evict'; readonly policy: string }

export class RedisConnection {
  readonly keys: Keys
  readonly commandTimeoutMs: number
  /** What happens to the records in this Redis. */
  readonly news: RedisNews
  readonly #target: RedisTarget
  readonly #times: Spread | undefined
  readonly #clientOptions: ClientOptions
  readonly #listeners = new Set<(event: RedisEvent) => void>()
  /** What the servers with the data identify themselves by. */
  #runIds = new Map<Redis, string>()
  #home: RedisHome | undefined
  #connecting: Promise<void> | undefined
  #subscriber: RedisSubscriber | undefined
  #hasMetAll = false
  #isAvailable = false
  readonly #hints = new IndexHints()
  readonly #questions = new KeyQuestions()
  /** Connections whose commands are held back until the end of this turn. */
  #heldBack: (Redis['stream'] | undefined)[] | undefined
  #warnedOfEviction = false

  /** Throws a `RedisUrlError`, whose sentence repeats nothing of the URL. */
  constructor(options: RedisConnectionOptions) {
    this.#target = parseRedisUrl(options.url)
    this.keys = new Keys(options.keyPrefix)
    this.commandTimeoutMs = options.commandTimeoutMs ?? 2_000
    this.#clientOptions = {
      target: this.#target,
      commandTimeoutMs: this.commandTimeoutMs,
      tls: options.tls,
    }
    this.news = new RedisNews(this)
    this.#times = options.meter?.redisCommands
    if (options.report) this.#listeners.add(options.report)
  }

  get isAvailable(): boolean {
    return this.#isAvailable
  }

  /** Identifies the running server, or the primaries of a Cluster; undefined before the first connection. */
  get runId(): string | undefined {
    return this.#runIds.size === 0 ? undefined : [...this.#runIds.values()].sort().join(',')
  }

  /** Calls `listener` at every change, until the returned function is called. */
  onChange(listener: (event: RedisEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Connects; does nothing when connected. Fails with `unavailable`, which says why, in less than two seconds. */
  connect(): Promise<void> {
    this.#connecting ??= this.#connect()
    return this.#connecting
  }

  /** Ends all connections. Commands that are still under way fail. */
  async close(): Promise<void> {
    this.#sendHeldBack()
    const [subscriber, home] = [this.#subscriber, this.#home]
    this.#subscriber = this.#home = this.#connecting = undefined
    this.#isAvailable = false
    this.news.close()
    await subscriber?.close()
    await home?.close()
  }

  /**
   * Hands something that sends commands to `work`. In a Cluster each command goes where its first key lives. Fails with
   * `unavailable`, at once when Redis is away.
   */
  async run<T>(work: (redis: Redis) => Promise<T>): Promise<T> {
    const home = this.#home
    if (home === undefined || !home.isUsable) throw this.#away()
    const startedAt = performance.now()
    try {
      return await work(home.commands)
    } catch (error) {
      home.onFailure(error)
      throw asStoreError(error, this.#target.shown)
    } finally {
      this.#times?.add(performance.now() - startedAt)
    }
  }

  /** Like `run`, on every server that holds a part of the data; one after the other. */
  async runOnEach<T>(work: (redis: Redis) => Promise<T>): Promise<T[]> {
    if (this.#home === undefined || !this.#isAvailable) throw this.#away()
    const results: T[] = []
    for (const primary of this.#home.primaries) {
      try {
        results.push(await work(primary))
      } catch (error) {
        if (isTimeout(error)) primary.stream?.destroy()
        throw asStoreError(error, this.#target.shown)
      }
    }
    return results
  }

  runScript(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    return this.run((redis) => runScript(redis, script, keys, args))
  }

  /**
   * Sends what `work` asks for within one call in one write, or one to each server, together with what others ask for in
   * the same turn of the event loop: a write costs more than what is in it.
   */
  batch<T>(work: () => T): T {
    if (this.#heldBack === undefined) {
      this.#heldBack = this.#home?.primaries.map(({ stream }) => stream) ?? []
      for (const stream of this.#heldBack) stream?.cork()
      setImmediate(() => this.#sendHeldBack())
    }
    return work()
  }

  #sendHeldBack(): void {
    this.#hints.send((command) => this.run(command))
    this.#questions.send((command) => this.run(command), this.#target.is !== 'cluster')
    for (const stream of this.#heldBack ?? []) stream?.uncork()
    this.#heldBack = undefined
  }

  /** Whether a key exists. Asked at the end of this turn, with all others; fails as `run` does. */
  exists(key: string): Promise<boolean> {
    return this.batch(() => this.#questions.ask(key))
  }

  /** Sends an entry of an index at the end of this turn, with all others; without a score it is taken out. Never fails. */
  hint(index: string, id: string, score: number | undefined): void {
    this.batch(() => this.#hints.put(index, id, score))
  }

  /** Forgets the hints of an upload that were not sent yet. */
  dropHints(id: string): void {
    this.#hints.drop(id)
  }

  /**
   * Hands every message on `channel` to `onMessage`, by a connection of its own. Returns when it is subscribed; after a
   * loss of the connection it subscribes again by itself, and calls `onAgain`. Messages that are sent meanwhile are lost.
   */
  async subscribe(
    channel: string,
    onMessage: (message: string) => void,
    onAgain?: () => void,
  ): Promise<void> {
    const home = this.#home
    if (home === undefined) throw this.#away()
    this.#subscriber ??= new RedisSubscriber(() => home.makeSubscriber())
    try {
      await this.#subscriber.add(channel, onMessage, onAgain)
    } catch (error) {
      throw asStoreError(error, this.#target.shown)
    }
  }

  async unsubscribe(channel: string): Promise<void> {
    await this.#subscriber?.remove(channel)
  }

  /** Cuts a subscriber connection that has gone silent, so that it is made anew. */
  checkSubscriber(): void {
    this.#subscriber?.check()
  }

  async #connect(): Promise<void> {
    const events: HomeEvents = {
      onAvailable: () => this.#becomeAvailable(),
      onAway: (cause) => this.#becomeAway(cause),
      onReady: (client) => void this.#meet(home, client),
    }
    const home: RedisHome =
      this.#target.is === 'cluster'
        ? new RedisCluster(this.#clientOptions, events)
        : new RedisSingle(this.#clientOptions, events)
    this.#home = home
    const failure = await home.start()
    if (failure === undefined) return
    this.#isAvailable = false
    this.#home = this.#connecting = undefined
    void home.close().catch(() => {})
    const message = `Redis at ${this.#target.shown} cannot be used: ${describe(failure)}`
    throw new RedisFailure('unavailable', message, { cause: failure, mayHaveRun: false })
  }

  #becomeAvailable(): void {
    if (this.#isAvailable) return
    this.#isAvailable = true
    this.#tell({ is: 'available' })
  }

  #becomeAway(cause: string): void {
    if (!this.#isAvailable) return
    this.#isAvailable = false
    this.#tell({ is: 'away', cause })
  }

  /** Who is it that answers, and does it keep what it is given? */
  async #meet(home: RedisHome, client: Redis): Promise<void> {
    const info = await client.info().catch(() => '')
    if (home !== this.#home) return
    const runId = field(info, 'run_id')
    if (runId !== undefined) this.#notice(home, client, runId)

    const policy = field(info, 'maxmemory_policy')
    const mayEvict = policy !== undefined && policy !== 'noeviction' && field(info, 'maxmemory') !== '0'
    if (mayEvict && !this.#warnedOfEviction) this.#tell({ is: 'may-evict', policy })
    this.#warnedOfEviction = mayEvict
  }

  #notice(home: RedisHome, client: Redis, runId: string): void {
    const isNew = ![...this.#runIds.values()].includes(runId)
    // A Cluster that is met for the first time has as many new ones as primaries.
    const wasComplete = this.#hasMetAll
    this.#runIds.set(client, runId)
    const primaries = new Set(home.primaries)
    for (const known of this.#runIds.keys()) if (!primaries.has(known)) this.#runIds.delete(known)
    this.#hasMetAll ||= this.#runIds.size === primaries.size
    if (!isNew || !wasComplete) return
    this.#subscriber?.leaveUnlessAt(home.primaries)
    this.#tell({ is: 'replaced', runId })
  }

  #tell(event: RedisEvent): void {
    for (const listener of [...this.#listeners]) listener(event)
  }

  #away(): RedisFailure {
    const message = `Redis at ${this.#target.shown} is away.`
    return new RedisFailure('unavailable', message, { cause: undefined, mayHaveRun: false })
  }
}

function field(info: string, name: string): string | undefined {
  return new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]
}
