/**
 * The bytes of a mark file. Two slots of their own sectors, written in turn and in place, so that a torn write leaves
 * the other slot, and a full disk cannot stop one; then the head, written once.
 *
 *     0     slot A   (even sequence)
 *     512   slot B   (odd sequence)
 *     1024  head     uint32 length, uint32 crc32, JSON
 *
 * All integers are big-endian. A slot counts when its checksum fits; of two, the higher sequence counts.
 */
import { crc32 } from 'node:zlib'
import type { Digest, Mark, UploadHead, UploadState } from '../contracts.ts'

/** A mark with what the file keeps beside it: who wrote it, and whether it let go afterwards. */
export interface Slot extends Mark {
  /** Names the writing process with its boot, and the store within it; see writer.ts. */
  readonly writer: string
  /** True when the writer's last write had returned and it will write no more. */
  readonly isReleased: boolean
}

export const slotBytes = 512
export const headPosition = 2 * slotBytes
/** Enough for both slots and nearly every head in one read. */
export const firstReadBytes = 2048

const magic = 0x544d524b // TMRK
const version = 1
const states: readonly UploadState[] = ['open', 'finished', 'failed', 'terminated']
const longestText = 200
/** A byte that names the algorithm, and the digest; zero in slots of versions that kept none. */
const digestPosition = 264
const algorithms: readonly Digest['algorithm'][] = ['sha-256', 'sha-512']
const digestBytes = { 'sha-256': 32, 'sha-512': 64 } as const

/** Higher than any writer can count; a tombstone stays the newest slot whoever writes late. */
export const tombstoneSequence = Number.MAX_SAFE_INTEGER

export function slotPosition(sequence: number): number {
  return (sequence % 2) * slotBytes
}

export function encodeSlot(slot: Slot): Buffer {
  const out = Buffer.allocUnsafe(slotBytes).fill(0)
  out.writeUInt32BE(magic, 0)
  out.writeUInt8(version, 4)
  out.writeUInt8(states.indexOf(slot.state), 5)
  out.writeUInt8(slot.isReleased ? 1 : 0, 6)
  out.writeUInt32BE(slot.generation, 8)
  out.writeBigUInt64BE(BigInt(slot.sequence), 16)
  out.writeBigUInt64BE(BigInt(slot.offset), 24)
  out.writeBigUInt64BE(BigInt(slot.syncedOffset), 32)
  out.writeBigInt64BE(BigInt(slot.length ?? -1), 40)
  out.writeBigUInt64BE(BigInt(slot.movedAt), 48)
  writeText(out, 56, slot.writer)
  if (slot.digest) writeDigest(out, slot.digest)
  out.writeUInt32BE(crc32(out.subarray(0, slotBytes - 4)), slotBytes - 4)
  return out
}

export function decodeSlot(bytes: Buffer): Slot | undefined {
  if (bytes.length < slotBytes || bytes.readUInt32BE(0) !== magic || bytes.readUInt8(4) !== version)
    return undefined
  if (crc32(bytes.subarray(0, slotBytes - 4)) !== bytes.readUInt32BE(slotBytes - 4)) return undefined
  const state = states[bytes.readUInt8(5)]
  if (state === undefined) return undefined
  const length = Number(bytes.readBigInt64BE(40))
  const digest = readDigest(bytes)
  return {
    state,
    isReleased: bytes.readUInt8(6) === 1,
    generation: bytes.readUInt32BE(8),
    sequence: Number(bytes.readBigUInt64BE(16)),
    offset: Number(bytes.readBigUInt64BE(24)),
    syncedOffset: Number(bytes.readBigUInt64BE(32)),
    ...(length >= 0 && { length }),
    movedAt: Number(bytes.readBigUInt64BE(48)),
    writer: readText(bytes, 56),
    ...(digest && { digest }),
  }
}

/** The newer valid slot of the two at the beginning of a mark file. */
export function newestSlot(bytes: Buffer): Slot | undefined {
  const a = decodeSlot(bytes.subarray(0, slotBytes))
  const b = decodeSlot(bytes.subarray(slotBytes, 2 * slotBytes))
  if (a === undefined || b === undefined) return a ?? b
  return a.sequence > b.sequence ? a : b
}

export function encodeHead(head: UploadHead): Buffer {
  const text = Buffer.from(JSON.stringify(head))
  const out = Buffer.alloc(8 + text.length)
  out.writeUInt32BE(text.length, 0)
  out.writeUInt32BE(crc32(text), 4)
  text.copy(out, 8)
  return out
}

/** Whether the head that begins at byte 0 of `bytes` ends in them, if it is sound. */
export function holdsHead(bytes: Buffer): boolean {
  return bytes.length > 8 && bytes.length >= 8 + bytes.readUInt32BE(0)
}

/** The head that begins at byte 0 of `bytes`; the number of bytes that are needed when there are too few; or undefined. */
export function decodeHead(bytes: Buffer): UploadHead | number | undefined {
  if (bytes.length < 8) return undefined
  const length = bytes.readUInt32BE(0)
  if (length === 0 || length > 16 * 1024 * 1024) return undefined
  if (bytes.length < 8 + length) return 8 + length
  const text = bytes.subarray(8, 8 + length)
  if (crc32(text) !== bytes.readUInt32BE(4)) return undefined
  return JSON.parse(text.toString()) as UploadHead
}

function writeDigest(out: Buffer, { algorithm, base64 }: Digest): void {
  out.writeUInt8(1 + algorithms.indexOf(algorithm), digestPosition)
  Buffer.from(base64, 'base64').copy(out, digestPosition + 1, 0, digestBytes[algorithm])
}

function readDigest(bytes: Buffer): Digest | undefined {
  const algorithm = algorithms[bytes.readUInt8(digestPosition) - 1]
  if (algorithm === undefined) return undefined
  const from = digestPosition + 1
  return { algorithm, base64: bytes.toString('base64', from, from + digestBytes[algorithm]) }
}

function writeText(out: Buffer, position: number, text: string): void {
  const length = Buffer.byteLength(text)
  if (length > longestText) throw new RangeError('the name of a writer is too long for a mark')
  out.writeUInt8(length, position)
  out.write(text, position + 1)
}

function readText(bytes: Buffer, position: number): string {
  return bytes.toString('utf8', position + 1, position + 1 + bytes.readUInt8(position))
}
