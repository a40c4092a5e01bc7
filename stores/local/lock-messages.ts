/**
 * What workers and their primary say to each other about locks. A **turn** is one wish of one worker, by a number that
 * it never uses again. A pipe between processes keeps the order, so nothing needs a second message to be certain.
 */
import type { LockErrorCode } from '../contracts.ts'

export type LockRequest =
  | readonly ['acquire', turn: number, id: string, timeoutMs: number]
  | readonly ['wait', turn: number, id: string, timeoutMs: number]
  /** The turn is over: whoever waits gives up, whoever holds lets go. `unused`: nobody held it any more when it was wanted. */
  | readonly ['end', turn: number, unused?: 'unused']

export type LockReply =
  | readonly ['held', turn: number, fence: number, isTakeOver: boolean]
  | readonly ['free', turn: number, hadToWait: boolean]
  /** Somebody else has it; one of the others comes later. */
  | readonly ['waiting', turn: number]
  /** May come before `held`. */
  | readonly ['wanted', turn: number]
  | readonly ['failed', turn: number, code: LockErrorCode]

/** Sends in one message what is said in one turn of the event loop: what a message costs hardly depends on its size. */
export class Batch<T> {
  readonly #send: (all: readonly T[]) => void
  #waiting: T[] = []

  constructor(send: (all: readonly T[]) => void) {
    this.#send = send
  }

  add(one: T): void {
    if (this.#waiting.push(one) === 1) setImmediate(() => this.#flush())
  }

  #flush(): void {
    const all = this.#waiting
    this.#waiting = []
    this.#send(all)
  }
}
