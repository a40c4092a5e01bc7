/** What uploads may be, how they are kept, and how long. */
import { duration, flag, oneOf, size, text } from '../setting-kinds.ts'
import type { Rule } from '../settings.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Uploads')

export const uploadSettings = {
  uploadDir: define({
    flag: 'upload-dir',
    kind: text('<folder>'),
    default: './data',
    sentence: 'Folder that keeps the uploads; it is made when it is not there.',
  }),
  maxSizeBytes: define({
    flag: 'max-size',
    kind: size,
    default: '0',
    defaultSays: '0, no limit',
    sentence: 'Largest size of one upload; 0 for no limit.',
  }),
  disableDownload: define({
    flag: 'disable-download',
    kind: flag,
    default: 'false',
    sentence: 'Do not serve uploads for download.',
  }),
  digest: define({
    flag: 'digest',
    kind: oneOf('declared', 'always', 'never'),
    default: 'declared',
    sentence:
      'Which uploads are hashed as a whole: those whose digest the client declares, which is then verified before they ' +
      'are finished; every one, with SHA-256; or none, whatever is declared.',
  }),
  instantUpload: define({
    flag: 'instant-upload',
    kind: oneOf('off', 'owner', 'global'),
    default: 'owner',
    sentence:
      'Finish an upload at once when a finished one has the digest and length that it declares: one of the same owner ' +
      '(nothing happens where nobody says who they are), or of anybody. Mind: with global whoever knows the digest of a ' +
      'file can have the file.',
  }),
  serveUnfinished: define({
    flag: 'serve-unfinished',
    kind: flag,
    default: 'false',
    sentence:
      'Let clients download what was acknowledged of an upload that is not finished; else that is 404.',
  }),
  disableTermination: define({
    flag: 'disable-termination',
    kind: flag,
    default: 'false',
    sentence: 'Do not let clients delete uploads.',
  }),
  removeParts: define({
    flag: 'remove-parts',
    kind: flag,
    default: 'false',
    sentence:
      'Remove the parts of a concatenation once the upload that was made of them is finished; by default they stay ' +
      'until somebody deletes them.',
  }),
  durability: define({
    flag: 'durability',
    kind: oneOf('finish', 'checkpoint', 'none'),
    default: 'finish',
    sentence:
      'When bytes are synced to the disk, for a loss of power: before a finished upload is acknowledged, before every ' +
      'acknowledged offset, or never by us.',
  }),
  expireAfterMs: define({
    flag: 'expire-after',
    kind: duration({ min: 1000, max: 100 * 365 * 86_400_000, orZero: true }),
    default: '7d',
    sentence:
      'Remove unfinished uploads after this time; 0 for never. A week lets somebody come back after a holiday, and ' +
      'still empties the folder of what was given up. Finished uploads are never removed.',
  }),
  expireMode: define({
    flag: 'expire-mode',
    kind: oneOf('sliding', 'absolute'),
    default: 'sliding',
    sentence: 'Count that time from the last received data, or from the creation of the upload.',
  }),
  sweepIntervalMs: define({
    flag: 'sweep-interval',
    kind: duration({ min: 1000 }),
    default: '1m',
    sentence:
      'How often expired uploads are looked for, by one server at a time. Remains of cut-off work are looked for at the ' +
      'start and once a day.',
  }),
} as const

export const uploadRules: readonly Rule[] = [
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
]
