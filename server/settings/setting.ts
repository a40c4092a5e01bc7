/** A row of the table of settings, and how the files of its groups write one. */
import type { Kind } from '../setting-kinds.ts'

export interface Setting<T> {
  readonly group: string
  /** Without dashes; the variable is made from it: `max-size`, `TIDEMARK_MAX_SIZE`. */
  readonly flag: string
  readonly kind: Kind<T>
  readonly default: string
  /** What the default means, where its text does not say it. */
  readonly defaultSays?: string
  readonly sentence: string
}

/** Writes rows of one group. */
export const defineIn =
  (group: string) =>
  <T>(setting: Omit<Setting<T>, 'group'>): Setting<T> => ({ group, ...setting })
