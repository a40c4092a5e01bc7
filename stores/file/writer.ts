/**
 * Who wrote a mark. A successor goes on in the same file only when the writer let go, or can be proved to be gone;
 * nobody can take an open file away from a process that merely does not answer.
 */
import { randomBytes } from 'node:crypto'
import { decodeIdentity, encodeIdentity, isProvablyDead, ownIdentity } from '../process-identity.ts'
import type { Slot } from './mark-codec.ts'

/** The name of one store in this process; two stores of one process are two writers. */
export function newWriter(): string {
  return `${encodeIdentity(ownIdentity())}#${randomBytes(6).toString('hex')}`
}

/** Whether the process that `writer` names can certainly not write any more. */
export function isWriterGone(writer: string): boolean {
  const identity = decodeIdentity(processOf(writer))
  return identity !== undefined && isProvablyDead(identity)
}

/** Whether the machine was started again since `writer` wrote; then what it did not sync may be lost. */
export function isOfEarlierBoot(writer: string): boolean {
  const identity = decodeIdentity(processOf(writer))
  return identity !== undefined && identity.bootId !== ownIdentity().bootId
}

/**
 * What is left of an upload for certain: after the machine was started again only what was synced, whatever the size of
 * the file says. Another machine's boot says nothing about the storage of a network file system.
 */
export function afterReboot(slot: Slot, isOnNetwork: boolean): Slot {
  if (slot.state !== 'open' || isOnNetwork || !isOfEarlierBoot(slot.writer)) return slot
  return { ...slot, offset: Math.min(slot.offset, slot.syncedOffset) }
}

/** The slot after another one, of an upload that `writer` writes to. */
export function nextSlot(
  writer: string,
  from: Omit<Slot, 'writer' | 'isReleased'>,
  length: number | undefined,
): Slot {
  const { state, offset, syncedOffset, generation, sequence, movedAt } = from
  return {
    state,
    offset,
    syncedOffset,
    generation,
    movedAt,
    writer,
    ...(length !== undefined && { length }),
    sequence: sequence + 1,
    isReleased: false,
  }
}

function processOf(writer: string): string {
  return writer.slice(0, writer.lastIndexOf('#'))
}
