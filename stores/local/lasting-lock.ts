/**
 * A lock that can not be lost: who keeps the locks gives it to nobody else before its holder lets go or is gone. So there
 * is no lease, nothing is renewed, and `lost` never aborts.
 */
import type { Lock } from '../contracts.ts'

export class LastingLock implements Lock {
  readonly id: string
  readonly fence: number
  readonly isTakeOver: boolean
  readonly lost = neverLost()
  readonly mayStay = true
  #onWanted: (() => void) | undefined
  #release: ((how: 'unused' | undefined) => void) | undefined

  constructor(
    of: Pick<Lock, 'id' | 'fence' | 'isTakeOver'>,
    onWanted: (() => void) | undefined,
    release: (how: 'unused' | undefined) => void,
  ) {
    this.id = of.id
    this.fence = of.fence
    this.isTakeOver = of.isTakeOver
    this.#onWanted = onWanted
    this.#release = release
  }

  isHeld(): boolean {
    return this.#release !== undefined
  }

  async release(how?: 'unused'): Promise<void> {
    const release = this.#release
    this.#release = undefined
    release?.(how)
  }

  /** Tells the holder, once. Not within the call that brought the wish: what the holder throws is not for who asks. */
  want(): void {
    const onWanted = this.#onWanted
    if (onWanted === undefined) return
    this.#onWanted = undefined
    queueMicrotask(() => {
      if (this.isHeld()) onWanted()
    })
  }
}

let never: AbortSignal | undefined

/**
 * One signal for all locks, made once: a controller for each would be the dearest part of an acquisition. It never
 * aborts, so it keeps no listener either, and a holder who forgets to remove one leaks nothing.
 */
function neverLost(): AbortSignal {
  if (never === undefined) {
    never = new AbortController().signal
    never.addEventListener = () => {}
  }
  return never
}
