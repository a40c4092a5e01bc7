/** The reply to CLUSTER SLOTS, as ranges and their primaries. */
import type { RedisNode } from './redis-url.ts'

export interface SlotRange {
  readonly first: number
  readonly last: number
  readonly node: RedisNode
}

/** `askedHost` stands for a node that does not know its own address. Slots of which no address is known are left out. */
export function readSlots(reply: unknown, askedHost: string): SlotRange[] {
  const rows = Array.isArray(reply) ? (reply as [number, number, [string | null, number]?][]) : []
  return rows.flatMap(([first, last, primary]) => {
    if (primary === undefined || primary[0] === '?') return []
    return [{ first, last, node: { host: primary[0] || askedHost, port: primary[1] } }]
  })
}
