/**
 * Has the garbage of bodies collected while it is cheap. Node copies every piece of a body into a buffer of its own, outside
 * the heap; V8 then sees a heap that hardly grows and memory that does, and marks the whole heap every 20 MiB. A collection
 * of the young generation frees the same buffers for a tenth of that, but is only due when the young heap is full.
 */
import v8 from 'node:v8'
import vm from 'node:vm'

/** Well before V8 begins to mark; measured in docs/decisions/garbage-of-bodies.md. */
const everyBytes = 8 * 1024 * 1024

let received = 0
let collect: ((options: { type: 'minor' }) => void) | undefined

/** To be told of every piece of a body. */
export function noteReceived(bytes: number): void {
  received += bytes
  if (received < everyBytes) return
  received = 0
  collect ??= minorCollection()
  collect({ type: 'minor' })
}

/** What `node --expose-gc` gives to programs. Where it can not be had nothing is lost but speed. */
function minorCollection(): (options: { type: 'minor' }) => void {
  try {
    v8.setFlagsFromString('--expose-gc')
    const gc: unknown = vm.runInNewContext('gc')
    v8.setFlagsFromString('--no-expose-gc')
    if (typeof gc === 'function') return gc as (options: { type: 'minor' }) => void
  } catch {
    // Another engine.
  }
  return () => {}
}
