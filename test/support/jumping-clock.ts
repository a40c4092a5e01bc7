// A wall clock for one real process that a test can set while it runs, by libfaketime. Its monotonic clock, its uptime
// and the times of its files stay those of the machine, as they do where somebody sets the clock of a whole machine.

import { execFile } from 'node:child_process'
import { rename, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { programPath } from '../../scripts/test-programs.mjs'
import { temporaryFolder } from './folder.ts'

export type JumpingClock = {
  /** For the process that is to have this clock. */
  env: Record<string, string>
  /** Sets the clock to so many seconds from the true time, at once. */
  set: (aheadS: number) => Promise<void>
}

export async function jumpingClock(): Promise<JumpingClock> {
  const file = path.join(await temporaryFolder(), 'offset')
  const set = async (aheadS: number) => {
    // Never half a file: it is read at every look at the clock.
    await writeFile(`${file}.new`, `${aheadS < 0 ? '' : '+'}${aheadS}\n`)
    await rename(`${file}.new`, file)
  }
  await set(0)
  // The program itself knows best where its library is.
  const asked = await promisify(execFile)(programPath('faketime'), [
    '-m',
    '-f',
    '+0',
    'printenv',
    'LD_PRELOAD',
  ])
  return {
    set,
    env: {
      LD_PRELOAD: asked.stdout.trim(),
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      NO_FAKE_STAT: '1',
    },
  }
}
