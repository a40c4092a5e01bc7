/**
 * What is counted while uploads run, as plain numbers: bumping one costs nothing worth a thought, and whoever wants to
 * know reads them. Nothing here grows with uploads, owners or time.
 */
import { PassingSet, type Place } from './passing.ts'

/** How long things took: counts in buckets. Nothing is kept of a single one. */
export class Spread {
  /** Upper ends of the buckets in seconds, ascending; there is one more, without an end. */
  readonly boundsS: readonly number[]
  readonly counts: number[]
  sumS = 0

  constructor(boundsS: readonly number[]) {
    this.boundsS = boundsS
    this.counts = Array.from({ length: boundsS.length + 1 }, () => 0)
  }

  add(durationMs: number): void {
    const seconds = durationMs / 1000
    let bucket = 0
    while (bucket < this.boundsS.length && seconds > this.boundsS[bucket]!) bucket++
    this.counts[bucket]! += 1
    this.sumS += seconds
  }

  /** Adds how long `work` took, also when it failed. */
  async time<T>(work: () => Promise<T>): Promise<T> {
    const startedAt = performance.now()
    try {
      return await work()
    } finally {
      this.add(performance.now() - startedAt)
    }
  }
}

/** A count for each of a few words. */
export class Counts {
  readonly #by = new Map<string, number>()

  /** `words` are shown also before they were counted. */
  constructor(words: readonly string[] = []) {
    for (const word of words) this.#by.set(word, 0)
  }

  add(word: string): void {
    this.#by.set(word, (this.#by.get(word) ?? 0) + 1)
  }

  entries(): IterableIterator<[string, number]> {
    return this.#by.entries()
  }
}

/** The hooks that tusd's metrics know. */
const hookTypes = ['pre-create', 'post-create', 'post-receive', 'pre-finish', 'post-finish']
const terminationHookTypes = ['pre-terminate', 'post-terminate']

export class Meter {
  created = 0
  finished = 0
  terminated = 0
  expired = 0
  sweeps = 0
  walks = 0
  /** How often the mark of an upload was moved while it was received, or by its finish. */
  marks = 0
  takeOvers = 0
  /** Uploads that a request of this process waits for or holds. */
  held = 0
  readonly lockWaits = new Spread([0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20])
  readonly syncs = new Spread([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30])
  readonly redisCommands = new Spread([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5])
  readonly hookInvocations = new Counts([...hookTypes, ...terminationHookTypes])
  readonly hookErrors = new Counts([...hookTypes, ...terminationHookTypes])
  readonly #bodies = new PassingSet<RunningBody>()
  #endedBytes = 0

  /** Bytes of uploads that came, those of running bodies too. */
  get receivedBytes(): number {
    let bytes = this.#endedBytes
    for (const { receivedBytes } of this.#bodies) bytes += receivedBytes
    return bytes
  }

  get runningBodies(): number {
    return this.#bodies.size
  }

  /** A request has the lock that it asked for. */
  locked(afterMs: number, isTakeOver: boolean): void {
    this.lockWaits.add(afterMs)
    if (isTakeOver) this.takeOvers++
  }

  /** An upload that came whole was made. */
  madeWhole(bytes: number): void {
    this.created++
    this.finished++
    this.bodyCame(bytes)
  }

  /** A body came that was not counted while it came. */
  bodyCame(bytes: number): void {
    this.#endedBytes += bytes
  }

  /** Counts a body until what is returned is given to `bodyEnds`. */
  bodyBegins(body: RunningBody): Place<RunningBody> {
    return this.#bodies.add(body)
  }

  bodyEnds(place: Place<RunningBody>): void {
    this.#endedBytes += place.member?.receivedBytes ?? 0
    place.leave()
  }
}

/** A body that counts its own bytes. */
export interface RunningBody {
  readonly receivedBytes: number
}
