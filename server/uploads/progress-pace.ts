/** When one body is worth a word: at most once in an interval, and at its end, if that was not told yet. */
export class ProgressPace {
  readonly #everyMs: number
  #toldAt = performance.now()
  #toldOffset: number | undefined

  constructor(everyMs: number) {
    this.#everyMs = everyMs
  }

  /** Whether `offset` is to be told now; then it counts as told. */
  isDue(offset: number, hasEnded: boolean): boolean {
    const now = performance.now()
    const isDue = hasEnded ? offset !== this.#toldOffset : now - this.#toldAt >= this.#everyMs
    if (!isDue) return false
    this.#toldAt = now
    this.#toldOffset = offset
    return true
  }
}
