// Processes that share an LMDB file, and open it by turns that the test gives them, as a primary does its workers.

import { onTestFinished } from 'vitest'
import { type FromOpener, OpeningTurns } from '../../stores/local/opening-turns.ts'
import { type Child, startChild, stopChild } from './child.ts'

/** Starts one for each list of arguments; for use inside a test, which ends them when it has finished. */
export function startOpeners(program: URL, argsOfEach: readonly string[][]): Child[] {
  const turns = new OpeningTurns()
  const children = argsOfEach.map((args) => {
    const peer = turns.connect((message) => child.say(message))
    const child = startChild(process.execPath, ['--import', 'tsx', program.pathname, ...args], {
      hear: (message) => peer.receive(message as FromOpener),
    })
    void child.exited.then(() => peer.gone())
    return child
  })
  onTestFinished(async () => void (await Promise.all(children.map((child) => stopChild(child)))))
  return children
}
