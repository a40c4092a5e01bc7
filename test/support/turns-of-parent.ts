// For the processes that startOpeners (openers.ts) starts.

import { type ToOpener, type Turns, WorkerTurns } from '../../stores/local/opening-turns.ts'

/** `close` lets the process end. */
export function turnsOfParent(): Turns & { close: () => void } {
  const turns = new WorkerTurns((message) => process.send!(message))
  process.on('message', (message: ToOpener) => turns.receive(message))
  return Object.assign(turns, { close: () => process.disconnect() })
}
