/** From settings to the room that receives uploads, and from what happens there to log lines. */
import type { Logger } from 'pino'
import proxyAddr from 'proxy-addr'
import type { Gate } from './access/gate.ts'
import { type Config, plainPathOf } from './config.ts'
import { entryOptionsOf } from './entry-options.ts'
import type { Metrics } from './metrics/metrics.ts'
import {
  type OpenUploadsOptions,
  openUploads,
  type Team,
  type Uploads,
  type UploadsEvent,
} from './open-uploads.ts'
import { placeOf } from './place.ts'
import { hooksOf } from './settings/hooks.ts'

export interface Surroundings {
  /** For workers. */
  readonly team?: Team | undefined
  readonly gate?: Gate | undefined
  /** Where it is counted what happens. */
  readonly metrics?: Metrics
}

export async function assemble(
  config: Config,
  logger: Logger,
  { team, gate, metrics }: Surroundings = {},
): Promise<Uploads> {
  const { corsAllowOrigin: origins, redisUrl } = config
  const trusts = proxyAddr.compile([...config.trustedProxies])
  const plainPath = plainPathOf(config)
  const options: OpenUploadsOptions = {
    path: config.basePath,
    ...(plainPath !== undefined && { plainPath }),
    directory: config.uploadDir,
    durability: config.durability,
    maxSize: config.maxSizeBytes,
    disableDownload: config.disableDownload,
    digest: config.digest,
    instantUpload: config.instantUpload,
    serveUnfinished: config.serveUnfinished,
    disableTermination: config.disableTermination,
    removeParts: config.removeParts,
    expiry: { afterMs: config.expireAfterMs, mode: config.expireMode },
    sweepEveryMs: config.sweepIntervalMs,
    networkTimeoutMs: config.networkTimeoutMs,
    leastBytesPerSecond: config.minRateBytesPerS,
    acquireLockTimeoutMs: config.acquireLockTimeoutMs,
    // An absolute Location is what plain clients want; behind a proxy that is not believed only a relative one is right.
    relativeLocation: config.behindProxy ? false : 'behind-unknown-proxy',
    respectForwardedHeaders: config.behindProxy,
    trustsProxy: (address) => trusts(address, 0),
    ...(origins !== '*' && { allowedOrigins: (origin: string) => origins.test(origin) }),
    ...(redisUrl !== undefined && {
      redisUrl,
      redisKeyPrefix: config.redisKeyPrefix,
      leaseMs: config.leaseMs,
    }),
    ...entryOptionsOf(config),
    ...hooksOf(config),
    ...(gate && { gate }),
    describe: placeOf(config),
    ...(metrics && { meter: metrics.meter }),
    report: (event) => {
      metrics?.note(event)
      log(logger, event)
    },
  }
  const uploads = await openUploads(options, team)
  metrics?.watch(uploads.server.engine.bytes.outbox)
  return uploads
}

const lines = {
  rewound: ['error', 'storage held less than was acknowledged; the upload was set back'],
  displaced: ['debug', 'an upload went to another request'],
  'record-failed': ['warn', 'the record of an upload could not be written'],
  'instant-failed': ['warn', 'equal bytes could not be looked for; they are sent'],
  'left-behind': ['warn', 'a refused creation left files behind'],
  'assembly-failed': ['error', 'a final upload could not be made of its parts; it is tried again'],
  'sweep-failed': ['error', 'a sweep failed'],
  'telling-failed': ['warn', 'somebody could not be told of an event; it is told again'],
  undelivered: ['error', 'an event could not be delivered and was set aside; see tidemark events'],
  'hook-called': ['trace', 'a hook is asked, or told'],
  'hook-failed': ['warn', 'a hook failed'],
  'hook-said': ['info', 'the program of a hook wrote to standard error'],
  'outbox-failed': ['error', 'the notes of what is to be told could not be used; it is tried again'],
  'quota-failed': ['warn', 'what an upload takes of a quota could not be noted; it is put right later'],
  'listener-failed': ['error', 'a listener failed'],
  'unlock-failed': ['error', 'a lock could not be given back'],
  available: ['info', 'Redis answers'],
  away: ['error', 'Redis can not be reached; new data is refused until it answers'],
  replaced: ['warn', 'another Redis answers, or it was restarted; records are put back from the marks'],
  'may-evict': ['warn', 'Redis may throw keys away; set maxmemory-policy to noeviction'],
} as const

/** One line for what an operator should know. */
function log(logger: Logger, event: UploadsEvent): void {
  if (event.is === 'request-failed') return // The request's own line shows the error.
  const { is, ...facts } = event.is === 'redis' ? event.event : event
  const [level, sentence] = lines[is]
  logger[level]('error' in facts ? { ...facts, err: facts.error } : facts, sentence)
}
