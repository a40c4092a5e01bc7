/** What uploads are made of: one random pattern, made once, that repeats; each upload begins at another place in it. */
import { createHash, randomFillSync } from 'node:crypto'

const patternBytes = 8 * 1024 * 1024
const sliceBytes = 1024 * 1024

/** The pattern, and its beginning once more, so that every slice of up to 1 MiB is one piece. */
const pattern = Buffer.allocUnsafeSlow(patternBytes + sliceBytes)
randomFillSync(pattern, 0, patternBytes)
pattern.copy(pattern, patternBytes, 0, sliceBytes)

export class Content {
  readonly #phase: number

  /** @param seed uploads of different seeds differ from their first bytes on */
  constructor(seed: number) {
    this.#phase = (seed * 65_537) % patternBytes
  }

  /** At most 1 MiB, without a copy. */
  slice(from: number, to: number): Buffer {
    if (to - from > sliceBytes) throw new RangeError('a slice has 1 MiB at the most')
    const at = (this.#phase + from) % patternBytes
    return pattern.subarray(at, at + to - from)
  }

  /** The SHA-256 of its first `length` bytes, as hex. */
  digest(length: number): string {
    const hash = createHash('sha256')
    for (let at = 0; at < length; at += sliceBytes)
      hash.update(this.slice(at, Math.min(length, at + sliceBytes)))
    return hash.digest('hex')
  }
}
