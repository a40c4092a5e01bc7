/**
 * Locks that stay in a process after their release, until somebody else wants them, or for a few seconds: clients that send
 * in pieces come back for the same upload at once, mostly over the same connection.
 */
import type { Lock } from '../contracts.ts'
import { LastingLock } from './lasting-lock.ts'

/** How long a lock is kept that nobody uses; up to twice as long. */
const keepMs = 2_000
/** So many are kept; whoever is past that comes back to the primary. */
const mostKept = 1_000
/** How often one may be lent before its fence is that of the next one. */
const mostLent = 2 ** 16

/** What the primary has given to this process, lent to one request after the other. */
export class KeptLock {
  readonly turn: number
  readonly id: string
  readonly #fence: number
  #lent = 0
  #isWanted = false
  #lock: LastingLock | undefined

  /** `fence` is the primary's; those of its locks lie between that and the next. */
  constructor(turn: number, id: string, fence: number) {
    this.turn = turn
    this.id = id
    this.#fence = fence
  }

  /** Whether it need not be given back at once. */
  get mayStay(): boolean {
    return !this.#isWanted && this.#lent < mostLent
  }

  lend(onWanted: (() => void) | undefined, isTakeOver: boolean, onRelease: () => void): Lock {
    const fence = this.#fence * mostLent + this.#lent++
    this.#lock = new LastingLock({ id: this.id, fence, isTakeOver }, onWanted, onRelease)
    return this.#lock
  }

  /** Somebody else wants it: whoever has it is told, and it stays no longer than that. */
  want(): void {
    this.#isWanted = true
    this.#lock?.want()
  }
}

/** Those that nobody uses now. */
export class KeptLocks {
  readonly #end: (lock: KeptLock) => void
  /** Since the last look, and before it. */
  #young = new Map<string, KeptLock>()
  #old = new Map<string, KeptLock>()
  #timer: NodeJS.Timeout | undefined

  constructor(end: (lock: KeptLock) => void) {
    this.#end = end
  }

  add(lock: KeptLock): void {
    if (this.#young.size >= mostKept) this.#age()
    this.#young.set(lock.id, lock)
    this.#timer ??= setInterval(() => this.#age(), keepMs).unref()
  }

  has(id: string): boolean {
    return this.#young.has(id) || this.#old.has(id)
  }

  /** Whoever takes it uses it, or gives it back. */
  take(id: string): KeptLock | undefined {
    const lock = this.#young.get(id) ?? this.#old.get(id)
    this.#young.delete(id)
    this.#old.delete(id)
    return lock
  }

  /** Ends all of them. */
  clear(): void {
    this.#age()
    this.#age()
  }

  #age(): void {
    const ended = this.#old
    this.#old = this.#young
    this.#young = new Map()
    for (const lock of ended.values()) this.#end(lock)
    if (this.#old.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
