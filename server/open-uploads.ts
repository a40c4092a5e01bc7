/**
 * Puts the parts of an upload service together: bytes in a folder, locks and records either in this process (then the
 * folder is its own) or in a Redis that several servers share, the tus server over them, and the sweeper behind them.
 */
import path from 'node:path'
import { steadyClock } from '../stores/clock.ts'
import type { Locker, Now, RecordStore } from '../stores/contracts.ts'
import type { Durability } from '../stores/file/file-appender.ts'
import { FileStore } from '../stores/file/file-store.ts'
import type { RedisEvent } from '../stores/redis/redis-connection.ts'
import { type ServerEvent, TidemarkServer, type TidemarkServerOptions } from './host/tidemark-server.ts'
import type { UploadRoom } from './host/upload-room.ts'
import { Sweeper } from './uploads/sweeper.ts'

export interface OpenUploadsOptions
  extends Omit<TidemarkServerOptions, 'datastore' | 'locker' | 'records' | 'report' | 'now'> {
  /** The folder for the bytes and their marks. */
  readonly directory: string
  readonly durability?: Durability
  /** Several servers on one folder share this Redis; without one, one process has the folder for itself. */
  readonly redisUrl?: string
  readonly redisKeyPrefix?: string
  /** How long a lock outlives a server that vanished. Default 10,000. */
  readonly leaseMs?: number
  /** How often expired uploads are looked for. Default 60,000. */
  readonly sweepEveryMs?: number
  /** What another process is told about this one when it wants the same folder. */
  readonly describe?: string
  readonly report?: (event: UploadsEvent) => void
}

export type UploadsEvent = ServerEvent | { readonly is: 'redis'; readonly event: RedisEvent }

export interface Uploads extends UploadRoom {
  readonly server: TidemarkServer
}

/** What decides who may write, and its end. */
interface Coordination {
  readonly locker: Locker
  readonly records: RecordStore
  readonly isShared: boolean
  readonly now: Now
  /** Calls back when the records may have been lost. */
  onLoss(listener: () => void): void
  close(): Promise<void>
}

export async function openUploads(options: OpenUploadsOptions): Promise<Uploads> {
  const report = (event: UploadsEvent) => options.report?.(event)
  const coordination = await (options.redisUrl === undefined
    ? coordinateAlone(options)
    : coordinateByRedis(options, options.redisUrl, report))
  const { locker, records, isShared, now } = coordination
  const { directory, durability = 'finish', sweepEveryMs = 60_000, ...rest } = options
  const server = new TidemarkServer({
    ...rest,
    datastore: new FileStore({ directory, durability, isShared, now }),
    locker,
    records,
    now,
    report,
  })
  const sweeper = new Sweeper({ engine: server.engine, everyMs: sweepEveryMs })
  try {
    await server.start()
  } catch (error) {
    await coordination.close()
    throw error
  }
  coordination.onLoss(() => sweeper.sweepSoon())
  sweeper.start()
  return {
    server,
    handle: (req, res) => server.handle(req, res),
    checkReady: async () => {
      if (server.engine.isDraining) throw new Error('the server is being stopped')
      await records.check()
    },
    drain: () => server.drain(),
    close: async () => {
      await sweeper.close()
      await server.close()
      await coordination.close()
    },
  }
}

async function coordinateAlone({ directory, describe = '' }: OpenUploadsOptions): Promise<Coordination> {
  // Loaded here, because who has a Redis needs none of it.
  const [{ FolderOwner }, { LmdbRecords }, { LocalLocker }] = await Promise.all([
    import('../stores/local/folder-owner.ts'),
    import('../stores/local/lmdb-records.ts'),
    import('../stores/local/local-locker.ts'),
  ])
  const own = path.join(directory, '.tidemark')
  const owner = await FolderOwner.take(own, { describe })
  return {
    locker: new LocalLocker(),
    records: new LmdbRecords({ directory: own }),
    isShared: false,
    now: steadyClock(),
    onLoss: () => undefined,
    close: () => owner.release(),
  }
}

async function coordinateByRedis(
  { redisKeyPrefix, leaseMs = 10_000 }: OpenUploadsOptions,
  url: string,
  report: (event: UploadsEvent) => void,
): Promise<Coordination> {
  const [{ RedisClock }, { RedisConnection }, { RedisLocker }, { RedisRecords }] = await Promise.all([
    import('../stores/redis/redis-clock.ts'),
    import('../stores/redis/redis-connection.ts'),
    import('../stores/redis/redis-locker.ts'),
    import('../stores/redis/redis-records.ts'),
  ])
  const connection = new RedisConnection({
    url,
    commandTimeoutMs: Math.min(2_000, Math.floor(leaseMs / 4)),
    ...(redisKeyPrefix !== undefined && { keyPrefix: redisKeyPrefix }),
    report: (event) => report({ is: 'redis', event }),
  })
  await connection.connect()
  const clock = await RedisClock.start({ connection }).catch(async (error: unknown) => {
    await connection.close()
    throw error
  })
  return {
    locker: new RedisLocker({ connection, leaseMs }),
    records: new RedisRecords({ connection }),
    isShared: true,
    now: clock.now,
    onLoss: (listener) => {
      connection.onChange((event) => {
        if (event.is === 'replaced') listener()
      })
    },
    close: () => {
      clock.close()
      return connection.close()
    },
  }
}
