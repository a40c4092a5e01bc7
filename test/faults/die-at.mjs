// Loaded into the built server before it starts: while the file that DIE_WHILE names is there, it kills itself at the
// moment that DIE_AT names: `before-finish`, noted and not yet finished; `before-telling`, finished and not yet told.

import { existsSync } from 'node:fs'
import { HookedRequest } from '../../dist/server/host/tus-hooks.js'
import { FileAppender } from '../../dist/stores/file/file-appender.js'

const { DIE_WHILE: file, DIE_AT: moment } = process.env
if (file === undefined || moment === undefined) throw new Error('DIE_WHILE and DIE_AT are not set')

const [of, method] =
  moment === 'before-finish' ? [FileAppender.prototype, 'finish'] : [HookedRequest.prototype, 'tell']
const methods = /** @type {Record<string, (...args: unknown[]) => unknown>} */ (/** @type {unknown} */ (of))
const real = methods[method]
if (real === undefined) throw new Error(`there is no ${method}`)
methods[method] = function (...args) {
  if (existsSync(file)) process.kill(process.pid, 'SIGKILL')
  return real.apply(this, args)
}
