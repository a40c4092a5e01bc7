/**
 * A worker's end of the channel to its primary. When the primary is gone the worker ends at once: it holds locks that
 * nobody keeps any more, and its end is what the next server on the folder waits for.
 */
import type { EventEmitter } from 'node:events'
import { WorkerTurns } from '../../stores/local/opening-turns.ts'
import { WorkerLocker } from '../../stores/local/worker-locker.ts'
import { RecordFeed } from '../../stores/record-feed.ts'
import type { Measured } from '../metrics/metrics.ts'
import type { Team } from '../open-uploads.ts'
import { beatEveryMs, type FromPrimary, type FromWorker } from './messages.ts'

export class WorkerLink implements Team {
  readonly number: number
  readonly locker: WorkerLocker
  readonly turns: WorkerTurns
  readonly feed: RecordFeed
  /** The first of the workers; when it dies its successor has its number. */
  readonly sweeps: boolean
  readonly #process: NodeJS.Process
  #onJoined: ((joined: { now: number }) => void) | undefined
  #onStop: (() => void) | undefined
  #measure: (() => Promise<readonly Measured[]>) | undefined
  readonly #questions = new Map<number, (measured: readonly (readonly Measured[])[]) => void>()
  #questionCount = 0
  #isStopped = false

  constructor(number: number, ownProcess: NodeJS.Process) {
    this.number = number
    this.sweeps = number === 1
    this.#process = ownProcess
    this.locker = new WorkerLocker((requests) => this.#say(requests))
    this.turns = new WorkerTurns((turn) => this.#say({ is: 'turn', turn }))
    this.feed = new RecordFeed({
      send: (news) => this.#say({ is: 'news', news }),
      want: (isWanted) => this.#say({ is: 'wants-news', isWanted }),
    })
    ownProcess.on('message', (message: FromPrimary) => this.#hear(message))
    // Node would end this process in its own way, and wait for threads, one of which may be waiting for this one (a
    // transaction of LMDB does). Nothing is lost by ending at once.
    const channel: EventEmitter = ownProcess
    const die = () => void ownProcess.kill(ownProcess.pid, 'SIGKILL')
    channel.prependListener('disconnect', die)
    // What node:cluster itself says to a primary that is gone, of a connection that it was given, fails here, before its end is
    // seen; and would be an uncaught error.
    channel.prependListener('error', die)
    setInterval(() => this.#say({ is: 'beat' }), beatEveryMs).unref()
  }

  join(): Promise<{ now: number }> {
    return new Promise((resolve) => {
      this.#onJoined = resolve
      this.#say({ is: 'joining' })
    })
  }

  listening(port: number | undefined): void {
    this.#say({ is: 'listening', port })
  }

  /** To be the last word: the primary ends this process. */
  refuse(message: string): void {
    this.#say({ is: 'refused', message })
  }

  /** Calls back when the primary wants this worker to end in order; at once when it has said so before. */
  onStop(listener: () => void): void {
    this.#onStop = listener
    if (this.#isStopped) listener()
  }

  /** Says how to learn what this worker has counted. */
  onMeasure(measure: () => Promise<readonly Measured[]>): void {
    this.#measure = measure
  }

  /** What all workers have counted. */
  gather(): Promise<readonly (readonly Measured[])[]> {
    return new Promise((resolve) => {
      const question = ++this.#questionCount
      this.#questions.set(question, resolve)
      this.#say({ is: 'gather', question })
    })
  }

  #hear(message: FromPrimary): void {
    if (!('is' in message)) this.locker.receive(message)
    else if (message.is === 'joined') this.#onJoined?.(message)
    else if (message.is === 'turn') this.turns.receive(message.turn)
    else if (message.is === 'wants-news') this.feed.setWanted(message.isWanted)
    else if (message.is === 'news') this.feed.receive(message.news)
    else if (message.is === 'measure') void this.#tellMeasured(message.round)
    else if (message.is === 'gathered') {
      this.#questions.get(message.question)?.(message.measured)
      this.#questions.delete(message.question)
    } else {
      this.#isStopped = true
      this.#onStop?.()
    }
  }

  async #tellMeasured(round: number): Promise<void> {
    const measured = (await this.#measure?.().catch(() => [])) ?? []
    this.#say({ is: 'measured', round, measured })
  }

  #say(message: FromWorker): void {
    // That the channel is closed ends this process; what is said meanwhile need not fail too.
    this.#process.send?.(message, undefined, undefined, () => {})
  }
}
