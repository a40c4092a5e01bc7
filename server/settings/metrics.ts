/** Where Prometheus finds the metrics. */
import { flag, optionalPort, ownPath, text } from '../setting-kinds.ts'
import type { Config, Given, Rule } from '../settings.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Metrics')

export const metricsSettings = {
  exposeMetrics: define({
    flag: 'expose-metrics',
    kind: flag,
    default: 'true',
    sentence: 'Let Prometheus read the metrics of this server.',
  }),
  metricsPath: define({
    flag: 'metrics-path',
    kind: ownPath,
    default: '/metrics',
    sentence: 'Path of the metrics.',
  }),
  metricsPort: define({
    flag: 'metrics-port',
    kind: optionalPort,
    default: '',
    defaultSays: 'none: the metrics are on the port of the uploads',
    sentence:
      'Serve the metrics on a port of their own, to all who reach it, and nowhere else; 0 takes a free one.',
  }),
  metricsHost: define({
    flag: 'metrics-host',
    kind: text('<address>'),
    default: '127.0.0.1',
    sentence: 'Address of that port; the default is for this machine alone.',
  }),
} as const

export const metricsRules: readonly Rule[] = [
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
]

/** At the root the metrics keep their place, as an upload's id has no slash and can not be theirs. */
function isMetricsPathTaken({ exposeMetrics, metricsPort, metricsPath, basePath }: Config): boolean {
  if (!exposeMetrics || metricsPort !== undefined || basePath === '/') return false
  return `${metricsPath}/`.startsWith(basePath)
}
