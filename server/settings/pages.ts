/** What browsers are shown, and from which sites. */
import { flag, oneOf, origins } from '../setting-kinds.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Browsers')

export const pageSettings = {
  corsAllowOrigin: define({
    flag: 'cors-allow-origin',
    kind: origins,
    default: '*',
    sentence:
      'Which sites may upload from their pages: *, a list (https://example.com, https://*.example.com), or a regular ' +
      'expression that begins with ^.',
  }),
  showPage: define({
    flag: 'show-page',
    kind: flag,
    default: 'true',
    sentence: 'Serve the upload page at /.',
  }),
  uploadsApi: define({
    flag: 'uploads-api',
    kind: oneOf('off', 'named', 'owner'),
    default: 'owner',
    sentence:
      'What /uploads tells of progress: nothing; of uploads that are named by their ids; or lists too, to the owner of ' +
      'the uploads and to those who may see all. Where nobody is asked who they are there are no lists.',
  }),
} as const
