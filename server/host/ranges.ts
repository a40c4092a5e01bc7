/**
 * `Range`: which bytes a request wants (RFC 9110, 14). Pure.
 *
 * Ranges that touch or overlap are sent as one, and one that asks for too many is answered with the whole: so no
 * request gets more bytes than there are, nor makes more work than a download does (14.2, 17.15).
 */
import rangeParser from 'range-parser'

/** First and last byte, both included. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** Each costs an open file while it is sent. */
export const mostRanges = 16
const longestHeader = 2048

/** `whole` for what is no range of bytes, or too much of one: servers may ignore the header. */
export function parseRange(header: string, size: number): readonly ByteRange[] | 'whole' | 'unsatisfiable' {
  if (header.length > longestHeader || !/^bytes=/i.test(header)) return 'whole'
  // A suffix that is longer than what is there means all of it (14.1.2); the parser has it for a range without bytes.
  const text = header.replace(/([=,]\s*)-(\d+)/g, (suffix, before: string, length: string) =>
    Number(length) > size ? `${before}0-` : suffix,
  )
  const ranges = rangeParser(size, text, { combine: true })
  if (ranges === -1) return 'unsatisfiable'
  if (ranges === -2 || ranges.length > mostRanges) return 'whole'
  return ranges
}
