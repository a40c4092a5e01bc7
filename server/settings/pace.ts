/** How long may what take. */
import { duration, size } from '../setting-kinds.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Time and pace')

export const paceSettings = {
  networkTimeoutMs: define({
    flag: 'network-timeout',
    kind: duration({ min: 100 }),
    default: '60s',
    sentence: 'End a request from which no data came for this long; what came is kept.',
  }),
  minRateBytesPerS: define({
    flag: 'min-rate',
    kind: size,
    default: '1',
    defaultSays: '1 byte a second',
    sentence:
      'End a request that sends less than this on average, in bytes a second; 0 for no limit. What came is kept.',
  }),
  acquireLockTimeoutMs: define({
    flag: 'acquire-lock-timeout',
    kind: duration({ min: 10 }),
    default: '20s',
    sentence: 'How long a request waits until another one lets go of the same upload.',
  }),
  shutdownTimeoutMs: define({
    flag: 'shutdown-timeout',
    kind: duration({ min: 100 }),
    default: '10s',
    sentence: 'How long running requests may take to end after SIGTERM or SIGINT, before they are cut.',
  }),
} as const
