/**
 * Gives the memory of a body back as soon as its bytes are written, and not when the garbage collector comes by.
 *
 * Node copies every piece of a body, 64 KiB, into memory of its own, outside the heap. V8 sees a heap that hardly grows and
 * memory that does; so it comes late, or marks the whole heap for it, and memory that was just written never is
 * what the next piece is read into. What it costs is in docs/decisions/garbage-of-bodies.md.
 */
import type { Readable } from 'node:stream'
import { MessageChannel } from 'node:worker_threads'

/** Smaller ones cost less than giving them back. */
const leastBytes = 16 * 1024

/** Whom nobody hears: what is handed over to it is gone at once. */
const { port1: nobody, port2: listener } = new MessageChannel()
listener.close()

/** Whether nobody but so many is given what comes of this body. */
export function isHeardBy(count: number, body: Readable): boolean {
  return body.listenerCount('data') === count && body.listenerCount('readable') === 0
}

/** Frees their memory; they have no bytes afterwards. A piece that is only a part of its memory is left as it is. */
export function giveBack(pieces: readonly Uint8Array[]): void {
  const spent: ArrayBuffer[] = []
  for (const { buffer, byteLength } of pieces)
    if (byteLength >= leastBytes && byteLength === buffer.byteLength) spent.push(buffer as ArrayBuffer)
  if (spent.length === 0) return
  try {
    nobody.postMessage(undefined, spent)
  } catch {
    // Memory that can not be handed over; the garbage collector takes it.
  }
}
