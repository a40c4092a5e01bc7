/**
 * The end of the process, for sure. Node's own exit waits for every thread that is at work; one that writes records waits in
 * turn for the event loop, which does not run any more, and one that waits for a disk may wait for ever.
 */
import { performance } from 'node:perf_hooks'

/** For records and files that are being written to get done. */
const settleMs = 500
const lookEveryMs = 5

interface LeaveOptions {
  /** Whether something that Node does not tell of is being written. */
  readonly isBusy: () => boolean
  readonly exit: (code: number) => void
  readonly kill: () => void
}

/** Leaves as soon as no thread is at work; what is not done in half a second is as after a crash, and so is the exit code. */
function leave(code: number, { isBusy, exit, kill }: LeaveOptions): void {
  const until = performance.now() + settleMs
  const look = () => {
    if (!isBusy() && !isUsingFiles()) exit(code)
    else if (performance.now() < until) setTimeout(look, lookEveryMs)
    else kill()
  }
  look()
}

/** From here on whoever ends the process by `process.exit` ends it so. */
export function leaveForSure(isBusy: () => boolean, ownProcess: NodeJS.Process = process): void {
  const exit = ownProcess.exit.bind(ownProcess)
  let isLeaving = false
  const leaveOnce = (code?: number | string | null) => {
    if (isLeaving) return
    isLeaving = true
    const kill = () => void ownProcess.kill(ownProcess.pid, 'SIGKILL')
    leave(Number(code ?? ownProcess.exitCode ?? 0), { isBusy, exit, kill })
  }
  ownProcess.exit = leaveOnce as NodeJS.Process['exit']
}

function isUsingFiles(): boolean {
  return process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq'))
}
