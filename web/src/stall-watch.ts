/**
 * Notices connections that died without a word (a router that forgot them, a cable, a train in a tunnel). The browser
 * would wait for such a one for many minutes; after half a minute without a byte its upload is begun again from what
 * the server has. A false alarm costs one HEAD request.
 */
const patienceMs = 30_000
const lookEveryMs = 5_000

export class StallWatch {
  readonly #movedAtMs = new Map<string, number>()
  readonly #onStalled: (fileId: string) => void

  constructor(onStalled: (fileId: string) => void) {
    this.#onStalled = onStalled
  }

  start(): void {
    setInterval(() => this.#look(performance.now()), lookEveryMs)
  }

  /** A request for this file was begun, or has sent something. */
  moved(fileId: string): void {
    this.#movedAtMs.set(fileId, performance.now())
  }

  /** Nothing is to be expected for this file: it has sent all, was paused, or is gone. */
  ended(fileId: string): void {
    this.#movedAtMs.delete(fileId)
  }

  #look(nowMs: number): void {
    for (const [fileId, movedAtMs] of this.#movedAtMs) {
      if (nowMs - movedAtMs < patienceMs) continue
      this.#movedAtMs.set(fileId, nowMs)
      this.#onStalled(fileId)
    }
  }
}
