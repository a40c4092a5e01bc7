/**
 * How long people wait, for all files that they send together, until it is known what the server has already. Hashing
 * is many times faster than most lines, but nobody looks at a page for long in which nothing is sent.
 */
export const hashingAtMostMs = 60_000

/** A pace can not be told from the first slices. */
const paceAfterMs = 1000

/** Whether a file is hashed in time, after `readBytes` of it took `tookMs`. */
export function isInTime(
  sizeBytes: number,
  { readBytes, tookMs, leftMs }: { readBytes: number; tookMs: number; leftMs: number },
): boolean {
  if (leftMs <= 0) return false
  if (tookMs < paceAfterMs) return true
  return ((sizeBytes - readBytes) / readBytes) * tookMs <= leftMs
}
