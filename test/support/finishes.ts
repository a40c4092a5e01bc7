// Which uploads the servers under test told their listeners are finished. What was told stays known, however the server ends.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** One time that listeners were told. */
export type Finish = {
  upload: string
  /** Bytes of the upload. */
  size: number
  /** Names the event: the same when listeners are told of it again. Undefined from servers that tell once at most. */
  event?: string
  /** Of the server that told. */
  pid: number
}

export type FinishJournal = {
  /** For `startServer`. */
  nodeArgs: string[]
  env: Record<string, string>
  read: () => Promise<Finish[]>
}

/** @param folder where it may write, not the upload folder */
export function finishJournal(folder: string): FinishJournal {
  const file = join(folder, 'finishes.jsonl')
  return {
    nodeArgs: ['--import', new URL('tell-finishes.mjs', import.meta.url).href],
    env: { TELL_FINISHES_TO: file },
    async read() {
      const text = await readFile(file, 'utf8').catch(() => '')
      return text
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Finish)
    },
  }
}
