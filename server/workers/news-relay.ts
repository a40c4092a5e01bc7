/**
 * News of records between workers, which share a database but no memory: each says whether it wants to hear, and is told
 * whether another one does. While none does, nothing is sent.
 */
import type { RecordNews } from '../../stores/contracts.ts'

/** One worker. */
export interface NewsPeer {
  say(message: { is: 'wants-news'; isWanted: boolean } | { is: 'news'; news: readonly RecordNews[] }): void
}

export class NewsRelay {
  readonly #peers = new Map<NewsPeer, { wants: boolean; isTold: boolean }>()

  add(peer: NewsPeer): void {
    this.#peers.set(peer, { wants: false, isTold: false })
    this.#tellWishes()
  }

  remove(peer: NewsPeer): void {
    this.#peers.delete(peer)
    this.#tellWishes()
  }

  want(peer: NewsPeer, isWanted: boolean): void {
    const state = this.#peers.get(peer)
    if (state === undefined) return
    state.wants = isWanted
    this.#tellWishes()
  }

  pass(from: NewsPeer, news: readonly RecordNews[]): void {
    for (const [peer, { wants }] of this.#peers) if (wants && peer !== from) peer.say({ is: 'news', news })
  }

  #tellWishes(): void {
    const wanting = [...this.#peers].filter(([, { wants }]) => wants).map(([peer]) => peer)
    for (const [peer, state] of this.#peers) {
      const isWanted = wanting.some((other) => other !== peer)
      if (isWanted === state.isTold) continue
      state.isTold = isWanted
      peer.say({ is: 'wants-news', isWanted })
    }
  }
}
