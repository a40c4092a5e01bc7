/**
 * Puts the parts of an upload service together: bytes in a folder, locks and records either in this process (then the
 * folder is its own) or in a Redis that several servers share, the tus server over them, and the sweeper behind them.
 */
import { bootClock, steadyClock, wallClock } from '../stores/clock.ts'
import { LockError, type Locker, type Now, type RecordStore } from '../stores/contracts.ts'
import type { Durability } from '../stores/file/file-appender.ts'
import { FileStore } from '../stores/file/file-store.ts'
import type { Ledger } from '../stores/ledger.ts'
import type { LmdbLedger } from '../stores/local/lmdb-ledger.ts'
import type { Turns } from '../stores/local/opening-turns.ts'
import type { RecordFeed } from '../stores/record-feed.ts'
import type { RedisEvent } from '../stores/redis/redis-connection.ts'
import type { RedisFailure } from '../stores/redis/redis-failure.ts'
import type { ServerEvent, TidemarkServerOptions } from './host/server-options.ts'
import { TidemarkServer } from './host/tidemark-server.ts'
import type { UploadRoom } from './host/upload-room.ts'
import { ownFolder } from './place.ts'
import { Counting } from './uploads/counting.ts'
import type { QuotaPlan } from './uploads/quota-accounts.ts'
import { Sweeper } from './uploads/sweeper.ts'
import { Watching } from './uploads/watching.ts'

export interface OpenUploadsOptions
  extends Omit<TidemarkServerOptions, 'datastore' | 'locker' | 'records' | 'quotas' | 'report' | 'now'> {
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
  /** How much each owner and each network address may have at a time. Default: nobody counts. */
  readonly quotas?: QuotaPlan | undefined
  /** What another process is told about this one when it wants the same folder. */
  readonly describe?: string
  readonly report?: (event: UploadsEvent) => void
}

export type UploadsEvent = ServerEvent | { readonly is: 'redis'; readonly event: RedisEvent }

export interface Uploads extends UploadRoom {
  readonly server: TidemarkServer
  /** How far uploads are, */
  readonly counting: Counting
  /** and what happens to them; ends when the room is drained. */
  readonly watching: Watching
  /** Whether records are being written by a thread, for which the end of the process would wait. */
  isBusy(): boolean
}

/** What decides who may write, and its end. */
interface Coordination {
  readonly locker: Locker
  readonly records: RecordStore
  /** Loaded when somebody is counted. */
  readonly ledger: () => Promise<Ledger>
  readonly isShared: boolean
  /** Whether this server sweeps, or leaves it to another one that is certainly there. */
  readonly sweeps: boolean
  readonly now: Now
  readonly report: (event: UploadsEvent) => void
  /** Calls back when the records may have been lost, or can be put again after some could not. */
  onLoss(listener: (lost: 'all' | 'some') => void): void
  close(): Promise<void>
}

/** What a worker is given by its primary, which has the folder and keeps the locks. */
export interface Team {
  readonly locker: Locker
  /** How the workers open the files that all of them have open. */
  readonly turns: Turns
  /** What the workers tell each other of records. */
  readonly feed: RecordFeed
  /** Whether this worker sweeps; one of them is enough. */
  readonly sweeps: boolean
  /** Fails when the primary does not live any more; else gives its time. */
  join(): Promise<{ readonly now: number }>
}

/** `team` is for workers, and means something only without Redis: with it each of them is a server like any other. */
export async function openUploads(options: OpenUploadsOptions, team?: Team): Promise<Uploads> {
  const coordination = await coordinate(options, team)
  const { locker, records, isShared, now, report } = coordination
  const { directory, durability = 'finish', sweepEveryMs = 60_000, quotas, ...rest } = options
  const { leaseMs = 10_000 } = options
  const ledger = quotas && (await coordination.ledger())
  const metered = options.meter ? { meter: options.meter } : {}
  const server = new TidemarkServer({
    ...rest,
    datastore: new FileStore({ directory, durability, isShared, now, ...metered }),
    locker,
    records,
    quotas: quotas && ledger && { ...quotas, leaseMs, ledger },
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
  const counting = new Counting({
    bytes: server.engine.bytes,
    records,
    now,
    expiry: server.engine.settings.expiry,
  })
  const watching = new Watching({ counting, records, now })
  coordination.onLoss((lost) => (lost === 'some' ? sweeper.walkSoon() : sweeper.sweepSoon()))
  if (coordination.sweeps) sweeper.start()
  return {
    server,
    counting,
    watching,
    handle: (req, res) => server.handle(req, res),
    checkReady: async () => {
      if (server.engine.isDraining) throw new Error('the server is being stopped')
      await records.check()
    },
    drain: () => {
      watching.close()
      return server.drain()
    },
    isBusy: () => (records.isBusy ?? false) || (ledger?.isBusy ?? false),
    close: async () => {
      await sweeper.close()
      await server.close()
      await coordination.close()
    },
  }
}

function coordinate(options: OpenUploadsOptions, team: Team | undefined): Promise<Coordination> {
  if (options.redisUrl !== undefined) return coordinateByRedis(options, options.redisUrl)
  return team === undefined ? coordinateAlone(options) : coordinateInTeam(options, team)
}

async function coordinateAlone(options: OpenUploadsOptions): Promise<Coordination> {
  const { directory, describe = '' } = options
  // Loaded here, because who has a Redis needs none of it.
  const [{ FolderOwner }, { LmdbRecords }, { LocalLocker }] = await Promise.all([
    import('../stores/local/folder-owner.ts'),
    import('../stores/local/lmdb-records.ts'),
    import('../stores/local/local-locker.ts'),
  ])
  const own = ownFolder(directory)
  const owner = await FolderOwner.take(own, { describe })
  return {
    locker: new LocalLocker(),
    records: new LmdbRecords({ directory: own }),
    ledger: () => lmdbLedger({ directory: own }),
    isShared: false,
    sweeps: true,
    now: steadyClock(),
    report: (event) => options.report?.(event),
    onLoss: () => undefined,
    close: () => owner.release(),
  }
}

/**
 * The folder is shared by processes of which one holds the locks of all, and gives none away while its holder lives. So
 * a successor finds the writer before it done or dead, as in one process, and nobody has to look for others at every mark.
 */
async function coordinateInTeam(options: OpenUploadsOptions, team: Team): Promise<Coordination> {
  const { directory, describe = '' } = options
  const [{ FolderGuest }, { LmdbRecords }] = await Promise.all([
    import('../stores/local/folder-owner.ts'),
    import('../stores/local/lmdb-records.ts'),
  ])
  const own = ownFolder(directory)
  const guest = await FolderGuest.enter(own, { describe })
  const { now } = await team.join().catch(async (error: unknown) => {
    await guest.leave()
    throw error
  })
  const place = { directory: own, isExamined: true, turns: team.turns }
  return {
    locker: team.locker,
    records: new LmdbRecords({ ...place, feed: team.feed }),
    ledger: () => lmdbLedger(place),
    isShared: false,
    sweeps: team.sweeps,
    now: steadyClock(wallClock, bootClock(), now),
    report: (event) => options.report?.(event),
    onLoss: () => undefined,
    close: () => guest.leave(),
  }
}

async function lmdbLedger(options: ConstructorParameters<typeof LmdbLedger>[0]): Promise<Ledger> {
  const { LmdbLedger } = await import('../stores/local/lmdb-ledger.ts')
  return new LmdbLedger(options)
}

async function coordinateByRedis(options: OpenUploadsOptions, url: string): Promise<Coordination> {
  const { redisKeyPrefix, leaseMs = 10_000 } = options
  const [{ RedisClock }, { RedisConnection }, { RedisFailure }, { RedisLocker }, { RedisRecords }] =
    await Promise.all([
      import('../stores/redis/redis-clock.ts'),
      import('../stores/redis/redis-connection.ts'),
      import('../stores/redis/redis-failure.ts'),
      import('../stores/redis/redis-locker.ts'),
      import('../stores/redis/redis-records.ts'),
    ])
  const connection = new RedisConnection({
    url,
    commandTimeoutMs: Math.min(2_000, Math.floor(leaseMs / 4)),
    ...(redisKeyPrefix !== undefined && { keyPrefix: redisKeyPrefix }),
    ...(options.meter && { meter: options.meter }),
    report: (event) => options.report?.({ is: 'redis', event }),
  })
  let isRecordMissing = false
  await connection.connect()
  const clock = await RedisClock.start({ connection }).catch(async (error: unknown) => {
    await connection.close()
    throw error
  })
  return {
    locker: new RedisLocker({ connection, leaseMs }),
    records: new RedisRecords({ connection }),
    ledger: async () => new (await import('../stores/redis/redis-ledger.ts')).RedisLedger({ connection }),
    isShared: true,
    sweeps: true,
    now: clock.now,
    report: (event) => {
      // That Redis is away is told once, and not by every request that notices.
      if (!isForWantOf(RedisFailure, event)) options.report?.(event)
      else if (event.is === 'record-failed') isRecordMissing = true
    },
    onLoss: (listener) => {
      connection.onChange((event) => {
        if (event.is === 'replaced') listener('all')
        if (event.is !== 'available' || !isRecordMissing) return
        isRecordMissing = false
        listener('some')
      })
    },
    close: () => {
      clock.close()
      return connection.close()
    },
  }
}

function isFailure(event: UploadsEvent): event is UploadsEvent & { readonly error: unknown } {
  return ['record-failed', 'sweep-failed', 'assembly-failed', 'quota-failed'].includes(event.is)
}

/** Only what failed because of Redis: a folder that is away has lines of its own. */
function isForWantOf(away: typeof RedisFailure, event: UploadsEvent): boolean {
  if (!isFailure(event)) return false
  const { error } = event
  const cause = error instanceof LockError ? error.cause : error
  return cause instanceof away && cause.code === 'unavailable'
}
