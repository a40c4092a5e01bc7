/**
 * One timer for all running bodies of a process: it moves their checkpoints, and notices the silent ones. It goes through
 * them a few at a time, or a crowd that began together would stop everybody else whenever its checkpoints are due.
 */
import { PassingSet, type Place } from '../../stores/passing.ts'

export interface Ticking {
  /** True when this made work. */
  tick(now: number): boolean
}

/** Parts of a round. */
const slices = 10
/** Bodies that may make work in one slice, or this part of all. */
const workAtOnce = 64
const partAtOnce = 0.01

export class Pulse {
  readonly #members = new PassingSet<Ticking>()
  readonly #everyMs: number
  readonly now: () => number
  #timer: NodeJS.Timeout | undefined
  /** How many of them have their turn now. */
  #due = 0
  /** Where the round is; members may come and go meanwhile. */
  #round = this.#members[Symbol.iterator]()

  constructor({
    everyMs = 500,
    now = () => performance.now(),
  }: { everyMs?: number; now?: () => number } = {}) {
    this.#everyMs = everyMs
    this.now = now
  }

  get isBeating(): boolean {
    return this.#timer !== undefined
  }

  /** How many bodies run. */
  get size(): number {
    return this.#members.size
  }

  /** Runs only while it has members. What is returned is to be given to `remove`. */
  add(member: Ticking): Place<Ticking> {
    this.#timer ??= setInterval(() => this.#goOn(), this.#everyMs / slices)
    return this.#members.add(member)
  }

  remove(place: Place<Ticking>): void {
    place.leave()
    if (this.#members.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** All of them at once. */
  beat(): void {
    const now = this.now()
    for (const member of this.#members) member.tick(now)
  }

  #goOn(): void {
    const now = this.now()
    const { size } = this.#members
    this.#due = Math.min(size, this.#due + size / slices)
    let workLeft = Math.max(workAtOnce, size * partAtOnce)
    let isNewRound = false
    for (; this.#due >= 1 && workLeft > 0; this.#due--) {
      let next = this.#round.next()
      if (next.done) {
        // Whoever came first in this slice has had its turn.
        if (isNewRound) return
        isNewRound = true
        this.#round = this.#members[Symbol.iterator]()
        next = this.#round.next()
        if (next.done) return
      }
      if (next.value.tick(now)) workLeft--
    }
  }
}
