/**
 * One process's way to Redis: a connection for commands, and one for messages when somebody subscribes.
 *
 * Nothing ever waits for Redis to come back. Commands are not queued while it is away, they fail at once; a command
 * that was cut off is never sent again by itself, because it may have been executed; a silent connection is cut after
 * one command timeout. The connections heal by themselves.
 */
import { once } from 'node:events'
import { Redis, type RedisOptions, ReplyError } from 'ioredis'
import { StoreError } from '../contracts.ts'
import { Keys } from './keys.ts'
import { runScript, type Script } from './scripts.ts'

export interface RedisConnectionOptions {
  /** `redis://` or `rediss://` (TLS), with `user:password@`, host, port and `/database`. */
  readonly url: string
  /** Stands before every key and channel. */
  readonly keyPrefix?: string
  /** A command without an answer for so long has failed, and its connection is cut. Below a third of the lease. */
  readonly commandTimeoutMs?: number
  /** Certificates and the like, for `rediss://`. */
  readonly tls?: NonNullable<RedisOptions['tls']>
  /** Is told what changes, once for each change. */
  readonly report?: (event: RedisEvent) => void
}

/**
 * - `available`: commands are answered (again)
 * - `away`: it cannot be reached; everything fails at once until `available`
 * - `replaced`: another server, or the same one restarted, answers now; its data may be empty or older
 * - `may-evict`: its settings allow it to throw keys away (`maxmemory-policy` is not `noeviction`)
 */
export type RedisEvent =
  | { readonly is: 'available' }
  | { readonly is: 'away'; readonly cause: string }
  | { readonly is: 'replaced'; readonly runId: string }
  | { readonly is: 'may-evict'; readonly policy: string }

/** A command failed; `mayHaveRun` says whether Redis may have executed it all the same. */
export class RedisFailure extends StoreError {
  readonly mayHaveRun: boolean

  constructor(
    code: 'unavailable' | 'damaged',
    message: string,
    options: { cause: unknown; mayHaveRun: boolean },
  ) {
    super(code, message, options)
    this.mayHaveRun = options.mayHaveRun
  }
}

const START_TIMEOUT_MS = 1_500
const RECONNECT_MAX_MS = 1_000

export class RedisConnection {
  readonly keys: Keys
  readonly commandTimeoutMs: number
  readonly #options: RedisConnectionOptions
  readonly #listeners = new Set<(event: RedisEvent) => void>()
  readonly #channels = new Map<string, (message: string) => void>()
  #client: Redis | undefined
  #connecting: Promise<void> | undefined
  #subscriber: Redis | undefined
  #subscribing: Promise<Redis> | undefined
  #isAvailable = false
  #lastError: Error | undefined
  #runId: string | undefined
  #warnedOfEviction = false

  constructor(options: RedisConnectionOptions) {
    this.#options = options
    this.keys = new Keys(options.keyPrefix)
    this.commandTimeoutMs = options.commandTimeoutMs ?? 2_000
    if (options.report) this.#listeners.add(options.report)
  }

  get isAvailable(): boolean {
    return this.#isAvailable
  }

  /** Identifies the running server; undefined before the first connection. */
  get runId(): string | undefined {
    return this.#runId
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

  /** Ends both connections. Commands that are still under way fail. */
  async close(): Promise<void> {
    const clients = [this.#subscriber, this.#client]
    this.#subscriber = this.#subscribing = undefined
    this.#client = this.#connecting = undefined
    this.#channels.clear()
    this.#isAvailable = false
    for (const client of clients) {
      client?.disconnect()
      const stream = client?.stream
      if (stream === undefined || stream.closed) continue
      const closed = once(stream, 'close')
      stream.destroy()
      await closed
    }
  }

  /** Hands the client to `work`. Fails with `unavailable`, at once when Redis is away. */
  async run<T>(work: (redis: Redis) => Promise<T>): Promise<T> {
    const client = this.#client
    if (client === undefined || client.status !== 'ready') throw this.#away()
    try {
      return await work(client)
    } catch (error) {
      if (isTimeout(error)) client.stream?.destroy()
      throw asStoreError(error, this.#place())
    }
  }

  runScript(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    return this.run((redis) => runScript(redis, script, keys, args))
  }

  /** Sends what `work` asks for within one call in one write. */
  batch<T>(work: () => T): T {
    const stream = this.#client?.stream
    stream?.cork()
    try {
      return work()
    } finally {
      stream?.uncork()
    }
  }

  /**
   * Hands every message on `channel` to `onMessage`, by a connection of its own. Returns when it is subscribed; after a
   * loss of the connection it subscribes again by itself. Messages that are sent meanwhile are lost.
   */
  async subscribe(channel: string, onMessage: (message: string) => void): Promise<void> {
    try {
      this.#subscribing ??= this.#makeSubscriber()
      const subscriber = await this.#subscribing
      await subscriber.subscribe(channel)
      this.#channels.set(channel, onMessage)
    } catch (error) {
      throw asStoreError(error, this.#place())
    }
  }

  async unsubscribe(channel: string): Promise<void> {
    this.#channels.delete(channel)
    // A connection that is lost is no longer subscribed either.
    await this.#subscriber?.unsubscribe(channel).catch(() => {})
  }

  /** Cuts a subscriber connection that has gone silent, so that it is made anew. */
  checkSubscriber(): void {
    const subscriber = this.#subscriber
    if (subscriber?.status === 'ready') subscriber.ping().catch(() => subscriber.stream?.destroy())
  }

  async #connect(): Promise<void> {
    const client = this.#makeClient()
    this.#client = client
    client.on('ready', () => void this.#becomeAvailable(client))
    client.on('close', () => this.#becomeAway('the connection was closed'))
    client.on('error', (error) => {
      this.#lastError = error
    })
    const failure = await this.#firstConnection(client)
    if (failure === undefined) return
    this.#client = this.#connecting = undefined
    client.disconnect()
    throw new StoreError('unavailable', `Redis at ${this.#place()} cannot be used: ${describe(failure)}`, {
      cause: failure,
    })
  }

  async #makeSubscriber(): Promise<Redis> {
    const subscriber = this.#makeClient()
    this.#subscriber = subscriber
    subscriber.on('error', () => {})
    subscriber.on('message', (channel: string, message: string) => this.#channels.get(channel)?.(message))
    const failure = await this.#firstConnection(subscriber)
    if (failure !== undefined) {
      this.#subscriber = this.#subscribing = undefined
      subscriber.disconnect()
      throw failure
    }
    subscriber.on('ready', () => {
      const channels = [...this.#channels.keys()]
      if (channels.length > 0) subscriber.subscribe(...channels).catch(() => subscriber.stream?.destroy())
    })
    return subscriber
  }

  #makeClient(): Redis {
    return new Redis(this.#options.url, {
      lazyConnect: true,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      autoResubscribe: false,
      maxRetriesPerRequest: 0,
      commandTimeout: this.commandTimeoutMs,
      connectTimeout: this.commandTimeoutMs,
      disconnectTimeout: 100,
      keepAlive: 10_000,
      retryStrategy: (attempt: number) => Math.min(50 * 2 ** Math.min(attempt, 6), RECONNECT_MAX_MS),
      // After a failover the old primary refuses writes: the name may lead to the new one by now.
      reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
      ...(this.#options.tls && { tls: this.#options.tls }),
    })
  }

  /** The reason why the first connection failed; undefined when it is ready. */
  #firstConnection(client: Redis): Promise<Error | undefined> {
    return new Promise((resolve) => {
      let last: Error | undefined
      const end = (failure: Error | undefined) => {
        clearTimeout(timer)
        client.off('error', onError)
        client.off('close', onClose)
        resolve(failure)
      }
      const onError = (error: Error) => {
        last ??= error
      }
      const onClose = () => end(last ?? new Error('the connection was closed'))
      const timer = setTimeout(() => end(last ?? new Error('no answer')), START_TIMEOUT_MS)
      client.on('error', onError)
      client.once('close', onClose)
      client.connect().then(
        () => end(undefined),
        (error: Error) => {
          // The close that follows carries the cause; this one only says that the connection is closed.
          if (error.message !== 'Connection is closed.') last = error
        },
      )
    })
  }

  async #becomeAvailable(client: Redis): Promise<void> {
    this.#lastError = undefined
    if (!this.#isAvailable) {
      this.#isAvailable = true
      this.#tell({ is: 'available' })
    }
    const info = await client.info().catch(() => '')
    const runId = field(info, 'run_id')
    const before = this.#runId
    if (runId !== undefined) this.#runId = runId
    if (runId !== undefined && before !== undefined && runId !== before) this.#tell({ is: 'replaced', runId })

    const policy = field(info, 'maxmemory_policy')
    const mayEvict = policy !== undefined && policy !== 'noeviction' && field(info, 'maxmemory') !== '0'
    if (mayEvict && !this.#warnedOfEviction) this.#tell({ is: 'may-evict', policy })
    this.#warnedOfEviction = mayEvict
  }

  #becomeAway(reason: string): void {
    if (!this.#isAvailable) return
    this.#isAvailable = false
    this.#tell({ is: 'away', cause: this.#lastError === undefined ? reason : describe(this.#lastError) })
  }

  #tell(event: RedisEvent): void {
    for (const listener of [...this.#listeners]) listener(event)
  }

  #away(): RedisFailure {
    const options = { cause: this.#lastError, mayHaveRun: false }
    return new RedisFailure('unavailable', `Redis at ${this.#place()} is away.`, options)
  }

  /** Host and port; never the password. */
  #place(): string {
    try {
      return new URL(this.#options.url).host
    } catch {
      return 'an address that is no URL'
    }
  }
}

function field(info: string, name: string): string | undefined {
  return new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === 'Command timed out'
}

/** Everything passes but what contradicts itself: a key of another kind, or a script that Redis cannot run. */
function asStoreError(error: unknown, place: string): StoreError {
  if (error instanceof StoreError) return error
  const message = describe(error)
  // An answer, also a refusal, means that nothing is under way any more.
  const mayHaveRun = !(error instanceof ReplyError) && !message.startsWith("Stream isn't writeable")
  if (/WRONGTYPE|user_script/.test(message)) {
    const options = { cause: error, mayHaveRun: true }
    return new RedisFailure('damaged', `Redis at ${place} holds something else: ${message}`, options)
  }
  return new RedisFailure('unavailable', `Redis at ${place} cannot be used: ${message}`, {
    cause: error,
    mayHaveRun,
  })
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // An AggregateError (all addresses of a name failed) has its words in its parts.
  if (error instanceof AggregateError && error.message === '') return error.errors.map(describe).join('; ')
  // ioredis's words for a command that was cut off, which here is never sent again.
  if (error.name === 'MaxRetriesPerRequestError') return 'the connection was lost before the answer'
  return error.message
}
