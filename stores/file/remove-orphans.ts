/** Removes what creations, removals and take-overs that were cut off left in the folder, each in its own order. */
import type { FileLayout } from './file-layout.ts'
import { type FileSystem, removeFile } from './file-system.ts'
import { findOrphans } from './orphans.ts'
import { withdraw } from './published.ts'
import type { Removal } from './removal.ts'

export interface RemoveOrphansParts {
  readonly fileSystem: FileSystem
  readonly layout: FileLayout
  readonly removal: Removal
  /** Forgets the ties of an upload. */
  readonly forget: (id: string) => Promise<void>
  readonly now: number
}

/** How many there were. */
export async function removeOrphans(
  { fileSystem, layout, removal, forget, now }: RemoveOrphansParts,
  olderThanMs: number,
): Promise<number> {
  let removed = 0
  for await (const orphan of findOrphans(fileSystem, layout, olderThanMs, now)) {
    if (orphan.is === 'upload') {
      const { id, head, slot, generation, highest } = orphan
      // A removal that was cut off may have come no further than its own generation.
      if (generation > 0) await removal.bury(id, slot)
      await forget(id)
      for (let n = highest; n >= 0; n--) await withdraw(layout, head, n)
      await removal.removeFiles(id, highest)
    } else await removeFile(fileSystem, orphan.file)
    removed++
  }
  return removed
}
