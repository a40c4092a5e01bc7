/**
 * Whether clients come back for what is kept open for them. Where they mostly do not, because a balancer sends each request
 * to another server, or because nobody sends what was created, keeping costs more than it gives.
 */

/** So many may stay away before any has come. */
const startingCredit = 32
/** What happened so many visits ago counts half. */
const remembered = 256
/** Where it does not pay one of so many is kept, to see whether it does by now. */
const oneOf = 16

export class ReturnRate {
  #came = 0
  #stayedAway = 0
  #asked = 0

  came(): void {
    this.#came++
    this.#fade()
  }

  stayedAway(): void {
    this.#stayedAway++
    this.#fade()
  }

  /** Whether the next one is to be kept. */
  pays(): boolean {
    return this.#stayedAway <= this.#came + startingCredit || ++this.#asked % oneOf === 0
  }

  #fade(): void {
    if (this.#came + this.#stayedAway < remembered) return
    this.#came /= 2
    this.#stayedAway /= 2
  }
}
