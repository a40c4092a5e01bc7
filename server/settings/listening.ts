/** Where the server listens, under which paths, and which proxies it believes. */
import { addresses, basePath, flag, optionalText, pathOrOff, text, wholeNumber } from '../setting-kinds.ts'
import type { Rule } from '../settings.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Listening')

export const listeningSettings = {
  host: define({
    flag: 'host',
    kind: text('<address>'),
    default: '0.0.0.0',
    sentence: 'Address to listen on; the default, as with tusd, is every IPv4 address of the machine.',
  }),
  port: define({
    flag: 'port',
    kind: wholeNumber(0, 65_535),
    default: '1080',
    sentence: 'Port to listen on; 0 takes a free one.',
  }),
  unixSock: define({
    flag: 'unix-sock',
    kind: optionalText('<path>'),
    default: '',
    defaultSays: 'none',
    sentence: 'Listen on a UNIX socket at this path, in place of address and port.',
  }),
  basePath: define({
    flag: 'base-path',
    kind: basePath,
    default: '/files/',
    sentence: 'Path under which uploads are created and live.',
  }),
  uploadPath: define({
    flag: 'upload-path',
    kind: pathOrOff,
    default: '/upload',
    sentence:
      'Path for tools that know no tus: forms are sent to it, files are put under names below it; off for neither. ' +
      'While base-path is / or shares its path, it is off.',
  }),
  behindProxy: define({
    flag: 'behind-proxy',
    kind: flag,
    default: 'false',
    sentence: 'Believe X-Forwarded-* and Forwarded headers when they come from a trusted proxy.',
  }),
  trustedProxies: define({
    flag: 'trusted-proxies',
    kind: addresses,
    default: 'loopback,linklocal,uniquelocal',
    sentence: 'Addresses and networks of the proxies that are believed; by default only private ones.',
  }),
} as const

export const listeningRules: readonly Rule[] = [
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
]
