// Chance that can be had again: everything random in a test comes from one seed, which a failure shows.

import { createHash } from 'node:crypto'
import { onTestFailed } from 'vitest'

/** `TEST_SEED=1 npx vitest run test/faults` tries other cases. */
export const seed = Number(process.env.TEST_SEED ?? 20_260_728)

/** A row of numbers that is the same for the same seed and name. */
export type Chance = {
  /** In [0, 1). */
  next: () => number
  /** A whole number, both ends included. */
  between: (least: number, most: number) => number
  pick: <T>(values: readonly T[]) => T
}

/** @param name keeps rows of one seed apart */
export function chance(name: string): Chance {
  let state = createHash('sha256').update(`${seed} ${name}`).digest().readUInt32LE(0)
  // Mulberry32: 32 bits of state are plenty for choosing moments.
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const between = (least: number, most: number) => least + Math.floor(next() * (most - least + 1))
  return { next, between, pick: (values) => values[between(0, values.length - 1)]! }
}

/** For use inside a test: when it fails, says how to try the same again. */
export function showSeedOnFailure(): void {
  onTestFailed(() => console.error(`TEST_SEED=${seed} tries the same again.`))
}
