/**
 * News of records between processes that share a Redis. Who wants to hear says so on a channel, again and again, and in a
 * key for those that come later; while nobody does, nothing is sent. Messages may be lost with their connection: then
 * whoever listens is told that it may have missed something.
 */
import { randomBytes } from 'node:crypto'
import type { RecordNews } from '../contracts.ts'
import { RecordFeed } from '../record-feed.ts'
import type { RedisConnection } from './redis-connection.ts'

const renewEveryMs = 5_000
/** So long a wish is remembered that was not renewed. */
const wishMs = 15_000
const recordsAtOnce = 100

export class RedisNews {
  readonly feed: RecordFeed
  readonly #connection: RedisConnection
  readonly #token = randomBytes(9).toString('base64url')
  #isListening = false
  #isSubscribed = false
  #renewal: NodeJS.Timeout | undefined
  #wish: NodeJS.Timeout | undefined
  #stopWatching: (() => void) | undefined

  constructor(connection: RedisConnection) {
    this.#connection = connection
    this.feed = new RecordFeed({
      send: (news) => this.#send(news),
      want: (isWanted) => this.#want(isWanted),
    })
  }

  /** Learns from now on whether others want to hear. Never fails: what can not be had now is had when Redis is back. */
  async start(): Promise<void> {
    if (this.#stopWatching) return
    this.#stopWatching = this.#connection.onChange((event) => {
      if (event.is === 'available') void this.#hearWishes()
    })
    await this.#hearWishes()
  }

  close(): void {
    this.#stopWatching?.()
    this.#stopWatching = undefined
    clearInterval(this.#renewal)
    clearTimeout(this.#wish)
    this.#isListening = this.#isSubscribed = false
    this.feed.close()
  }

  async #hearWishes(): Promise<void> {
    const { keys } = this.#connection
    try {
      await this.#connection.subscribe(keys.newsWishes, (token) => this.#onWish(token))
      this.#onWish((await this.#connection.run((redis) => redis.get(keys.newsWanted))) ?? this.#token)
    } catch {
      // Tried again when Redis is back.
    }
  }

  #onWish(token: string): void {
    if (token === this.#token) return
    clearTimeout(this.#wish)
    this.#wish = setTimeout(() => this.feed.setWanted(false), wishMs).unref()
    this.feed.setWanted(true)
  }

  #want(isWanted: boolean): void {
    this.#isListening = isWanted
    clearInterval(this.#renewal)
    if (isWanted) {
      this.#renewal = setInterval(() => void this.#sayWish(), renewEveryMs).unref()
      void this.#sayWish()
    } else {
      this.#isSubscribed = false
      void this.#connection.unsubscribe(this.#connection.keys.news)
    }
  }

  /** Listens before it says so. */
  async #sayWish(): Promise<void> {
    const { keys } = this.#connection
    try {
      if (!this.#isSubscribed) {
        const missed = () => this.feed.receive([{ is: 'missed' }])
        await this.#connection.subscribe(keys.news, (text) => this.#onNews(text), missed)
        this.#isSubscribed = this.#isListening
      }
      if (!this.#isListening) return
      await this.#connection.run((redis) => redis.set(keys.newsWanted, this.#token, 'PX', wishMs))
      await this.#connection.run((redis) => redis.publish(keys.newsWishes, this.#token))
    } catch {
      // Said again soon.
    }
  }

  #onNews(text: string): void {
    const [token, news] = JSON.parse(text) as [string, RecordNews[]]
    if (token !== this.#token) this.feed.receive(news)
  }

  #send(news: readonly RecordNews[]): void {
    for (let from = 0; from < news.length; from += recordsAtOnce) {
      const text = JSON.stringify([this.#token, news.slice(from, from + recordsAtOnce)])
      this.#connection
        .run((redis) => redis.publish(this.#connection.keys.news, text))
        // While Redis is away; who listens is told that it missed something when it is back.
        .catch(() => undefined)
    }
  }
}
