/** A locker that says how long requests had to wait for their uploads, and how many were taken from somebody. */
import type { Lock, Locker } from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'

export function metered(locker: Locker, meter: Meter): Pick<Locker, 'acquire' | 'untilFree'> {
  /** One promise more for each request, and no other work. */
  function waited<T>(wait: Promise<T>, onEnd?: (result: T) => void): Promise<T> {
    const startedAt = performance.now()
    const add = () => meter.lockWaits.add(performance.now() - startedAt)
    return wait.then(
      (result) => {
        add()
        onEnd?.(result)
        return result
      },
      (error: unknown) => {
        add()
        throw error
      },
    )
  }
  const onLock = ({ isTakeOver }: Lock) => {
    if (isTakeOver) meter.takeOvers++
  }
  return {
    acquire: (id, options) => waited(locker.acquire(id, options), onLock),
    untilFree: (id, options) => waited(locker.untilFree(id, options)),
  }
}
