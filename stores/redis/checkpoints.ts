/**
 * How far the uploads of this process are, for all other servers: collected for a moment, and sent in one write.
 *
 * Of two checkpoints of one upload only the newer is sent, and none once the upload is let go: that puts the record
 * itself. What is lost here is put right by the next one. The replies say how the locks stand, as renewals do.
 */
import type { UploadRecord } from '../contracts.ts'
import { putArgs, putHints } from './record-codec.ts'
import type { RedisConnection } from './redis-connection.ts'
import type { RedisLock } from './redis-lock.ts'
import { scripts } from './scripts.ts'

export interface CheckpointsOptions {
  readonly connection: RedisConnection
  /** Told what Redis says of a lock: `lost`, `held` or `wanted`. */
  readonly onReply: (lock: RedisLock, reply: unknown) => void
}

interface Checkpoint {
  readonly record: UploadRecord
  readonly expiresAt: number | undefined
}

/** Bodies move their marks once a second: what comes within this much of it goes out together. */
const COLLECT_MS = 100

export class Checkpoints {
  readonly #options: CheckpointsOptions
  readonly #waiting = new Map<RedisLock, Checkpoint>()
  /** Uploads whose index entries were sent by this holder. A later entry is not needed: who visits corrects it. */
  readonly #indexed = new WeakSet<RedisLock>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: CheckpointsOptions) {
    this.#options = options
  }

  add(lock: RedisLock, record: UploadRecord, expiresAt: number | undefined): void {
    this.#waiting.set(lock, { record, expiresAt })
    this.#timer ??= setTimeout(() => this.#send(), COLLECT_MS)
  }

  /** The lock is about to be given up, and nothing has happened to the upload since. */
  sendNow(lock: RedisLock): void {
    const checkpoint = this.#waiting.get(lock)
    this.drop(lock)
    if (checkpoint) void this.#put(lock, checkpoint)
  }

  /** The upload is let go, and its record put or removed by who does so. */
  drop(lock: RedisLock): void {
    this.#waiting.delete(lock)
    if (this.#waiting.size === 0) this.close()
  }

  close(): void {
    this.#waiting.clear()
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #send(): void {
    const waiting = [...this.#waiting]
    this.close()
    this.#options.connection.batch(() => {
      for (const [lock, checkpoint] of waiting) void this.#put(lock, checkpoint)
    })
  }

  async #put(lock: RedisLock, { record, expiresAt }: Checkpoint): Promise<void> {
    const { connection, onReply } = this.#options
    const { keys } = connection
    if (!this.#indexed.has(lock)) putHints(connection, record, expiresAt)
    this.#indexed.add(lock)
    try {
      const reply = await connection.runScript(
        scripts.checkpoint,
        [keys.record(lock.id), keys.lock(lock.id)],
        [...putArgs(record, expiresAt), lock.token],
      )
      connection.news.feed.tell({ is: 'put', record })
      onReply(lock, reply)
    } catch {
      // The connection says by itself that it is away. Of an upload that stays open there is no commit that would put it right.
      if (lock.isHeld() && !this.#waiting.has(lock)) this.add(lock, record, expiresAt)
    }
  }
}
