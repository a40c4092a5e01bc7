/** Hooks, by the flags that tusd has for them, and what they become. */
import { type HookType, hookTypes } from '../hooks/hook-types.ts'
import type { HookSettings } from '../hooks/hooks.ts'
import { keyOf } from '../hooks/signature.ts'
import {
  BadValue,
  duration,
  flag,
  type Kind,
  optionalText,
  size,
  splitList,
  wholeNumber,
} from '../setting-kinds.ts'
import type { Config, Given, Rule } from '../settings.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Hooks')

/** Empty for none. Name and password may be in it, so it is never repeated. */
const url: Kind<string | undefined> = {
  takes: '<url>',
  secret: true,
  parse(value) {
    if (value === '') return undefined
    if (!/^https?:\/\//i.test(value) || !URL.canParse(value))
      throw new BadValue('must be a URL that begins with http:// or https://')
    return value
  },
}

const headerNames: Kind<readonly string[]> = {
  takes: '<header,...>',
  parse(value) {
    if (value === '') return []
    const names = splitList(value)
    if (!names.every((name) => /^[\w!#$%&'*+.^`|~-]+$/.test(name)))
      throw new BadValue('must be a list of names of headers')
    return Object.freeze(names)
  },
}

const events: Kind<readonly HookType[]> = {
  takes: '<event,...>',
  parse(value) {
    const names = splitList(value)
    const isKnown = (name: string): name is HookType => hookTypes.includes(name as HookType)
    if (!names.every(isKnown)) throw new BadValue(`must be a list of ${hookTypes.join(', ')}`)
    return Object.freeze(names)
  },
}

const secrets: Kind<readonly string[]> = {
  takes: '<secret,...>',
  secret: true,
  parse(value) {
    if (value === '') return []
    const list = splitList(value)
    if (!list.every((secret) => keyOf(secret) !== undefined))
      throw new BadValue('must be whsec_ and 24 to 64 bytes in base64, or a list of such')
    return Object.freeze(list)
  },
}

export const hookSettings = {
  hooksHttp: define({
    flag: 'hooks-http',
    kind: url,
    default: '',
    defaultSays: 'none',
    sentence: 'URL that is asked and told of what happens to uploads, by POST with JSON; see docs/hooks.md.',
  }),
  hooksHttpForwardHeaders: define({
    flag: 'hooks-http-forward-headers',
    kind: headerNames,
    default: '',
    defaultSays: 'none',
    sentence: "Headers of the client's request that are sent to that URL too.",
  }),
  hooksHttpRetry: define({
    flag: 'hooks-http-retry',
    kind: wholeNumber(0, 100),
    default: '3',
    sentence: 'How often a hook that holds a request up is asked once more when it failed.',
  }),
  hooksHttpBackoffMs: define({
    flag: 'hooks-http-backoff',
    kind: duration({ max: 600_000, orZero: true }),
    default: '1s',
    sentence: 'How long to wait before that.',
  }),
  hooksHttpTimeoutMs: define({
    flag: 'hooks-http-timeout',
    kind: duration({ min: 10, max: 3_600_000 }),
    default: '15s',
    sentence: 'How long an answer of a hook may take; programs are ended then.',
  }),
  hooksHttpSizeLimitBytes: define({
    flag: 'hooks-http-size-limit',
    kind: size,
    default: '5120',
    defaultSays: '5120 bytes',
    sentence: 'How long an answer of a hook may be.',
  }),
  hooksHttpSkipVerify: define({
    flag: 'hooks-http-skip-verify',
    kind: flag,
    default: 'false',
    sentence: 'Take any certificate of that URL.',
  }),
  hooksHttpSecrets: define({
    flag: 'hooks-http-secret',
    kind: secrets,
    default: '',
    defaultSays: 'none: not signed',
    sentence:
      'Sign what hooks are sent, as Standard Webhooks: whsec_ and base64. Of several, with commas, every one signs.',
  }),
  hooksDir: define({
    flag: 'hooks-dir',
    kind: optionalText('<folder>'),
    default: '',
    defaultSays: 'none',
    sentence: 'Folder of programs, named like the events, that are run in place of a URL.',
  }),
  hooksEnabledEvents: define({
    flag: 'hooks-enabled-events',
    kind: events,
    default: 'pre-create,post-create,post-receive,post-terminate,post-finish',
    sentence: `Which hooks there are. All: ${hookTypes.join(', ')}.`,
  }),
  progressHooksIntervalMs: define({
    flag: 'progress-hooks-interval',
    kind: duration({ min: 1 }),
    default: '1s',
    sentence: 'How often post-receive is told while an upload runs.',
  }),
  hooksGiveUpAfterMs: define({
    flag: 'hooks-give-up-after',
    kind: duration({ min: 1000, max: 365 * 86_400_000 }),
    default: '3d',
    sentence:
      'Set an event aside that no hook took for this time; `tidemark events` shows such events and sends them again.',
  }),
} as const

const hasHooks = ({ config }: Given): boolean =>
  config.hooksHttp !== undefined || config.hooksDir !== undefined
const needsUrl = {
  breaks: ({ config }: Given) => config.hooksHttp === undefined,
  says: ({ name }: Given) => `has no effect without ${name('hooksHttp')}`,
}
const needsHooks = {
  breaks: (given: Given) => !hasHooks(given),
  says: ({ name }: Given) => `has no effect without ${name('hooksHttp')} or ${name('hooksDir')}`,
}

export const hookRules: readonly Rule[] = [
  {
    setting: 'hooksDir',
    breaks: ({ config }) => config.hooksHttp !== undefined && config.hooksDir !== undefined,
    says: ({ name }) => `can not be used together with ${name('hooksHttp')}`,
  },
  { setting: 'hooksHttpForwardHeaders', ...needsUrl },
  { setting: 'hooksHttpSkipVerify', ...needsUrl },
  { setting: 'hooksHttpSecrets', ...needsUrl },
  { setting: 'hooksHttpRetry', ...needsHooks },
  { setting: 'hooksHttpBackoffMs', ...needsHooks },
  { setting: 'hooksHttpTimeoutMs', ...needsHooks },
  { setting: 'hooksHttpSizeLimitBytes', ...needsHooks },
  { setting: 'hooksEnabledEvents', ...needsHooks },
  { setting: 'progressHooksIntervalMs', ...needsHooks },
  { setting: 'hooksGiveUpAfterMs', ...needsHooks },
]

/** Nothing when there are no hooks. */
export function hooksOf(config: Config): { readonly hooks?: HookSettings } {
  const { hooksHttp, hooksDir } = config
  if (hooksHttp === undefined && hooksDir === undefined) return {}
  return {
    hooks: {
      ...(hooksHttp !== undefined && {
        http: {
          url: hooksHttp,
          forwardHeaders: config.hooksHttpForwardHeaders,
          skipVerify: config.hooksHttpSkipVerify,
          secrets: config.hooksHttpSecrets,
        },
      }),
      ...(hooksDir !== undefined && { directory: hooksDir }),
      enabled: config.hooksEnabledEvents,
      retries: config.hooksHttpRetry,
      backoffMs: config.hooksHttpBackoffMs,
      timeoutMs: config.hooksHttpTimeoutMs,
      sizeLimitBytes: config.hooksHttpSizeLimitBytes,
      progressIntervalMs: config.progressHooksIntervalMs,
      giveUpAfterMs: config.hooksGiveUpAfterMs,
    },
  }
}
