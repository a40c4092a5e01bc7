/**
 * Asks all workers for what they have counted, and gives the answers of those that give one in time. What a worker had
 * counted when it was last asked stays when it is gone: counts of a server never go down while it runs.
 */
import { countsOf, type Measured } from '../metrics/metrics.ts'

/** A worker that hangs must not keep the numbers of the others from being read. */
const patienceMs = 2_000

interface Round<M> {
  readonly waiting: Set<M>
  readonly got: (readonly Measured[])[]
  readonly end: () => void
}

export class Gathering<M extends object> {
  readonly #ask: (member: M, round: number) => void
  readonly #rounds = new Map<number, Round<M>>()
  readonly #last = new Map<M, readonly Measured[]>()
  #departed: (readonly Measured[])[] = []
  #count = 0

  constructor(ask: (member: M, round: number) => void) {
    this.#ask = ask
  }

  async gather(members: Iterable<M>): Promise<(readonly Measured[])[]> {
    const number = ++this.#count
    const waiting = new Set(members)
    const got: (readonly Measured[])[] = []
    await new Promise<void>((resolve) => {
      const tooLate = setTimeout(resolve, patienceMs)
      const end = () => {
        clearTimeout(tooLate)
        resolve()
      }
      this.#rounds.set(number, { waiting, got, end })
      if (waiting.size === 0) end()
      for (const member of waiting) this.#ask(member, number)
    })
    this.#rounds.delete(number)
    // Who does not answer is still counted with what it said before.
    const silent = [...waiting].map((member) => this.#last.get(member)).filter((last) => last !== undefined)
    if (this.#departed.length > 1) this.#departed = [await countsOf(this.#departed)]
    return [...got, ...silent.map(withoutGauges), ...this.#departed]
  }

  hear(member: M, number: number, measured: readonly Measured[]): void {
    this.#last.set(member, measured)
    const round = this.#rounds.get(number)
    if (!round?.waiting.delete(member)) return
    round.got.push(measured)
    if (round.waiting.size === 0) round.end()
  }

  gone(member: M): void {
    const last = this.#last.get(member)
    if (last) this.#departed.push(withoutGauges(last))
    this.#last.delete(member)
    for (const round of this.#rounds.values())
      if (round.waiting.delete(member) && round.waiting.size === 0) round.end()
  }
}

function withoutGauges(measured: readonly Measured[]): readonly Measured[] {
  return measured.filter(({ type }) => type !== 'gauge')
}
