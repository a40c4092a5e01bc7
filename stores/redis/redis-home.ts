/**
 * Where the data is: one server, or all primaries of a Cluster. RedisConnection speaks to either in the same way.
 */
import type { Redis } from 'ioredis'

export interface RedisHome {
  /** What commands are given to. They fail at once where the server they belong to is not connected. */
  readonly commands: Redis
  /** Whether any command can be sent at all. */
  readonly isUsable: boolean
  /** The connections to the servers that hold the data. */
  readonly primaries: readonly Redis[]
  /** The reason why it cannot be used; undefined when every server is connected. Takes less than two seconds. */
  start(): Promise<Error | undefined>
  /** Is told what a command failed with: a silent connection is cut. */
  onFailure(error: unknown): void
  /** A connection for messages, to whichever server answers; it does not connect anew by itself. */
  makeSubscriber(): Redis
  /** Ends all connections. Commands that are still under way fail. */
  close(): Promise<void>
}

/** Who is told what happens to the connections. */
export interface HomeEvents {
  /** Everything can be reached (again). */
  onAvailable(): void
  onAway(reason: string): void
  /** A connection to a server with data is ready, for the first time or again. */
  onReady(client: Redis): void
}
