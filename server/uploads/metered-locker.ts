/** A locker that says how long requests had to wait for their uploads, and how many were taken from somebody. */
import type { Locker } from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'

export function metered(locker: Locker, meter: Meter): Pick<Locker, 'acquire' | 'untilFree'> {
  return {
    async acquire(id, options) {
      const lock = await meter.lockWaits.time(() => locker.acquire(id, options))
      if (lock.isTakeOver) meter.takeOvers++
      return lock
    },
    untilFree: (id, options) => meter.lockWaits.time(() => locker.untilFree(id, options)),
  }
}
