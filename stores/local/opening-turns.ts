/**
 * Keeps processes that share an LMDB file out of each other's way while one of them opens it.
 *
 * The one idea: LMDB guards everything but that. Whoever opens a file writes into the memory shared by all which
 * transaction is the last one, as read a moment before; what others commit in that moment is written over, and the file
 * is broken. So a process opens when all the others stand still, by turns that their parent gives
 * (docs/decisions/opening-by-turns.md).
 */

export type FromOpener =
  /** It wants to open; it has opened, or could not. */
  | readonly ['wants']
  | readonly ['opened']
  /** No change of its runs, nor will any. */
  | readonly ['still', round: number]

export type ToOpener =
  /** It may open. */
  | readonly ['open']
  /** It is to begin no change, and to say when none runs; until it may go on. */
  | readonly ['stand', round: number]
  | readonly ['go-on']

/** What a process does with a file that others have open too. */
export interface Turns {
  /** Runs `open` when nobody else opens or changes anything. */
  opening<T>(open: () => T): Promise<T>
  /** Runs `change` when nobody opens. */
  changing<T>(change: () => Promise<T>): Promise<T>
}

/** For a process that has its files for itself. */
export const aloneWithIt: Turns = {
  opening: async (open) => open(),
  changing: (change) => change(),
}

/** The parent's part. */
export class OpeningTurns {
  /** Those that have opened something: what others are told before they listen is lost, and there is nothing to tell them. */
  readonly #open = new Set<OpeningPeer>()
  readonly #waiting: OpeningPeer[] = []
  /** Those that may still change something, in this round. */
  readonly #moving = new Set<OpeningPeer>()
  #opener: OpeningPeer | undefined
  /** So that no answer to an earlier question counts: its asker may have died. */
  #round = 0

  /** One for each process. */
  connect(send: (message: ToOpener) => void): OpeningPeer {
    return new OpeningPeer(this, send)
  }

  isOpening(peer: OpeningPeer): boolean {
    return this.#opener === peer
  }

  wants(peer: OpeningPeer): void {
    this.#waiting.push(peer)
    this.#next()
  }

  still(peer: OpeningPeer, round: number): void {
    if (round === this.#round) this.#stopped(peer)
  }

  opened(peer: OpeningPeer): void {
    this.#open.add(peer)
    this.#end(peer)
  }

  gone(peer: OpeningPeer): void {
    this.#open.delete(peer)
    for (let at = this.#waiting.indexOf(peer); at >= 0; at = this.#waiting.indexOf(peer))
      this.#waiting.splice(at, 1)
    this.#stopped(peer)
    this.#end(peer)
  }

  #next(): void {
    if (this.#opener !== undefined) return
    const opener = this.#waiting.shift()
    if (opener === undefined) return
    this.#opener = opener
    this.#round++
    for (const peer of this.#open) if (peer !== opener) this.#moving.add(peer)
    for (const peer of this.#moving) peer.send(['stand', this.#round])
    if (this.#moving.size === 0) opener.send(['open'])
  }

  #stopped(peer: OpeningPeer): void {
    if (this.#moving.delete(peer) && this.#moving.size === 0) this.#opener?.send(['open'])
  }

  #end(peer: OpeningPeer): void {
    if (this.#opener !== peer) return
    this.#opener = undefined
    this.#moving.clear()
    for (const other of this.#open) if (other !== peer) other.send(['go-on'])
    this.#next()
  }
}

/** One process as its parent sees it. */
export class OpeningPeer {
  readonly #turns: OpeningTurns
  readonly send: (message: ToOpener) => void

  constructor(turns: OpeningTurns, send: (message: ToOpener) => void) {
    this.#turns = turns
    this.send = send
  }

  /** All others stand still for it. */
  get isOpening(): boolean {
    return this.#turns.isOpening(this)
  }

  receive(message: FromOpener): void {
    if (message[0] === 'wants') this.#turns.wants(this)
    else if (message[0] === 'opened') this.#turns.opened(this)
    else this.#turns.still(this, message[1])
  }

  /** The process has exited, and none of its threads runs any more. */
  gone(): void {
    this.#turns.gone(this)
  }
}

/** The part of one of the processes. */
export class WorkerTurns implements Turns {
  readonly #send: (message: FromOpener) => void
  readonly #granted: (() => void)[] = []
  #changes = 0
  /** In which it stands still. */
  #round: number | undefined
  readonly #waiting: (() => void)[] = []

  /** `send` takes messages to the parent, in order; its own are given to `receive`. */
  constructor(send: (message: FromOpener) => void) {
    this.#send = send
  }

  async opening<T>(open: () => T): Promise<T> {
    await new Promise<void>((resolve) => {
      this.#granted.push(resolve)
      this.#send(['wants'])
    })
    try {
      return open()
    } finally {
      this.#send(['opened'])
    }
  }

  async changing<T>(change: () => Promise<T>): Promise<T> {
    while (this.#round !== undefined) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#changes++
    try {
      return await change()
    } finally {
      if (--this.#changes === 0) this.#sayStill()
    }
  }

  receive([is, round]: ToOpener): void {
    if (is === 'open') this.#granted.shift()?.()
    else if (is === 'stand') {
      this.#round = round
      if (this.#changes === 0) this.#sayStill()
    } else {
      this.#round = undefined
      for (const resolve of this.#waiting.splice(0)) resolve()
    }
  }

  #sayStill(): void {
    if (this.#round !== undefined) this.#send(['still', this.#round])
  }
}
