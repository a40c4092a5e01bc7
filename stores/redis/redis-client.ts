/**
 * How every single connection to a Redis server is made, begun and ended.
 *
 * Nothing is queued while it is away, nothing is sent a second time, and everything has a deadline.
 */
import { once } from 'node:events'
import { Redis, type RedisOptions } from 'ioredis'
import type { RedisNode, RedisTarget } from './redis-url.ts'

export interface ClientOptions {
  readonly target: RedisTarget
  readonly commandTimeoutMs: number
  readonly tls: NonNullable<RedisOptions['tls']> | undefined
}

const START_TIMEOUT_MS = 1_500
const RECONNECT_MAX_MS = 1_000
const NO_SENTINEL = 'All sentinels are unreachable'

/** 100 ms after the first loss, a second at most. */
export const reconnectDelayMs = (attempt: number): number =>
  Math.min(50 * 2 ** Math.min(attempt, 6), RECONNECT_MAX_MS)

/** To `node`; without one, to the server or to whom the sentinels name. It connects anew after a loss, unless told not to. */
export function makeClient(options: ClientOptions, node?: RedisNode, heals = true): Redis {
  const { target, commandTimeoutMs } = options
  const tls = target.isTls ? { tls: { ...options.tls } } : {}
  return new Redis({
    ...(target.is === 'sentinel' && node === undefined
      ? sentinelOptions(options, target, heals)
      : (node ?? target.nodes[0])),
    ...(target.is !== 'cluster' && { db: target.database }),
    ...(target.username !== undefined && { username: target.username }),
    ...(target.password !== undefined && { password: target.password }),
    family: target.family,
    ...tls,
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    commandTimeout: commandTimeoutMs,
    connectTimeout: connectTimeoutMs(options),
    disconnectTimeout: 100,
    keepAlive: 10_000,
    retryStrategy: heals ? reconnectDelayMs : () => null,
    // After a failover the old primary refuses writes: the name may lead to the new one by now.
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
  })
}

/** To one sentinel. */
export function makeSentinelClient(options: ClientOptions, node: RedisNode, heals: boolean): Redis {
  const { target, commandTimeoutMs, tls } = options
  const credentials = target.is === 'sentinel' ? target : undefined
  return new Redis({
    ...node,
    ...(credentials?.sentinelUsername !== undefined && { username: credentials.sentinelUsername }),
    ...(credentials?.sentinelPassword !== undefined && { password: credentials.sentinelPassword }),
    family: target.family,
    ...(target.isTls && { tls: { ...tls } }),
    lazyConnect: true,
    enableOfflineQueue: false,
    enableReadyCheck: false,
    maxRetriesPerRequest: 0,
    commandTimeout: commandTimeoutMs,
    connectTimeout: connectTimeoutMs(options),
    disconnectTimeout: 100,
    retryStrategy: heals ? reconnectDelayMs : () => null,
  })
}

/** The reason why the first connection failed; undefined when it is ready. */
export function firstConnection(client: Redis): Promise<Error | undefined> {
  return new Promise((resolve) => {
    let last: Error | undefined
    let ofSentinel: Error | undefined
    const end = (failure: Error | undefined) => {
      clearTimeout(timer)
      client.off('error', onError)
      client.off('sentinelError', onSentinelError)
      client.off('close', onClose)
      resolve(failure)
    }
    const onError = (error: Error) => {
      // ioredis goes on with the first one for ever; at a start one round is enough.
      if (error.message.startsWith(NO_SENTINEL)) end(ofSentinel ?? error)
      else last ??= error
    }
    const onSentinelError = (error: Error) => {
      ofSentinel = ofSentinel === undefined || saysNothing(ofSentinel) ? inOurWords(error) : ofSentinel
    }
    const onClose = () => end(last ?? new Error('the connection was closed'))
    const timer = setTimeout(
      () => end(last ?? ofSentinel ?? new Error('no answer in time')),
      START_TIMEOUT_MS,
    )
    client.on('error', onError)
    client.on('sentinelError', onSentinelError)
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

/** Ends a connection at once. Commands that are still under way fail. */
export async function closeClient(client: Redis | undefined): Promise<void> {
  client?.disconnect()
  const stream = client?.stream
  if (stream === undefined || stream.closed) return
  const closed = once(stream, 'close')
  stream.destroy()
  await closed
}

export function placeOf(node: RedisNode): string {
  return node.host.includes(':') ? `[${node.host}]:${node.port}` : `${node.host}:${node.port}`
}

/** Several sentinels may have to be tried within the time that one start has. */
function connectTimeoutMs({ target, commandTimeoutMs }: ClientOptions): number {
  return target.nodes.length > 1 ? Math.min(commandTimeoutMs, 1000) : commandTimeoutMs
}

function sentinelOptions(
  options: ClientOptions,
  target: Extract<RedisTarget, { is: 'sentinel' }>,
  heals: boolean,
): RedisOptions {
  const { isTls, nodes, name, sentinelUsername, sentinelPassword } = target
  return {
    sentinels: [...nodes],
    name,
    sentinelCommandTimeout: Math.min(options.commandTimeoutMs, 500),
    sentinelRetryStrategy: heals ? reconnectDelayMs : () => null,
    ...(sentinelUsername !== undefined && { sentinelUsername }),
    ...(sentinelPassword !== undefined && { sentinelPassword }),
    ...(isTls && { enableTLSForSentinelMode: true, sentinelTLS: { ...options.tls } }),
  }
}

function saysNothing(error: Error): boolean {
  return error.message.startsWith('no sentinel answers')
}

function inOurWords({ message }: Error): Error {
  if (/invalid reply: null|No such master/.test(message)) {
    return new Error('the sentinels know no primary of that name')
  }
  if (/Connection is closed|timed out|ETIMEDOUT/.test(message)) return new Error('no sentinel answers')
  return new Error(message)
}
