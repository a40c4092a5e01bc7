/** Which uploads stand in lists, and in which order. */
import type { ListPlace, UploadHead } from './contracts.ts'

/** Parts are shown with their final. */
export function isListed(head: UploadHead): boolean {
  return head.concat === undefined || head.parts !== undefined
}

/** Whether `a` stands behind `b`: created earlier, or at the same time with a lower id, byte by byte. */
export function isBehind(a: ListPlace, b: ListPlace): boolean {
  return a[0] === b[0] ? Buffer.compare(Buffer.from(a[1]), Buffer.from(b[1])) < 0 : a[0] < b[0]
}
