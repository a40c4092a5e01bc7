/** Which lines are logged, and how. */
import { oneOf } from '../setting-kinds.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Logging')

export const loggingSettings = {
  logLevel: define({
    flag: 'log-level',
    kind: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
    default: 'info',
    sentence: 'Least important lines that are still logged; health checks are logged at debug.',
  }),
  logFormat: define({
    flag: 'log-format',
    kind: oneOf('auto', 'json', 'pretty'),
    default: 'auto',
    sentence: 'One JSON object a line, or lines for people; auto is pretty on a terminal and JSON elsewhere.',
  }),
} as const
