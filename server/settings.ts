/**
 * Every setting of Tidemark, each in one place: its flag and `TIDEMARK_*` variable, kind, default and sentence, and
 * below them the rules between settings. Help, docs/configuration.md and the type `Config` are made from this table.
 *
 * A flag that tusd has too bears tusd's name. Defaults are written as a user would write them, and parsed alike.
 */

import { accessRules, accessSettings } from './access/settings.ts'
import { hookRules, hookSettings } from './hooks/hook-settings.ts'
import { quotaSettings } from './quota-settings.ts'
import {
  addresses,
  basePath,
  duration,
  flag,
  type Kind,
  oneOf,
  optionalPort,
  optionalText,
  origins,
  ownPath,
  pathOrOff,
  redisUrl,
  size,
  text,
  wholeNumber,
  workers,
} from './setting-kinds.ts'

export interface Setting<T> {
  readonly group: string
  /** Without dashes; the variable is made from it: `max-size`, `TIDEMARK_MAX_SIZE`. */
  readonly flag: string
  readonly kind: Kind<T>
  readonly default: string
  /** What the default means, where its text does not say it. */
  readonly defaultSays?: string
  readonly sentence: string
}

const define = <T>(setting: Setting<T>): Setting<T> => setting

const listening = 'Listening'
const uploads = 'Uploads'
const pace = 'Time and pace'
const servers = 'More than one server'
const machine = 'More than one core'
const pages = 'Browsers'
const logging = 'Logging'
const metrics = 'Metrics'

export const settings = {
  host: define({
    group: listening,
    flag: 'host',
    kind: text('<address>'),
    default: '0.0.0.0',
    sentence: 'Address to listen on; the default, as with tusd, is every IPv4 address of the machine.',
  }),
  port: define({
    group: listening,
    flag: 'port',
    kind: wholeNumber(0, 65_535),
    default: '1080',
    sentence: 'Port to listen on; 0 takes a free one.',
  }),
  unixSock: define({
    group: listening,
    flag: 'unix-sock',
    kind: optionalText('<path>'),
    default: '',
    defaultSays: 'none',
    sentence: 'Listen on a UNIX socket at this path, in place of address and port.',
  }),
  basePath: define({
    group: listening,
    flag: 'base-path',
    kind: basePath,
    default: '/files/',
    sentence: 'Path under which uploads are created and live.',
  }),
  uploadPath: define({
    group: listening,
    flag: 'upload-path',
    kind: pathOrOff,
    default: '/upload',
    sentence:
      'Path for tools that know no tus: forms are sent to it, files are put under names below it; off for neither. ' +
      'While base-path is / or shares its path, it is off.',
  }),
  behindProxy: define({
    group: listening,
    flag: 'behind-proxy',
    kind: flag,
    default: 'false',
    sentence: 'Believe X-Forwarded-* and Forwarded headers when they come from a trusted proxy.',
  }),
  trustedProxies: define({
    group: listening,
    flag: 'trusted-proxies',
    kind: addresses,
    default: 'loopback,linklocal,uniquelocal',
    sentence: 'Addresses and networks of the proxies that are believed; by default only private ones.',
  }),

  uploadDir: define({
    group: uploads,
    flag: 'upload-dir',
    kind: text('<folder>'),
    default: './data',
    sentence: 'Folder that keeps the uploads; it is made when it is not there.',
  }),
  maxSizeBytes: define({
    group: uploads,
    flag: 'max-size',
    kind: size,
    default: '0',
    defaultSays: '0, no limit',
    sentence: 'Largest size of one upload; 0 for no limit.',
  }),
  disableDownload: define({
    group: uploads,
    flag: 'disable-download',
    kind: flag,
    default: 'false',
    sentence: 'Do not serve uploads for download.',
  }),
  digest: define({
    group: uploads,
    flag: 'digest',
    kind: oneOf('declared', 'always', 'never'),
    default: 'declared',
    sentence:
      'Which uploads are hashed as a whole: those whose digest the client declares, which is then verified before they ' +
      'are finished; every one, with SHA-256; or none, whatever is declared.',
  }),
  instantUpload: define({
    group: uploads,
    flag: 'instant-upload',
    kind: oneOf('off', 'owner', 'global'),
    default: 'owner',
    sentence:
      'Finish an upload at once when a finished one has the digest and length that it declares: one of the same owner ' +
      '(nothing happens where nobody says who they are), or of anybody. Mind: with global whoever knows the digest of a ' +
      'file can have the file.',
  }),
  serveUnfinished: define({
    group: uploads,
    flag: 'serve-unfinished',
    kind: flag,
    default: 'false',
    sentence:
      'Let clients download what was acknowledged of an upload that is not finished; else that is 404.',
  }),
  disableTermination: define({
    group: uploads,
    flag: 'disable-termination',
    kind: flag,
    default: 'false',
    sentence: 'Do not let clients delete uploads.',
  }),
  removeParts: define({
    group: uploads,
    flag: 'remove-parts',
    kind: flag,
    default: 'false',
    sentence:
      'Remove the parts of a concatenation once the upload that was made of them is finished; by default they stay ' +
      'until somebody deletes them.',
  }),
  durability: define({
    group: uploads,
    flag: 'durability',
    kind: oneOf('finish', 'checkpoint', 'none'),
    default: 'finish',
    sentence:
      'When bytes are synced to the disk, for a loss of power: before a finished upload is acknowledged, before every ' +
      'acknowledged offset, or never by us.',
  }),
  expireAfterMs: define({
    group: uploads,
    flag: 'expire-after',
    kind: duration({ min: 1000, max: 100 * 365 * 86_400_000, orZero: true }),
    default: '7d',
    sentence:
      'Remove unfinished uploads after this time; 0 for never. A week lets somebody come back after a holiday, and ' +
      'still empties the folder of what was given up. Finished uploads are never removed.',
  }),
  expireMode: define({
    group: uploads,
    flag: 'expire-mode',
    kind: oneOf('sliding', 'absolute'),
    default: 'sliding',
    sentence: 'Count that time from the last received data, or from the creation of the upload.',
  }),
  sweepIntervalMs: define({
    group: uploads,
    flag: 'sweep-interval',
    kind: duration({ min: 1000 }),
    default: '1m',
    sentence:
      'How often expired uploads are looked for, by one server at a time. Remains of cut-off work are looked for at the ' +
      'start and once a day.',
  }),

  ...quotaSettings,
  ...accessSettings,

  networkTimeoutMs: define({
    group: pace,
    flag: 'network-timeout',
    kind: duration({ min: 100 }),
    default: '60s',
    sentence: 'End a request from which no data came for this long; what came is kept.',
  }),
  minRateBytesPerS: define({
    group: pace,
    flag: 'min-rate',
    kind: size,
    default: '1',
    defaultSays: '1 byte a second',
    sentence:
      'End a request that sends less than this on average, in bytes a second; 0 for no limit. What came is kept.',
  }),
  acquireLockTimeoutMs: define({
    group: pace,
    flag: 'acquire-lock-timeout',
    kind: duration({ min: 10 }),
    default: '20s',
    sentence: 'How long a request waits until another one lets go of the same upload.',
  }),
  shutdownTimeoutMs: define({
    group: pace,
    flag: 'shutdown-timeout',
    kind: duration({ min: 100 }),
    default: '10s',
    sentence: 'How long running requests may take to end after SIGTERM or SIGINT, before they are cut.',
  }),

  redisUrl: define({
    group: servers,
    flag: 'redis-url',
    kind: redisUrl,
    default: '',
    defaultSays: 'none: one server, nothing beside the folder',
    sentence:
      'Share locks and records with other servers through this Redis: redis://user:password@host:6379/0, ' +
      'redis+sentinel://host1:26379,host2:26379/name or redis+cluster://host1:6379,host2:6379; rediss for TLS.',
  }),
  redisKeyPrefix: define({
    group: servers,
    flag: 'redis-key-prefix',
    kind: text('<text>'),
    default: 'tidemark:',
    sentence: 'What the names of all keys in Redis begin with.',
  }),
  leaseMs: define({
    group: servers,
    flag: 'lease',
    kind: duration({ min: 1000, max: 600_000 }),
    default: '10s',
    sentence: 'How long the uploads of a server that vanished stay locked.',
  }),

  workers: define({
    group: machine,
    flag: 'workers',
    kind: workers,
    default: '1',
    sentence:
      'How many processes receive uploads, on one port and one folder; auto for one on each core of this machine. More ' +
      'than one need no Redis.',
  }),

  corsAllowOrigin: define({
    group: pages,
    flag: 'cors-allow-origin',
    kind: origins,
    default: '*',
    sentence:
      'Which sites may upload from their pages: *, a list (https://example.com, https://*.example.com), or a regular ' +
      'expression that begins with ^.',
  }),
  showPage: define({
    group: pages,
    flag: 'show-page',
    kind: flag,
    default: 'true',
    sentence: 'Serve the upload page at /.',
  }),
  uploadsApi: define({
    group: pages,
    flag: 'uploads-api',
    kind: oneOf('off', 'named', 'owner'),
    default: 'owner',
    sentence:
      'What /uploads tells of progress: nothing; of uploads that are named by their ids; or lists too, to the owner of ' +
      'the uploads and to those who may see all. Where nobody is asked who they are there are no lists.',
  }),

  ...hookSettings,

  logLevel: define({
    group: logging,
    flag: 'log-level',
    kind: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
    default: 'info',
    sentence: 'Least important lines that are still logged; health checks are logged at debug.',
  }),
  logFormat: define({
    group: logging,
    flag: 'log-format',
    kind: oneOf('auto', 'json', 'pretty'),
    default: 'auto',
    sentence: 'One JSON object a line, or lines for people; auto is pretty on a terminal and JSON elsewhere.',
  }),

  exposeMetrics: define({
    group: metrics,
    flag: 'expose-metrics',
    kind: flag,
    default: 'true',
    sentence: 'Let Prometheus read the metrics of this server.',
  }),
  metricsPath: define({
    group: metrics,
    flag: 'metrics-path',
    kind: ownPath,
    default: '/metrics',
    sentence: 'Path of the metrics.',
  }),
  metricsPort: define({
    group: metrics,
    flag: 'metrics-port',
    kind: optionalPort,
    default: '',
    defaultSays: 'none: the metrics are on the port of the uploads',
    sentence:
      'Serve the metrics on a port of their own, to all who reach it, and nowhere else; 0 takes a free one.',
  }),
  metricsHost: define({
    group: metrics,
    flag: 'metrics-host',
    kind: text('<address>'),
    default: '127.0.0.1',
    sentence: 'Address of that port; the default is for this machine alone.',
  }),
} as const

const uploadsApiPath = '/uploads'

/** Uploads go first where they could be meant. */
function hasRoomForUploadsApi({
  basePath,
  uploadPath = '',
}: Pick<Config, 'basePath' | 'uploadPath'>): boolean {
  const isPlain = uploadPath === uploadsApiPath || uploadPath.startsWith(`${uploadsApiPath}/`)
  return basePath !== '/' && basePath !== `${uploadsApiPath}/` && !isPlain
}

export function hasUploadsApi(config: Pick<Config, 'uploadsApi' | 'basePath' | 'uploadPath'>): boolean {
  return config.uploadsApi !== 'off' && hasRoomForUploadsApi(config)
}

type Settings = typeof settings
export type SettingKey = keyof Settings
type ValueOf<S> = S extends Setting<infer T> ? T : never

/** Every setting, parsed. Units are in the names; what is empty in text is undefined here. */
export type Config = { readonly [K in SettingKey]: ValueOf<Settings[K]> }

/** Where forms and plain files go; undefined where that is switched off, or would be in the way of the uploads themselves. */
export function plainPathOf({
  uploadPath,
  basePath,
}: Pick<Config, 'uploadPath' | 'basePath'>): string | undefined {
  if (uploadPath === undefined) return undefined
  const plain = `${uploadPath}/`
  return plain.startsWith(basePath) || basePath.startsWith(plain) ? undefined : uploadPath
}

export const variableOf = (flagName: string): string =>
  `TIDEMARK_${flagName.toUpperCase().replaceAll('-', '_')}`

/** What a rule looks at: the values, whether the user gave a setting, and how a setting is named to this user. */
export interface Given {
  readonly config: Config
  isGiven(key: SettingKey): boolean
  name(key: SettingKey): string
}

export interface Rule {
  readonly setting: SettingKey
  readonly breaks: (given: Given) => boolean
  readonly says: (given: Given) => string
}

/** A rule is broken when its setting was given and `breaks` says so. Nothing that was asked for is silently ignored. */
export const rules: readonly Rule[] = [
  ...hookRules,
  {
    setting: 'unixSock',
    breaks: ({ config, isGiven }) => config.unixSock !== undefined && (isGiven('port') || isGiven('host')),
    says: ({ isGiven, name }) => `can not be used together with ${name(isGiven('port') ? 'port' : 'host')}`,
  },
  {
    setting: 'trustedProxies',
    breaks: ({ config }) => !config.behindProxy,
    says: ({ name }) => `has no effect without ${name('behindProxy')}`,
  },
  {
    setting: 'basePath',
    breaks: ({ config }) => config.basePath === '/' && config.showPage,
    says: () => 'can not be / while the upload page is served there; add --show-page=false',
  },
  {
    setting: 'uploadsApi',
    breaks: ({ config }) => config.uploadsApi !== 'off' && !hasRoomForUploadsApi(config),
    says: ({ config, name }) =>
      `has no effect while ${name(config.uploadPath?.startsWith(uploadsApiPath) ? 'uploadPath' : 'basePath')} has that place; set it to off`,
  },
  {
    setting: 'uploadPath',
    breaks: ({ config }) => config.uploadPath !== undefined && plainPathOf(config) === undefined,
    says: ({ name }) => `must not be below ${name('basePath')}, nor above it`,
  },
  {
    setting: 'expireMode',
    breaks: ({ config }) => config.expireAfterMs === 0,
    says: ({ name }) => `has no effect while ${name('expireAfterMs')} is 0`,
  },
  {
    setting: 'instantUpload',
    breaks: ({ config }) => config.instantUpload !== 'off' && config.digest === 'never',
    says: ({ name }) => `has no effect while ${name('digest')} is never`,
  },
  {
    setting: 'redisKeyPrefix',
    breaks: ({ config }) => config.redisUrl === undefined,
    says: ({ name }) => `has no effect without ${name('redisUrl')}`,
  },
  ...(['metricsPath', 'metricsPort'] as const).map((setting) => ({
    setting,
    breaks: ({ config }: Given) => !config.exposeMetrics,
    says: ({ name }: Given) => `has no effect while ${name('exposeMetrics')} is false`,
  })),
  ...(['basePath', 'metricsPath'] as const).map((setting) => ({
    setting,
    breaks: ({ config }: Given) => isMetricsPathTaken(config),
    says: ({ name }: Given) =>
      `does not go together with ${name(setting === 'basePath' ? 'metricsPath' : 'basePath')}: the metrics can not be among the uploads`,
  })),
  {
    setting: 'metricsHost',
    breaks: ({ config }) => config.metricsPort === undefined,
    says: ({ name }) => `has no effect without ${name('metricsPort')}`,
  },
  ...accessRules,
]

/** At the root the metrics keep their place, as an upload's id has no slash and can not be theirs. */
function isMetricsPathTaken({ exposeMetrics, metricsPort, metricsPath, basePath }: Config): boolean {
  if (!exposeMetrics || metricsPort !== undefined || basePath === '/') return false
  return `${metricsPath}/`.startsWith(basePath)
}
