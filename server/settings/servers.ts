/** What several servers share, and how many processes one server is. */
import { duration, redisUrl, text, workers } from '../setting-kinds.ts'
import type { Rule } from '../settings.ts'
import { defineIn } from './setting.ts'

const define = defineIn('More than one server')
const defineWorkers = defineIn('More than one core')

export const serverSettings = {
  redisUrl: define({
    flag: 'redis-url',
    kind: redisUrl,
    default: '',
    defaultSays: 'none: one server, nothing beside the folder',
    sentence:
      'Share locks and records with other servers through this Redis: redis://user:password@host:6379/0, ' +
      'redis+sentinel://host1:26379,host2:26379/name or redis+cluster://host1:6379,host2:6379; rediss for TLS.',
  }),
  redisKeyPrefix: define({
    flag: 'redis-key-prefix',
    kind: text('<text>'),
    default: 'tidemark:',
    sentence: 'What the names of all keys in Redis begin with.',
  }),
  leaseMs: define({
    flag: 'lease',
    kind: duration({ min: 1000, max: 600_000 }),
    default: '10s',
    sentence: 'How long the uploads of a server that vanished stay locked.',
  }),
} as const

export const workerSettings = {
  workers: defineWorkers({
    flag: 'workers',
    kind: workers,
    default: '1',
    sentence:
      'How many processes receive uploads, on one port and one folder; auto for one on each core of this machine. More ' +
      'than one need no Redis.',
  }),
} as const

export const serverRules: readonly Rule[] = [
  {
    setting: 'redisKeyPrefix',
    breaks: ({ config }) => config.redisUrl === undefined,
    says: ({ name }) => `has no effect without ${name('redisUrl')}`,
  },
]
