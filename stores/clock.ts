/**
 * What time it is, for all that expires: milliseconds since the epoch that a jump of the machine's clock does not move.
 *
 * The one idea: time is advanced by a clock that nobody can set, and a reference (the wall clock, or Redis when several
 * servers have to agree) is believed at once only in small things. Where it is far off it is followed slowly, so that
 * an hour that somebody set by mistake is ten hours long, and nothing expires because of it.
 */
import { uptime } from 'node:os'
import { performance } from 'node:perf_hooks'
import type { Now } from './contracts.ts'

/** What `Date` says; for who wants to share no clock of Tidemark's. */
export const wallClock: Now = () => Date.now()

/** The clocks of a machine, in milliseconds. */
interface MachineClocks {
  /** Stands still while the machine is suspended, and can not be set. */
  monotonicMs(): number
  /** Since the machine was started; suspended or not. Dear to read, and coarse: 10 ms on Linux. */
  uptimeMs(): number
  /** Can be set. */
  wallMs(): number
}

const thisMachine: MachineClocks = {
  monotonicMs: () => performance.now(),
  uptimeMs: () => uptime() * 1000,
  wallMs: () => Date.now(),
}

/** A wall clock that left the monotonic one by so much was set, or the machine was suspended. */
const noticedMs = 20

/**
 * Milliseconds since some moment, which go on while the machine is suspended and can not be set. Node has no such clock;
 * so the wall clock says when something happened, and the uptime whether that was a suspension.
 */
export function bootClock(machine = thisMachine): () => number {
  const uptimeAheadMs = machine.uptimeMs() - machine.monotonicMs()
  let wallAheadMs = machine.wallMs() - machine.monotonicMs()
  let suspendedMs = 0
  return () => {
    const monotonicMs = machine.monotonicMs()
    const aheadMs = machine.wallMs() - monotonicMs
    if (Math.abs(aheadMs - wallAheadMs) > noticedMs) {
      wallAheadMs = aheadMs
      suspendedMs = Math.max(suspendedMs, machine.uptimeMs() - monotonicMs - uptimeAheadMs)
    }
    return monotonicMs + suspendedMs
  }
}

/** The time that was told last, and the reading of the boot clock at which it was. */
export interface Told {
  readonly timeMs: number
  readonly bootMs: number
}

/** A reference that is no further off than this is followed at once: clocks are set right by so little every day. */
export const followedAtOnceMs = 2_000
/** Otherwise the told time goes faster or slower by this part, until it has met the reference. */
const slewing = 0.1
/** Who was not asked for long does not make up for it: the reference may have jumped only now. */
const slewedAtOnceMs = 60_000

/** The time to tell at `bootMs`, where the reference says `referenceMs`. Never less than what was told before. */
export function follow(before: Told, bootMs: number, referenceMs: number): Told {
  const passedMs = Math.max(0, bootMs - before.bootMs)
  const freeMs = before.timeMs + passedMs
  const aheadMs = referenceMs - freeMs
  if (Math.abs(aheadMs) <= followedAtOnceMs) return { timeMs: Math.max(before.timeMs, referenceMs), bootMs }
  const mostMs = slewing * Math.min(passedMs, slewedAtOnceMs)
  return { timeMs: freeMs + Math.max(-mostMs, Math.min(mostMs, aheadMs)), bootMs }
}

/**
 * A clock that begins with what the reference says, or at `startMs` where somebody told the time before, and follows the
 * reference, which is given the reading of `boot`.
 */
export function steadyClock(
  reference: (bootMs: number) => number = wallClock,
  boot = bootClock(),
  startMs?: number,
): Now {
  const startedAt = boot()
  let told: Told = { timeMs: startMs ?? reference(startedAt), bootMs: startedAt }
  return () => {
    const bootMs = boot()
    told = follow(told, bootMs, reference(bootMs))
    return Math.floor(told.timeMs)
  }
}
