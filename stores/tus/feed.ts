/**
 * The body that a @tus store reads: what is put in comes out, and whoever puts waits until the store has read most of
 * what came before. So a slow store slows the client down, and nothing piles up here.
 */
import { Readable } from 'node:stream'

const heldBytes = 256 * 1024

export class Feed extends Readable {
  #wake: (() => void) | undefined

  constructor() {
    super({ highWaterMark: heldBytes })
    // The store may have stopped listening; its own promise says how it went.
    this.on('error', () => undefined)
  }

  /** Resolves when there is room for more; false when nobody reads any more. */
  async put(bytes: Uint8Array): Promise<boolean> {
    if (this.destroyed) return false
    if (!this.push(bytes))
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    return !this.destroyed
  }

  /** Nothing more comes; the store reads what is left. */
  end(): void {
    if (!this.destroyed) this.push(null)
  }

  override _read(): void {
    this.#wakeUp()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#wakeUp()
    callback(error)
  }

  #wakeUp(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }
}
