// Bytes that look random and are the same for the same seed, so that a failing test can be run again and a file of any
// size can be checked by its hash alone. Each block is made from its own counter: any range can be had without the rest.

import { type BinaryLike, createCipheriv, createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

const chunkBytes = 256 * 1024
const cipherBlockBytes = 16

/** @param from the first byte, in the endless sequence of this seed */
export function randomBytes(seed: string, lengthBytes: number, from = 0): Buffer {
  const firstBlock = Math.floor(from / cipherBlockBytes)
  const skipped = from - firstBlock * cipherBlockBytes
  const counter = Buffer.alloc(cipherBlockBytes)
  counter.writeBigUInt64BE(BigInt(firstBlock), 8)
  const key = createHash('sha256').update(seed).digest().subarray(0, 16)
  const cipher = createCipheriv('aes-128-ctr', key, counter)
  return cipher.update(Buffer.alloc(skipped + lengthBytes)).subarray(skipped)
}

export function randomStream(seed: string, lengthBytes: number, from = 0): Readable {
  return Readable.from(chunks(seed, lengthBytes, from), { objectMode: false })
}

/** Writes the file and says the hash of what it holds. */
export async function randomFile(
  path: string,
  seed: string,
  lengthBytes: number,
): Promise<{ path: string; sha256: string }> {
  const hash = createHash('sha256')
  await pipeline(
    randomStream(seed, lengthBytes),
    async function* (source: AsyncIterable<Buffer>) {
      for await (const chunk of source) {
        hash.update(chunk)
        yield chunk
      }
    },
    createWriteStream(path),
  )
  return { path, sha256: hash.digest('hex') }
}

/** The SHA-256, in hex, of bytes at hand or of a stream. */
export async function sha256(content: Uint8Array | AsyncIterable<BinaryLike>): Promise<string> {
  const hash = createHash('sha256')
  if (content instanceof Uint8Array) return hash.update(content).digest('hex')
  for await (const chunk of content) hash.update(chunk)
  return hash.digest('hex')
}

function* chunks(seed: string, lengthBytes: number, from: number): Generator<Buffer> {
  for (let done = 0; done < lengthBytes; done += chunkBytes) {
    yield randomBytes(seed, Math.min(chunkBytes, lengthBytes - done), from + done)
  }
}
