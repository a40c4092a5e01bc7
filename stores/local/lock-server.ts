/**
 * Keeps the locks of several processes on one machine in one of them, which is their parent.
 *
 * The one idea: the rules are LocalLocker's, and a lock never ends while the process that holds it lives. It is given
 * on when its holder lets go, or when the parent has seen that process exit; then it can write no more, and its
 * successor goes on in the same files.
 */
import { type AcquireOptions, type Lock, LockError } from '../contracts.ts'
import { PassingMap } from '../passing.ts'
import { LocalLocker } from './local-locker.ts'
import { Batch, type LockReply, type LockRequest } from './lock-messages.ts'

/**
 * A process may have kept what it does not use: it gets this long to say so, however short the patience of who waits is. Who
 * does not wait at all wants nothing that somebody may have kept.
 */
const leastPatienceMs = 100

export class LockServer {
  readonly #locker = new LocalLocker()

  /** How many uploads are held now. */
  get size(): number {
    return this.#locker.size
  }

  /** One for each process that asks. */
  connect(send: (replies: readonly LockReply[]) => void): LockPeer {
    return new LockPeer(this.#locker, send)
  }
}

/** What a process has asked for and not given back. */
class Turn implements AcquireOptions {
  readonly timeoutMs: number
  readonly onWanted: () => void
  lock: Lock | undefined
  readonly #onWait: () => void
  #waiting: AbortController | undefined

  constructor(timeoutMs: number, onWait: () => void, onWanted: () => void) {
    this.timeoutMs = timeoutMs > 0 ? Math.max(timeoutMs, leastPatienceMs) : 0
    this.#onWait = onWait
    this.onWanted = onWanted
  }

  /** Made when it has to wait. */
  get signal(): AbortSignal {
    if (this.#waiting === undefined) {
      this.#waiting = new AbortController()
      this.#onWait()
    }
    return this.#waiting.signal
  }

  end(how: 'unused' | undefined): void {
    void this.lock?.release(how)
    this.#waiting?.abort()
  }
}

/** One process as the server of the locks sees it. */
export class LockPeer {
  readonly #locker: LocalLocker
  readonly #replies: Batch<LockReply>
  readonly #turns = new PassingMap<number, Turn>()
  #isGone = false

  constructor(locker: LocalLocker, send: (replies: readonly LockReply[]) => void) {
    this.#locker = locker
    this.#replies = new Batch((replies) => this.#isGone || send(replies))
  }

  receive(requests: readonly LockRequest[]): void {
    // What a process wrote before it died may be read after its death was seen.
    if (this.#isGone) return
    for (const request of requests) {
      if (request[0] === 'end') this.#end(request[1], request[2])
      else void this.#take(request)
    }
  }

  /** The process has exited, and none of its threads runs any more. */
  gone(): void {
    this.#isGone = true
    for (const turn of [...this.#turns.keys()]) this.#end(turn)
  }

  async #take([wish, number, id, timeoutMs]: Exclude<
    LockRequest,
    readonly ['end', ...unknown[]]
  >): Promise<void> {
    const turn = new Turn(
      timeoutMs,
      () => this.#replies.add(['waiting', number]),
      () => this.#replies.add(['wanted', number]),
    )
    this.#turns.set(number, turn)
    try {
      if (wish === 'wait') {
        const hadToWait = await this.#locker.untilFree(id, turn)
        if (this.#turns.delete(number)) this.#replies.add(['free', number, hadToWait])
        return
      }
      const lock = await this.#locker.acquire(id, turn)
      turn.lock = lock
      if (this.#turns.has(number)) this.#replies.add(['held', number, lock.fence, lock.isTakeOver])
      else await lock.release()
    } catch (error) {
      if (!this.#turns.delete(number)) return
      this.#replies.add(['failed', number, error instanceof LockError ? error.code : 'unavailable'])
    }
  }

  #end(number: number, how?: 'unused'): void {
    const turn = this.#turns.get(number)
    this.#turns.delete(number)
    turn?.end(how)
  }
}
