/**
 * What the page says about the connection. While an upload waits for its next try, Uppy still shows "Uploading, 7 s
 * left"; so the page says itself that nothing moves, and takes it back with the first answer that shows otherwise.
 */
import { byId } from './dom.ts'

export type Trouble = 'unreachable' | 'busy' | 'waiting'

const sentences: Record<Trouble, string> = {
  unreachable: 'Connection lost; trying again...',
  busy: 'The server is busy; trying again...',
  waiting: 'Waiting; trying again...',
}

export class ConnectionBanner {
  readonly #troubles = new Map<string, Trouble>()
  /** Why the server lets people wait, in its own words. */
  #said = ''
  readonly #banner = byId('banner')

  /** A request to this URL failed and will be tried again. */
  failed(url: string, trouble: Trouble, said = ''): void {
    if (trouble === 'waiting') this.#said = said
    this.#troubles.set(url, trouble)
    this.#render()
  }

  /** A request to this URL was answered. Then the server can be reached, for all the others too. */
  answered(url: string): void {
    this.#troubles.delete(url)
    for (const [other, trouble] of this.#troubles) {
      if (trouble === 'unreachable') this.#troubles.delete(other)
    }
    this.#render()
  }

  /** Nobody tries anything any more: paused, cancelled, failed or finished. */
  idle(): void {
    this.#troubles.clear()
    this.#render()
  }

  #render(): void {
    const [first] = this.#troubles.values()
    const said = first === 'waiting' && this.#said !== '' ? `Waiting: ${this.#said}` : undefined
    this.#banner.textContent = said ?? (first === undefined ? '' : sentences[first])
    this.#banner.dataset.trouble = first ?? ''
  }
}
