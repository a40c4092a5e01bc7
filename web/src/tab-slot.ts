/**
 * Each open tab keeps its files under a name of its own. Otherwise a second tab would take the files of the first for
 * those of a killed browser, and both would send the same upload. The name is a lock of the browser, which ends with
 * its tab, however it ends: a tab that is opened after a kill finds the first name free, and goes on with its files.
 */
const remembered = 'tidemark:tab'
const reloadPatienceMs = 1000
const slotsAtMost = 100

export async function takeTabSlot(): Promise<number> {
  // Locks need https or localhost. Elsewhere all tabs share one name.
  if (!navigator.locks) return 0
  const before = readRemembered()
  // On a reload the page that goes may hold its lock for another moment.
  if (before !== null && (await holds(before, { signal: AbortSignal.timeout(reloadPatienceMs) })))
    return before
  for (let slot = 0; slot < slotsAtMost; slot += 1) {
    if (await holds(slot, { ifAvailable: true })) return slot
  }
  return slotsAtMost
}

/** Resolves as soon as it is known; the lock itself is kept until the tab is gone. */
function holds(slot: number, options: LockOptions): Promise<boolean> {
  return new Promise((resolve) => {
    navigator.locks
      .request(`tidemark:tab-${slot}`, options, (lock) => {
        resolve(lock !== null)
        if (lock === null) return
        remember(slot)
        return new Promise(() => {})
      })
      .catch(() => resolve(false))
  })
}

function readRemembered(): number | null {
  try {
    const slot = sessionStorage.getItem(remembered)
    return slot === null ? null : Number(slot)
  } catch {
    return null
  }
}

function remember(slot: number): void {
  try {
    sessionStorage.setItem(remembered, String(slot))
  } catch {
    // Without storage there is nothing to find again either.
  }
}
