/**
 * One writer per upload, across every process that shares a Redis. A lock is a lease: it ends by itself.
 *
 * The one idea: whoever asks either gets the lock or is registered as the newest waiter in the same step, and from
 * then on messages move it: `wanted` to the holder, `free` or `superseded` to the waiter. Messages may be lost, so
 * renewals and checkpoints say `wanted` too, and waiters ask again once a second. Every command names its token and can
 * be repeated; one without an answer counts as possibly executed.
 */
import { randomUUID } from 'node:crypto'
import type { Lock as TusLock, Locker as TusLocker } from '@tus/utils'
import type { AcquireOptions, Lock, Locker, UploadRecord, WaitOptions } from '../contracts.ts'
import { lockError, refuseAborted } from '../lock-error.ts'
import { PassingMap } from '../passing.ts'
import { decodeIdentity, encodeIdentity, isProvablyDead, ownIdentity } from '../process-identity.ts'
import { newTusLock } from '../tus-lock.ts'
import { Checkpoints } from './checkpoints.ts'
import { type Clock, Lease, type Moment, systemClock } from './lease.ts'
import { putArgs, putHints, putWithHints } from './record-codec.ts'
import { type RedisConnection, RedisFailure } from './redis-connection.ts'
import { type LockHome, RedisLock } from './redis-lock.ts'
import { scripts } from './scripts.ts'
import { Turn } from './turn.ts'
import { Upkeep } from './upkeep.ts'

export interface RedisLockerOptions {
  readonly connection: RedisConnection
  /** How long a lock outlives a holder that vanished. At least three times the connection's command timeout. */
  readonly leaseMs?: number
  /** How long `newLock(id).lock()` waits, for code that was written for @tus/server. */
  readonly acquireTimeoutMs?: number
  /** Between renewals, and between attempts to give back what could not be given back. */
  readonly tickMs?: number
  readonly clock?: Clock
}

/** A last fence is kept for so long; a clock that is set back by more than the time since then could repeat one. */
const FENCE_KEPT_MS = 3_600_000
/** A waiter asks again this often, and is forgotten when it did not for three times as long. */
const ASK_AGAIN_MS = 1_000
/** Renewals are this frequent at least, because they carry wishes whose messages were lost. */
const TICK_MAX_MS = 1_000
/** A wait is not shorter, however short the patience of who waits is. */
const LEAST_PATIENCE_MS = 100
/** Who takes a lock so soon after a holder was asked for it has taken it over, and may be fought for it. */
const REMEMBERED_MS = 1_000

type Reply = ['taken', string, number] | ['free'] | ['busy', string, string, number] | ['superseded']

/** What somebody wants of a lock: to have it, or that nobody has it. */
type Wish = 'lock' | 'free'
type Taken = { sentAt: Moment; fence: number; isTakeOver: boolean }

export class RedisLocker implements Locker, TusLocker {
  readonly locksStay = true
  readonly leaseMs: number
  readonly #connection: RedisConnection
  readonly #acquireTimeoutMs: number
  readonly #clock: Clock
  readonly #upkeep: Upkeep
  readonly #checkpoints: Checkpoints
  readonly #channel: string
  readonly #holder = encodeIdentity(ownIdentity())
  /** Acquisitions under way, by token. */
  readonly #turns = new PassingMap<string, Turn>()
  readonly #home: LockHome
  #started: Promise<void> | undefined
  #stopListening: (() => void) | undefined

  constructor(options: RedisLockerOptions) {
    this.leaseMs = options.leaseMs ?? 10_000
    this.#connection = options.connection
    if (this.#connection.commandTimeoutMs * 3 > this.leaseMs) {
      throw new RangeError('The command timeout of the connection must be at most a third of leaseMs.')
    }
    this.#acquireTimeoutMs = options.acquireTimeoutMs ?? 30_000
    this.#clock = options.clock ?? systemClock
    this.#channel = this.#connection.keys.channel(randomUUID())
    this.#upkeep = new Upkeep({
      connection: this.#connection,
      leaseMs: this.leaseMs,
      tickMs: options.tickMs ?? Math.min(TICK_MAX_MS, this.leaseMs / 10),
      clock: this.#clock,
    })
    this.#checkpoints = new Checkpoints({
      connection: this.#connection,
      onReply: (lock, reply) => this.#upkeep.learn(lock, reply),
    })
    this.#home = this.#makeHome(options.connection)
  }

  #makeHome(connection: RedisConnection): LockHome {
    return {
      get isAvailable() {
        return connection.isAvailable
      },
      release: (lock, how) => this.#release(lock, how),
      checkpoint: (lock, record, expiresAt) => this.#checkpoints.add(lock, record, expiresAt),
      commitAndRelease: (lock, record, expiresAt) => this.#commitAndRelease(lock, record, expiresAt),
    }
  }

  /** What this process holds, waits for, or still has to give back. */
  get size(): number {
    return this.#upkeep.size + this.#turns.size
  }

  get isReady(): boolean {
    return this.#started !== undefined && this.#connection.isAvailable
  }

  /** Connects and subscribes; `acquire` does it when nobody did. */
  start(): Promise<void> {
    this.#started ??= this.#start().catch((error) => {
      this.#started = undefined
      throw error
    })
    return this.#started
  }

  /** Ends every wait with `unavailable`. What is still held is told `lost`, and ends with its lease. */
  async close(): Promise<void> {
    this.#stopListening?.()
    for (const turn of this.#turns.values()) turn.end('closed')
    this.#checkpoints.close()
    this.#upkeep.close()
    const wasStarted = this.#started !== undefined
    this.#started = undefined
    if (wasStarted) await this.#connection.unsubscribe(this.#channel)
  }

  async acquire(id: string, options: AcquireOptions): Promise<Lock> {
    return await this.#enter(options, async (token, turn) => {
      const taken = (await this.#wait(id, 'lock', token, turn, options)) as Taken
      return await this.#hold(id, token, taken, turn, options)
    })
  }

  async acquireNew(
    record: UploadRecord,
    expiresAt: number | undefined,
    options: AcquireOptions,
  ): Promise<Lock | undefined> {
    return await this.#enter(options, async (token, turn) => {
      const taken = await this.#putAndTake(record, expiresAt, token)
      return taken && (await this.#hold(record.head.id, token, taken, turn, options))
    })
  }

  async untilFree(id: string, options: WaitOptions): Promise<boolean> {
    refuseAborted(options)
    if (!this.isReady) await this.#requireStarted()
    // Nearly always nobody holds it, and a question without a script is the cheapest one.
    if (!(await this.#isHeld(id))) return false
    await this.#enter(options, (token, turn) => this.#wait(id, 'free', token, turn, options))
    return true
  }

  /** The @tus/utils form of the same lock. */
  newLock(id: string): TusLock {
    return newTusLock(this, id, this.#acquireTimeoutMs)
  }

  /** Gives `work` a token and a place in the queue. */
  async #enter<T>(options: WaitOptions, work: (token: string, turn: Turn) => Promise<T>): Promise<T> {
    refuseAborted(options)
    if (!this.isReady) await this.#requireStarted()
    // Node makes these ahead, a hundred at a time.
    const token = randomUUID()
    const turn = new Turn()
    this.#turns.set(token, turn)
    try {
      return await work(token, turn)
    } finally {
      turn.close()
      this.#turns.delete(token)
    }
  }

  async #start(): Promise<void> {
    await this.#connection.connect()
    await this.#connection.subscribe(this.#channel, this.#onMessage)
    this.#stopListening = this.#connection.onChange((event) => {
      // Leases may be gone, and waiters forgotten: ask at once, or fail at once.
      if (event.is === 'available') this.#upkeep.tick()
      for (const turn of this.#turns.values()) turn.askAgain()
    })
  }

  async #requireStarted(): Promise<void> {
    try {
      await this.start()
    } catch (error) {
      throw lockError('unavailable', error)
    }
  }

  /** Asks until the wish is granted or the wait has ended. Undefined when nothing is to be taken. */
  async #wait(
    id: string,
    wish: Wish,
    token: string,
    turn: Turn,
    options: WaitOptions,
  ): Promise<Taken | undefined> {
    // Who has it, and does not use it, gets time to say so; who does not wait at all wants nothing that is kept.
    const patienceMs = options.timeoutMs > 0 ? Math.max(options.timeoutMs, LEAST_PATIENCE_MS) : 0
    const deadlineMs = this.#clock().monotonicMs + patienceMs
    let awaited = ''
    for (;;) {
      const sentAt = this.#clock()
      const reply = await this.#ask(id, wish, token, awaited)
      if (reply[0] === 'free') return undefined
      if (reply[0] === 'taken') return { sentAt, fence: Number(reply[1]), isTakeOver: reply[2] === 1 }
      if (reply[0] === 'superseded') throw lockError('superseded')
      const [, holderToken, holder, leftMs] = reply
      if (awaited === '') turn.endWith(options)
      awaited = holderToken
      if (await this.#freeIfDead(id, holderToken, holder)) continue

      const leftToWaitMs = deadlineMs - this.#clock().monotonicMs
      // Redis tells nobody that a lease has ended: ask right after it.
      const leaseEndsMs = leftMs < 0 ? ASK_AGAIN_MS : leftMs + 2
      const news = await turn.wait(Math.min(ASK_AGAIN_MS, leaseEndsMs, leftToWaitMs))
      if (news === 'superseded') throw lockError('superseded')
      const isOver = this.#clock().monotonicMs >= deadlineMs && news === 'nothing'
      if (news !== 'aborted' && news !== 'closed' && !isOver) continue

      void this.#upkeep.release(id, token)
      if (news === 'aborted') throw lockError('aborted', options.signal?.reason)
      if (news === 'closed') throw lockError('unavailable')
      throw lockError('timeout')
    }
  }

  async #isHeld(id: string): Promise<boolean> {
    try {
      return await this.#connection.exists(this.#connection.keys.lock(id))
    } catch (error) {
      throw lockError('unavailable', error)
    }
  }

  async #ask(id: string, wish: Wish, token: string, awaited: string): Promise<Reply> {
    const { keys } = this.#connection
    const times = [FENCE_KEPT_MS, REMEMBERED_MS]
    try {
      return (await this.#connection.runScript(
        scripts.acquire,
        [keys.lock(id), keys.wait(id), keys.fence(id)],
        [token, this.#holder, this.#channel, this.leaseMs, 3 * ASK_AGAIN_MS, awaited, ...times, wish, id],
      )) as Reply
    } catch (error) {
      throw this.#mayHaveTaken(id, token, error, awaited !== '')
    }
  }

  /** A command that failed: what it may have taken all the same, or `isWaiting` for, is given back. */
  #mayHaveTaken(id: string, token: string, error: unknown, isWaiting = false): Error {
    const mayHaveRun = !(error instanceof RedisFailure) || error.mayHaveRun
    if (mayHaveRun || isWaiting) void this.#upkeep.release(id, token, { isUncertain: mayHaveRun })
    return lockError('unavailable', error)
  }

  async #putAndTake(
    record: UploadRecord,
    expiresAt: number | undefined,
    token: string,
  ): Promise<Taken | undefined> {
    const { id } = record.head
    const { keys, news } = this.#connection
    const all = [keys.record(id), keys.lock(id), keys.wait(id), keys.fence(id)]
    const args = [token, this.#holder, this.#channel, this.leaseMs, FENCE_KEPT_MS]
    const sentAt = this.#clock()
    try {
      const fence = await this.#connection.batch(() => {
        putHints(this.#connection, record, expiresAt)
        return this.#connection.runScript(scripts.acquireNew, all, [...putArgs(record, expiresAt), ...args])
      })
      if (fence === null) return undefined
      news.feed.tell({ is: 'put', record })
      return { sentAt, fence: Number(fence), isTakeOver: false }
    } catch (error) {
      throw this.#mayHaveTaken(id, token, error)
    }
  }

  async #hold(id: string, token: string, taken: Taken, turn: Turn, options: AcquireOptions): Promise<Lock> {
    const { sentAt, ...given } = taken
    const lease = new Lease(this.#clock, sentAt, this.leaseMs, this.leaseMs / 10)
    const lock = new RedisLock(this.#home, { id, token, lease, ...given }, options.onWanted)
    if (turn.isEnded('aborted') || turn.isEnded('closed')) {
      await lock.release()
      throw lockError(turn.isEnded('aborted') ? 'aborted' : 'unavailable')
    }
    // A reply that came too late: the lease may be over, or somebody else's by now.
    if (!lock.isHeld()) {
      await lock.release()
      throw lockError('unavailable')
    }
    this.#upkeep.add(lock)
    if (turn.isWanted) lock.want()
    return lock
  }

  async #freeIfDead(id: string, holderToken: string, holder: string): Promise<boolean> {
    const identity = decodeIdentity(holder)
    if (identity === undefined || !isProvablyDead(identity)) return false
    await this.#upkeep.release(id, holderToken)
    return true
  }

  async #release(lock: RedisLock, how: 'unused' | undefined): Promise<void> {
    if (how === 'unused') this.#checkpoints.sendNow(lock)
    else this.#checkpoints.drop(lock)
    this.#upkeep.remove(lock)
    await this.#upkeep.release(lock.id, lock.token, { isUnused: how === 'unused' })
  }

  async #commitAndRelease(lock: RedisLock, record: UploadRecord, expiresAt?: number): Promise<void> {
    this.#checkpoints.drop(lock)
    this.#upkeep.remove(lock)
    const { keys } = this.#connection
    const put = {
      script: scripts.putRecordAndRelease,
      keys: [keys.record(lock.id), keys.lock(lock.id), keys.wait(lock.id)],
      args: [...putArgs(record, expiresAt), lock.token],
    }
    try {
      await putWithHints(this.#connection, put, record, expiresAt)
    } catch (error) {
      void this.#upkeep.release(lock.id, lock.token)
      throw error
    }
  }

  readonly #onMessage = (message: string): void => {
    const [what, token, ...rest] = message.split(' ') as [string, string, ...string[]]
    if (what === 'wanted') this.#onWanted(token, rest.join(' '))
    if (what === 'free') this.#turns.get(token)?.askAgain()
    if (what === 'superseded') this.#turns.get(token)?.end('superseded')
  }

  #onWanted(token: string, id: string): void {
    const held = this.#upkeep.get(token)
    // The reply that gives this lock may still be on its way, on the other connection.
    const turn = this.#turns.get(token)
    held?.want()
    turn?.want()
    // Taken by a command that Redis ran long after it was given up here: nobody will ever use it.
    if (!held && !turn && id !== '') void this.#upkeep.release(id, token)
  }
}
