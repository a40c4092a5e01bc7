/**
 * One process that receives nothing, and keeps several others at it: the workers. It has the folder and the locks for
 * all of them (unless a Redis has), gives them the connections to its port, puts others in the place of those that end,
 * kills those that hang, and ends them in order.
 */
import cluster, { type Worker } from 'node:cluster'
import { EventEmitter, once } from 'node:events'
import type { Logger } from 'pino'
import { steadyClock } from '../../stores/clock.ts'
import type { FolderOwner } from '../../stores/local/folder-owner.ts'
import type { LockPeer, LockServer } from '../../stores/local/lock-server.ts'
import type { OpeningPeer, OpeningTurns } from '../../stores/local/opening-turns.ts'
import type { Config } from '../config.ts'
import { quotaPlanOf } from '../entry-options.ts'
import { StartError } from '../host/start-checks.ts'
import type { Measured } from '../metrics/metrics.ts'
import { ownFolder, placeOf } from '../place.ts'
import { Gathering } from './gathering.ts'
import { beatEveryMs, type FromPrimary, type FromWorker, workerVariable } from './messages.ts'
import { type NewsPeer, NewsRelay } from './news-relay.ts'
import { Undelivered } from './undelivered.ts'

/** A worker that was silent for so many beats hangs. One that starts has its hands full, unless all others wait for it. */
const silentBeats = { running: 5, starting: 30, opening: 5 }
/** Who lived for less died of something that its successor will meet too: it is given time. */
const shortLifeMs = 10_000
const pauseMs = { first: 100, most: 10_000 }
/** What a worker may take beyond the time that it gives itself. */
const endReserveMs = 500

/** The part of a folder's guardian; with Redis there is none. */
interface Commons {
  readonly owner: FolderOwner
  readonly locks: LockServer
  readonly turns: OpeningTurns
  readonly now: () => number
}

interface Member {
  readonly number: number
  readonly worker: Worker
  readonly peer: LockPeer | undefined
  readonly opener: OpeningPeer | undefined
  readonly news: NewsPeer
  readonly undelivered: Undelivered
  readonly startedAt: number
  hasSpoken: boolean
  isListening: boolean
  refusal: string | undefined
  silentBeats: number
}

export interface PrimaryOptions {
  readonly config: Config
  readonly count: number
  readonly logger: Logger
  /** What workers run; the same as this process, which may have been started by way of something else. */
  readonly program: string
}

export class Primary {
  /** Undefined for a UNIX socket. */
  port: number | undefined
  readonly #options: PrimaryOptions
  readonly #commons: Commons | undefined
  readonly #members = new Set<Member>()
  readonly #relay = new NewsRelay()
  readonly #pauses = new Set<NodeJS.Timeout>()
  readonly #news = new EventEmitter()
  readonly #watch: NodeJS.Timeout
  readonly #gathering = new Gathering<Member>((member, round) => say(member, { is: 'measure', round }))
  #is: 'starting' | 'running' | 'stopping' = 'starting'
  #shortLives = 0
  #allEndedInOrder = true

  private constructor(options: PrimaryOptions, commons: Commons | undefined) {
    this.#options = options
    this.#commons = commons
    this.#news.on('error', () => {})
    this.#watch = setInterval(() => this.#countBeat(), beatEveryMs)
  }

  /** Takes the folder; no worker is there yet. */
  static async open(options: PrimaryOptions): Promise<Primary> {
    return new Primary(
      options,
      options.config.redisUrl === undefined ? await openCommons(options.config) : undefined,
    )
  }

  /**
   * Returns when all workers listen, or some and it is stopped; then false. Fails as a single process would, with what
   * the first of them could not do.
   */
  async listen(): Promise<boolean> {
    const { program, count } = this.#options
    cluster.setupPrimary({ exec: program })
    try {
      for (let number = 1; number <= count; number++) this.#fork(number)
      await this.#untilAllListen()
    } catch (error) {
      this.kill()
      await this.#ended()
      throw error
    }
    if (this.#is === 'stopping') return false
    this.#is = 'running'
    return true
  }

  /** What all workers have counted. */
  gather(): Promise<readonly (readonly Measured[])[]> {
    return this.#gathering.gather([...this.#members].filter(({ isListening }) => isListening))
  }

  /** Ends all workers in order. False when one did not. */
  async stop(): Promise<boolean> {
    this.#is = 'stopping'
    for (const pause of this.#pauses) clearTimeout(pause)
    for (const member of this.#members) say(member, { is: 'stop' })
    const tooLate = setTimeout(() => this.kill(), this.#options.config.shutdownTimeoutMs + endReserveMs)
    await this.#ended()
    clearTimeout(tooLate)
    return this.#allEndedInOrder
  }

  /** Ends all workers at once. */
  kill(): void {
    this.#is = 'stopping'
    for (const { worker } of this.#members) worker.process.kill('SIGKILL')
  }

  async #ended(): Promise<void> {
    while (this.#members.size > 0) await once(this.#news, 'exit')
    clearInterval(this.#watch)
    await this.#commons?.owner.forgetDeadGuests()
    await this.#commons?.owner.release()
  }

  async #untilAllListen(): Promise<void> {
    // `once` fails with what is emitted as an error.
    while (this.#is === 'starting' && [...this.#members].some(({ isListening }) => !isListening))
      await once(this.#news, 'listening')
  }

  #fork(number: number): void {
    const worker = cluster.fork({ [workerVariable]: String(number) })
    const member: Member = {
      number,
      worker,
      peer: this.#commons?.locks.connect((replies) => say(member, replies)),
      opener: this.#commons?.turns.connect((turn) => say(member, { is: 'turn', turn })),
      news: { say: (message) => say(member, message) },
      undelivered: new Undelivered(worker.process),
      startedAt: performance.now(),
      hasSpoken: false,
      isListening: false,
      refusal: undefined,
      silentBeats: 0,
    }
    this.#members.add(member)
    this.#relay.add(member.news)
    worker.on('message', (message: FromWorker) => this.#hear(member, message))
    worker.on('error', (err) =>
      this.#options.logger.warn({ err, worker: number }, 'a worker can not be reached'),
    )
    // Not before it has exited: until then it can write.
    worker.on('exit', (code, signal) => this.#onExit(member, code, signal))
  }

  #hear(member: Member, message: FromWorker): void {
    member.silentBeats = 0
    // What it was told before it spoke it did not hear.
    if (!member.hasSpoken && this.#is === 'stopping') say(member, { is: 'stop' })
    member.hasSpoken = true
    if (!('is' in message)) member.peer?.receive(message)
    else if (message.is === 'joining') say(member, { is: 'joined', now: this.#commons?.now() ?? Date.now() })
    else if (message.is === 'turn') member.opener?.receive(message.turn)
    else if (message.is === 'wants-news') this.#relay.want(member.news, message.isWanted)
    else if (message.is === 'news') this.#relay.pass(member.news, message.news)
    else if (message.is === 'refused') {
      // It waits for that: were it to end by itself, its end could be seen before its words.
      member.refusal = message.message
      member.worker.process.kill('SIGKILL')
    } else if (message.is === 'measured') this.#gathering.hear(member, message.round, message.measured)
    else if (message.is === 'gather') void this.#answerGather(member, message.question)
    else if (message.is === 'listening') {
      member.isListening = true
      this.port = message.port
      if (this.#is === 'running') this.#options.logger.info({ worker: member.number }, 'the worker listens')
      this.#news.emit('listening')
    }
  }

  async #answerGather(member: Member, question: number): Promise<void> {
    say(member, { is: 'gathered', question, measured: await this.gather() })
  }

  #onExit(member: Member, code: number | null, signal: string | null): void {
    this.#members.delete(member)
    this.#gathering.gone(member)
    member.peer?.gone()
    member.opener?.gone()
    this.#relay.remove(member.news)
    member.undelivered.close()
    this.#commons?.owner.forgetDeadGuests().catch(() => undefined)
    if (this.#is === 'running') this.#replace(member, code, signal)
    // Who did not listen yet has taken nothing.
    else if (code !== 0 && member.isListening) this.#allEndedInOrder = false
    if (this.#is === 'starting') this.#news.emit('error', startError(member, code, signal))
    this.#news.emit('exit')
  }

  #replace({ number, worker, startedAt, refusal }: Member, code: number | null, signal: string | null): void {
    const livedMs = performance.now() - startedAt
    this.#shortLives = livedMs < shortLifeMs ? this.#shortLives + 1 : 0
    const waitMs =
      this.#shortLives === 0 ? 0 : Math.min(pauseMs.most, pauseMs.first * 2 ** (this.#shortLives - 1))
    this.#options.logger.warn(
      { worker: number, pid: worker.process.pid, code, signal, reason: refusal, waitMs },
      'a worker ended; another one takes its place',
    )
    const pause = setTimeout(() => {
      this.#pauses.delete(pause)
      this.#fork(number)
    }, waitMs)
    this.#pauses.add(pause)
  }

  /** Counts beats rather than time: while this process was stopped itself nobody could be heard. */
  #countBeat(): void {
    this.#commons?.now() // A clock that nobody asks does not follow the others.
    for (const member of this.#members) {
      const most =
        silentBeats[member.opener?.isOpening ? 'opening' : member.isListening ? 'running' : 'starting']
      member.silentBeats += 1
      if (member.silentBeats <= most) continue
      const { pid } = member.worker.process
      this.#options.logger.error({ worker: member.number, pid }, 'a worker does not answer; it is killed')
      member.worker.process.kill('SIGKILL')
    }
  }
}

/** Takes the folder, and looks at the database before anybody writes to it. */
async function openCommons(config: Config): Promise<Commons> {
  // Loaded here, because who has a Redis needs none of it.
  const [{ FolderOwner }, { LmdbLedger }, { LmdbRecords }, { LockServer }, { OpeningTurns }] =
    await Promise.all([
      import('../../stores/local/folder-owner.ts'),
      import('../../stores/local/lmdb-ledger.ts'),
      import('../../stores/local/lmdb-records.ts'),
      import('../../stores/local/lock-server.ts'),
      import('../../stores/local/opening-turns.ts'),
    ])
  const directory = ownFolder(config.uploadDir)
  const owner = await FolderOwner.take(directory, { describe: placeOf(config) })
  try {
    const records = new LmdbRecords({ directory })
    await records.start()
    await records.close()
    if (quotaPlanOf(config) !== undefined) {
      const ledger = new LmdbLedger({ directory })
      await ledger.start()
      await ledger.close()
    }
  } catch (error) {
    await owner.release()
    throw error
  }
  return { owner, locks: new LockServer(), turns: new OpeningTurns(), now: steadyClock() }
}

function say({ worker }: Member, message: FromPrimary): void {
  // To one that has just died; its exit will be seen.
  if (worker.isConnected()) worker.process.send(message, () => {})
}

function startError({ refusal }: Member, code: number | null, signal: string | null): StartError {
  return new StartError(refusal ?? `a worker ended before it could listen (${signal ?? `code ${code}`})`)
}
