/** One timer for all running bodies of a process: it moves their checkpoints, and notices the silent ones. */
export interface Ticking {
  tick(now: number): void
}

export class Pulse {
  readonly #members = new Set<Ticking>()
  readonly #everyMs: number
  readonly now: () => number
  #timer: NodeJS.Timeout | undefined

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

  /** Runs only while it has members. */
  add(member: Ticking): void {
    this.#members.add(member)
    this.#timer ??= setInterval(() => this.beat(), this.#everyMs)
  }

  remove(member: Ticking): void {
    this.#members.delete(member)
    if (this.#members.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  beat(): void {
    const now = this.now()
    for (const member of this.#members) member.tick(now)
  }
}
