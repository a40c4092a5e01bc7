/**
 * Entries of the indexes, which are hints: they are collected for a turn of the event loop, and all that concern one index
 * are sent in one command. When they fail, the walk of the uploads puts them back.
 */
import type { Redis } from 'ioredis'

type Run = (command: (redis: Redis) => Promise<unknown>) => Promise<unknown>

export class IndexHints {
  /** By index and id: the score of an entry that is to be there, undefined for one that is not. */
  #indexes = new Map<string, Map<string, number | undefined>>()

  put(index: string, id: string, score: number | undefined): void {
    const entries = this.#indexes.get(index)
    if (entries) entries.set(id, score)
    else this.#indexes.set(index, new Map([[id, score]]))
  }

  /** Forgets what was to be sent of an upload. */
  drop(id: string): void {
    for (const entries of this.#indexes.values()) entries.delete(id)
  }

  /** Never fails. */
  send(run: Run): void {
    const indexes = this.#indexes
    this.#indexes = new Map()
    for (const [index, entries] of indexes) {
      const added: (string | number)[] = []
      const removed: string[] = []
      for (const [id, score] of entries) {
        if (score === undefined) removed.push(id)
        else added.push(score, id)
      }
      if (added.length > 0) run((redis) => redis.zadd(index, ...added)).catch(() => {})
      if (removed.length > 0) run((redis) => redis.zrem(index, ...removed)).catch(() => {})
    }
  }
}
