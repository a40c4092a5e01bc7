/**
 * A form is sent again from its beginning. What is kept of a file is compared with what comes, and not written again; so
 * the upload goes on where it stopped, and another file of the same name is known by its first byte that differs.
 */
import type { Readable } from 'node:stream'
import type { ByteStore, UploadRecord } from '../../stores/contracts.ts'
import type { FormFile } from './form-reader.ts'

/** Among how many uploads of one name that which goes on is looked for, the newest first. */
export const mostKept = 4

export interface Overlap {
  /** The unfinished upload that has nothing but the beginning of the file; the longest one. */
  readonly goesOn: UploadRecord | undefined
  /** Has the first `matched` bytes of the file, which were taken from it. */
  readonly has: UploadRecord | undefined
  readonly matched: number
  /** What was taken of the file beyond them. */
  readonly rest: Buffer | undefined
}

/** Takes of `file` what is kept of it already, and perhaps a little more. */
export async function compareWithKept(
  file: FormFile,
  kept: readonly UploadRecord[],
  bytes: Pick<ByteStore, 'read'>,
): Promise<Overlap> {
  const all = kept.map((record) => new KeptBytes(record, bytes))
  let running = all
  let has: UploadRecord | undefined
  let matched = 0
  let rest: Buffer | undefined
  try {
    for (;;) {
      running = running.filter(({ isOver }) => !isOver)
      const chunk = running.length > 0 ? await file.next() : undefined
      if (chunk === undefined) break
      let most = 0
      for (const one of running) {
        const equal = await one.compare(chunk)
        if (equal <= most) continue
        most = equal
        has = one.record
      }
      matched += most
      if (most < chunk.length) rest = chunk.subarray(most)
    }
  } finally {
    for (const one of all) one.close()
  }
  const whole = all.filter(({ isEqual }) => isEqual).map(({ record }) => record)
  const goesOn = whole.toSorted((a, b) => b.mark.offset - a.mark.offset)[0]
  return { goesOn, has, matched, rest }
}

/** The bytes of one kept upload, read as far as they are like those that come. */
class KeptBytes {
  readonly record: UploadRecord
  readonly #bytes: Pick<ByteStore, 'read'>
  #stream: Readable | undefined
  #chunks: AsyncIterator<Buffer> | undefined
  #chunk: Buffer | undefined
  #left: number
  #differs = false

  constructor(record: UploadRecord, bytes: Pick<ByteStore, 'read'>) {
    this.record = record
    this.#bytes = bytes
    this.#left = record.mark.offset
  }

  /** Whether all that is kept was seen to be like what came. */
  get isEqual(): boolean {
    return this.#left === 0 && !this.#differs
  }

  get isOver(): boolean {
    return this.#left === 0 || this.#differs
  }

  /** How many of the bytes that come are like those that are kept. */
  async compare(coming: Buffer): Promise<number> {
    let at = 0
    while (at < coming.length && this.#left > 0) {
      const chunk = await this.#next()
      if (chunk === undefined) {
        this.#differs = true
        return at
      }
      const length = Math.min(chunk.length, coming.length - at)
      const equal = equalBytes(chunk.subarray(0, length), coming.subarray(at, at + length))
      at += equal
      this.#left -= equal
      if (equal < length) {
        this.#differs = true
        return at
      }
      this.#chunk = length < chunk.length ? chunk.subarray(length) : undefined
    }
    return at
  }

  close(): void {
    this.#stream?.destroy()
  }

  /** What can not be read, because it was removed meanwhile, is not like anything. */
  async #next(): Promise<Buffer | undefined> {
    if (this.#chunk) return this.#chunk
    try {
      this.#stream ??= await this.#bytes.read(this.record, 0, this.record.mark.offset)
      this.#chunks ??= this.#stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>
      const { value, done } = await this.#chunks.next()
      return done ? undefined : value
    } catch {
      return undefined
    }
  }
}

/** Of two buffers of the same length. */
function equalBytes(a: Buffer, b: Buffer): number {
  if (a.equals(b)) return a.length
  let at = 0
  // Halves, so that the byte is found by comparisons that the machine does in one go.
  for (let length = a.length; length > 1; ) {
    const half = length >> 1
    if (a.subarray(at, at + half).equals(b.subarray(at, at + half))) {
      at += half
      length -= half
    } else length = half
  }
  return at
}
