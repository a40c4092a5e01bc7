import { expect, it } from 'vitest'
import { ReturnRate } from '../../server/uploads/return-rate.ts'

/** How many of a hundred would be kept. */
function kept(rate: ReturnRate): number {
  return Array.from({ length: 100 }, () => rate.pays()).filter(Boolean).length
}

it('keeps all at first, and where at least half come back', () => {
  const rate = new ReturnRate()
  expect(kept(rate)).toBe(100)
  for (let n = 0; n < 1000; n++) {
    rate.came()
    rate.stayedAway()
  }
  expect(kept(rate)).toBe(100)
})

it('keeps one of sixteen where nobody comes, and all again when they do', () => {
  const rate = new ReturnRate()
  for (let n = 0; n < 1000; n++) rate.stayedAway()
  expect(kept(rate)).toBe(6)
  for (let n = 0; n < 300; n++) rate.came()
  expect(kept(rate)).toBe(100)
})
