/**
 * The way of the bytes: from a request's stream into the store, in batches, without ever holding more than two of them.
 *
 * The one idea: chunks are collected as they come and written with one positional writev per batch; what counts is the
 * contiguous prefix of writes that have returned. Checkpoints move the mark there, by time and by bytes.
 */
import type { Readable } from 'node:stream'
import type { Place } from '../../stores/passing.ts'
import type { Pulse, Ticking } from './pulse.ts'
import { giveBack, isHeardBy } from './spent-pieces.ts'

const batchBytes = 1024 * 1024
/** Batches shrink to this while the process as a whole holds too much. */
const batchBytesUnderPressure = 64 * 1024
const pressureBytes = 48 * 1024 * 1024
/** Smaller chunks are copied together, so that a client of one-byte chunks costs no more than its bytes. */
const smallChunkBytes = 4 * 1024
const smallBlockBytes = 16 * 1024
/** The first block of a batch; that of a slow body is the only one, and there may be ten thousand of them. */
const firstBlockBytes = 512
const checkpointBytes = 8 * 1024 * 1024
const checkpointMs = 1000
/** With more than a thousand bodies checkpoints are further apart: a thousand of them a second are enough work. */
const checkpointMsPerBody = 1

export type StopReason = 'displaced' | 'drain' | 'lease-lost' | 'unauthorized' | 'unwanted'

/**
 * How a body ended, and `offset`, the end of the contiguous prefix that was written.
 * - `complete`: the client sent all it wanted to
 * - `overflow`: it sent more than `endLimit` allows; what is beyond was not written
 * - `client-gone`, `idle`: it went away, or sent nothing, or too little, for too long
 * - `stopped`: somebody here asked for it
 * - `failed`: the store could not take it
 */
export type Ended = { readonly offset: number } & (
  | { readonly why: 'complete' | 'overflow' | 'client-gone' | 'idle' }
  | { readonly why: 'stopped'; readonly reason: StopReason }
  | { readonly why: 'failed'; readonly error: unknown }
)

export interface ReceiverOptions {
  readonly source: Readable
  readonly pulse: Pulse
  /** Offset of the first byte of the body in the upload. */
  readonly offset: number
  /** The body may not reach beyond this offset; Infinity when there is no limit. */
  readonly endLimit: number
  /** Writes at a position; called one at a time. */
  readonly write: (buffers: readonly Uint8Array[], position: number) => Promise<void>
  /**
   * Gives the memory of every piece back when its write returned, unless somebody else listens too. For pieces in memory of
   * their own, and a store that does not refer to them any more then.
   */
  readonly freesPieces?: boolean
  /** Moves the mark; called one at a time. Undefined when nothing may count before the end. */
  readonly checkpoint?: (offset: number) => Promise<void>
  /** Sees every byte that is written, in order. */
  readonly digest?: { update(bytes: Uint8Array): void }
  /** A body without a byte for this long is ended. */
  readonly idleMs: number
  /** A body with less on average is ended once it has lasted `idleMs`. 0 switches it off. */
  readonly leastBytesPerSecond: number
}

/** Bytes that all receivers of this process hold in memory. */
let heldBytes = 0

export class Receiver {
  readonly #options: ReceiverOptions
  readonly done: Promise<Ended>
  #settle!: (ended: Ended) => void

  #batch: Buffer[] = []
  #batchBytes = 0
  /** The last buffer of the batch while small chunks are copied into it. */
  #block: Buffer | undefined
  #blockUsed = 0

  #accepted: number
  #written: number
  #marked: number
  #markedAt: number
  #isWriting = false
  #isMarking = false
  #isPaused = false
  #freesPieces: boolean
  /** Set once no more bytes are taken; the receiver then only writes out what it has. */
  #ending: Ended | undefined
  readonly #place: Place<Ticking>
  readonly #startedAt: number
  #lastByteAt: number

  constructor(options: ReceiverOptions) {
    this.#options = options
    const { source, offset, pulse } = options
    this.#accepted = offset
    this.#written = offset
    this.#marked = offset
    this.#startedAt = pulse.now()
    this.#lastByteAt = this.#startedAt
    this.#markedAt = this.#startedAt
    this.done = new Promise((resolve) => {
      this.#settle = resolve
    })
    source.on('data', this.#onData)
    this.#freesPieces = options.freesPieces === true && isHeardBy(1, source)
    source.on('end', this.#onEnd)
    source.on('error', this.#onGone)
    source.on('close', this.#onGone)
    this.#place = pulse.add(this)
    if (source.destroyed && !source.readableEnded) this.#onGone()
  }

  /** When the last byte arrived, on the pulse's clock. */
  get lastByteAt(): number {
    return this.#lastByteAt
  }

  /** Bytes of this body that were taken so far. */
  get receivedBytes(): number {
    return this.#accepted - this.#options.offset
  }

  /** Ends the body at the last byte received; what came is written, unless the right to write is lost. */
  stop(reason: StopReason): void {
    if ((reason === 'lease-lost' || reason === 'unwanted') && !this.#ending) this.#discard()
    this.#end({ why: 'stopped', reason, offset: 0 })
  }

  /** Called about twice a second. */
  tick(now: number): boolean {
    if (this.#ending) return false
    const isFlush = this.#batchBytes > 0 && !this.#isWriting && this.#isCheckpointTime(now)
    if (isFlush) this.#flush()
    const madeWork = isFlush || this.#markIfDue(now)
    if (this.#isPaused) {
      // We keep the client waiting, not the client us.
      this.#lastByteAt = now
      return madeWork
    }
    const { idleMs, leastBytesPerSecond } = this.#options
    const lastedMs = now - this.#startedAt
    const isSilent = now - this.#lastByteAt >= idleMs
    const isTooSlow = lastedMs >= idleMs && this.receivedBytes < (leastBytesPerSecond * lastedMs) / 1000
    if (isSilent || isTooSlow) this.#end({ why: 'idle', offset: 0 })
    return madeWork
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#ending) return
    if (this.#freesPieces) this.#freesPieces = isHeardBy(1, this.#options.source)
    this.#lastByteAt = this.#options.pulse.now()
    const room = this.#options.endLimit - this.#accepted
    const taken = chunk.length <= room ? chunk : chunk.subarray(0, room)
    this.#collect(taken)
    if (taken.length < chunk.length) {
      this.#end({ why: 'overflow', offset: 0 })
      return
    }
    if (this.#batchBytes < this.#target()) return
    if (this.#isWriting) this.#pause()
    else this.#flush()
  }

  readonly #onEnd = (): void => this.#end({ why: 'complete', offset: 0 })

  readonly #onGone = (): void => this.#end({ why: 'client-gone', offset: 0 })

  #collect(chunk: Buffer): void {
    this.#accepted += chunk.length
    this.#batchBytes += chunk.length
    heldBytes += chunk.length
    if (chunk.length >= smallChunkBytes) {
      this.#closeBlock()
      this.#batch.push(chunk)
      return
    }
    if (this.#block === undefined || this.#blockUsed + chunk.length > this.#block.length) {
      this.#closeBlock()
      const isFirst = this.#batch.length === 0 && chunk.length <= firstBlockBytes
      this.#block = Buffer.allocUnsafeSlow(isFirst ? firstBlockBytes : smallBlockBytes)
      this.#blockUsed = 0
    }
    chunk.copy(this.#block, this.#blockUsed)
    this.#blockUsed += chunk.length
  }

  #closeBlock(): void {
    if (this.#block && this.#blockUsed > 0) this.#batch.push(this.#block.subarray(0, this.#blockUsed))
    this.#block = undefined
    this.#blockUsed = 0
  }

  #discard(): void {
    heldBytes -= this.#batchBytes
    this.#batchBytes = 0
    this.#batch = []
    this.#block = undefined
    this.#blockUsed = 0
  }

  #target(): number {
    return heldBytes > pressureBytes ? batchBytesUnderPressure : batchBytes
  }

  #flush(): void {
    this.#closeBlock()
    const buffers = this.#batch
    const bytes = this.#batchBytes
    if (this.#options.digest) for (const buffer of buffers) this.#options.digest.update(buffer)
    this.#batch = []
    this.#batchBytes = 0
    this.#isWriting = true
    this.#options.write(buffers, this.#written).then(
      () => {
        if (this.#freesPieces) giveBack(buffers)
        this.#onWritten(bytes)
      },
      (error: unknown) => this.#onWriteFailed(error, bytes),
    )
  }

  #onWritten(bytes: number): void {
    this.#isWriting = false
    heldBytes -= bytes
    this.#written += bytes
    if (this.#ending) {
      this.#finishWhenWritten()
      return
    }
    this.#markIfDue(this.#options.pulse.now())
    if (this.#batchBytes >= this.#target()) this.#flush()
    this.#resume()
  }

  #onWriteFailed(error: unknown, bytes: number): void {
    this.#isWriting = false
    heldBytes -= bytes
    this.#fail(error)
  }

  #fail(error: unknown): void {
    this.#detach()
    this.#discard()
    this.#ending = { why: 'failed', error, offset: 0 }
    this.#finishWhenWritten()
  }

  #isCheckpointTime(now: number): boolean {
    const waitMs = Math.max(checkpointMs, this.#options.pulse.size * checkpointMsPerBody)
    return now - this.#markedAt >= waitMs
  }

  #markIfDue(now: number): boolean {
    const { checkpoint } = this.#options
    if (!checkpoint || this.#isMarking || this.#ending || this.#written === this.#marked) return false
    const isDue = this.#written - this.#marked >= checkpointBytes || this.#isCheckpointTime(now)
    if (!isDue) return false
    const offset = this.#written
    this.#isMarking = true
    checkpoint(offset).then(
      () => {
        this.#isMarking = false
        this.#marked = offset
        this.#markedAt = this.#options.pulse.now()
        if (this.#ending) this.#finishWhenWritten()
      },
      (error: unknown) => {
        this.#isMarking = false
        this.#fail(error)
      },
    )
    return true
  }

  #end(ending: Ended): void {
    if (this.#ending) return
    this.#detach()
    this.#ending = ending
    this.#finishWhenWritten()
  }

  #finishWhenWritten(): void {
    if (this.#isWriting || this.#isMarking) return
    if (this.#batchBytes > 0) this.#flush()
    else this.#settle({ ...this.#ending!, offset: this.#written })
  }

  #pause(): void {
    this.#isPaused = true
    this.#options.source.pause()
  }

  #resume(): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    this.#options.source.resume()
  }

  #detach(): void {
    const { source, pulse } = this.#options
    source.off('data', this.#onData)
    source.off('end', this.#onEnd)
    source.off('close', this.#onGone)
    source.off('error', this.#onGone)
    source.on('error', ignore) // The client may still go away while its answer is made.
    source.pause()
    pulse.remove(this.#place)
  }
}

function ignore(): void {}
