/**
 * The Lua scripts, each from its own file in lua/, run by their digest.
 *
 * A Redis that was restarted or replaced does not know them: then the whole text is sent once, and it does again.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Redis } from 'ioredis'

export interface Script {
  readonly name: string
  readonly text: string
  readonly sha: string
}

export const scripts = {
  acquire: load('acquire-lock-wait-fence'),
  acquireNew: load('put-record-acquire-lock-wait-fence'),
  renew: load('renew-lock'),
  release: load('release-lock-wait'),
  putRecord: load('put-record'),
  checkpoint: load('put-record-lock'),
  putRecordAndRelease: load('put-record-release-lock-wait'),
  admit: load('admit-upload-account-creations'),
  grow: load('grow-upload-account'),
  settle: load('settle-upload-account'),
  begin: load('begin-body-running'),
  renewRunning: load('renew-bodies-running'),
  end: load('end-body-running'),
}

/** Sends one script; one round trip once the server knows it. */
export async function runScript(
  redis: Redis,
  script: Script,
  keys: readonly string[],
  args: readonly (string | number)[],
): Promise<unknown> {
  try {
    return await redis.evalsha(script.sha, keys.length, ...keys, ...args)
  } catch (error) {
    if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error
    return await redis.eval(script.text, keys.length, ...keys, ...args)
  }
}

function load(name: string): Script {
  const text = readFileSync(new URL(`./lua/${name}.lua`, import.meta.url), 'utf8')
  return { name, text, sha: createHash('sha1').update(text).digest('hex') }
}
