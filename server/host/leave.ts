/**
 * The end of the process: in order on a signal, and for sure. Node's own exit waits for every thread that is at work; one
 * that writes records waits in turn for the event loop, which does not run any more, and one that waits for a disk may wait
 * for ever.
 */
import { performance } from 'node:perf_hooks'
import closeWithGrace from 'close-with-grace'
import type { Logger } from 'pino'

/** For records and files that are being written to get done. */
const settleMs = 500
const lookEveryMs = 5

interface End {
  readonly logger: Logger
  readonly level: 'info' | 'debug'
  readonly delayMs: number
  /** What is to be done first; when it fails the process ends with 1. */
  readonly end: () => Promise<void>
  readonly isBusy?: () => boolean
}

interface Ending {
  readonly isEnding: boolean
  /** Ends the process as a signal would. */
  close(): void
}

interface LeaveOptions {
  /** Whether something that Node does not tell of is being written. */
  readonly isBusy: () => boolean
  readonly exit: (code: number) => void
  readonly kill: () => void
}

/** From here on a signal, or an error that nobody caught, ends the process in order, once; and for sure after `delayMs`. */
export function endOnSignal({ logger, level, delayMs, end, isBusy }: End): Ending {
  leaveForSure(isBusy ?? (() => false))
  let isEnding = false
  const grace = closeWithGrace(
    {
      delay: delayMs,
      logger: false,
      // A fault of the machine has no graceful end, and SIGUSR2 asks for no end at all.
      skip: ['SIGILL', 'SIGTRAP', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGSEGV', 'SIGUSR2'],
      onTimeout: () => logger.error('could not end in time'),
      onSecondSignal: (signal) => logger.warn(`second ${signal}: leaving at once`),
      onSecondError: (err) => logger.fatal({ err }, 'failed while ending'),
    },
    async ({ signal, err }) => {
      isEnding = true
      if (err) logger.fatal({ err }, 'failed unexpectedly; ending')
      else logger[level](`${signal ?? 'asked'}: ending; running uploads are kept as far as they came`)
      await end()
      logger[level]('ended')
    },
  )
  return {
    get isEnding() {
      return isEnding
    },
    close: () => void (isEnding || grace.close()),
  }
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
function leaveForSure(isBusy: () => boolean, ownProcess: NodeJS.Process = process): void {
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
