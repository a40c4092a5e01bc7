// A plain tus client that writes down every offset that it was told is kept. It goes on through everything that clients
// go on through, and fails at once when an answer takes back what an earlier one said, or would make a client begin again.

import { setTimeout as sleep } from 'node:timers/promises'
import { randomBytes } from '../support/random-file.ts'
import { type Chance, chance, seed as testSeed } from '../support/seed.ts'
import { type Ended, send, silent } from './wire-request.ts'

const KiB = 1024
const pieceBytes = 16 * KiB

export type LedgerOptions = {
  /** Servers; each request goes to one of them, as the seed says. */
  urls: readonly string[]
  /** Names this upload: its content and its choices. */
  seed: string
  bytes: number
  /** Sizes of its requests, both ends included; 64 KiB to 2 MiB. */
  patchBytes?: readonly [least: number, most: number]
  /** About; 4 MiB/s. 0 is no limit. */
  bytesPerSecond?: number
  /** By then the upload is finished, or the client says why not. */
  deadlineMs?: number
  /** The client stops there, without an answer to come. */
  signal?: AbortSignal
  /** Called with every offset that was acknowledged. */
  onAcknowledged?: (offset: number) => void
  /** Goes on with this one instead of creating one. */
  url?: string
}

type LedgerEntry = {
  method: string
  url: string
  /** Undefined when no answer came. */
  status: number | undefined
  /** `Upload-Offset` of the answer. */
  offset: number | undefined
  why?: string
}

export type LedgerUpload = {
  /** Path of the upload; the same on all servers. */
  path: string
  id: string
  seed: string
  bytes: number
  /** The highest offset that was acknowledged. */
  acknowledged: number
  ledger: readonly LedgerEntry[]
  /** Creations without an answer: each may have made an upload that nobody was told of. */
  lostCreations: number
  /** Requests on which the server said nothing for 30 s. */
  silences: number
}

/** The content of an upload, any range of it. */
export function contentOf(seed: string, start: number, end: number): Buffer {
  return randomBytes(`ledger ${testSeed} ${seed}`, end - start, start)
}

/** Uploads all of it. Fails as soon as an answer breaks a promise, or when the deadline is over. */
export function uploadWithLedger(options: LedgerOptions): Promise<LedgerUpload> {
  return new LedgerClient(options).run()
}

class LedgerClient {
  readonly #options: LedgerOptions
  readonly #chance: Chance
  readonly #deadline: number
  readonly #ledger: LedgerEntry[] = []
  #acknowledged = 0
  #lostCreations = 0
  #silences = 0
  #path = ''

  constructor(options: LedgerOptions) {
    this.#options = options
    this.#chance = chance(`ledger ${options.seed}`)
    this.#deadline = performance.now() + (options.deadlineMs ?? 60_000)
  }

  async run(): Promise<LedgerUpload> {
    const { seed, bytes, url } = this.#options
    this.#path = url === undefined ? await this.#create() : new URL(url).pathname
    let offset = url === undefined ? 0 : await this.#ask()
    while (offset < bytes) offset = (await this.#append(offset)) ?? (await this.#ask())
    return {
      path: this.#path,
      id: decodeURIComponent(this.#path.slice(this.#path.lastIndexOf('/') + 1)),
      seed,
      bytes,
      acknowledged: this.#acknowledged,
      ledger: this.#ledger,
      lostCreations: this.#lostCreations,
      silences: this.#silences,
    }
  }

  async #create(): Promise<string> {
    for (;;) {
      const ended = await this.#send('POST', '/files/', { headers: { 'Upload-Length': this.#options.bytes } })
      if (ended.is === 'answered' && ended.status === 201)
        return new URL(ended.location ?? '', 'http://any').pathname
      if (ended.is === 'cut') this.#lostCreations++
      else if (ended.status !== 503) this.#fail(`creation was answered ${ended.status} ${ended.body}`)
      await this.#pause()
    }
  }

  /** The offset after it; undefined when it has to be asked for. */
  async #append(offset: number): Promise<number | undefined> {
    const { bytes, seed, patchBytes = [64 * KiB, 2048 * KiB], bytesPerSecond = 4096 * KiB } = this.#options
    const end = Math.min(bytes, offset + this.#chance.between(...patchBytes))
    const ended = await this.#send('PATCH', this.#path, {
      headers: {
        'Upload-Offset': offset,
        'Content-Type': 'application/offset+octet-stream',
        'Content-Length': end - offset,
      },
      body: pieces(seed, offset, end),
      bytesPerSecond,
    })
    if (ended.is === 'cut') return this.#pause()
    if (ended.status === 204) {
      if (ended.offset === undefined) this.#fail('PATCH was answered 204 without Upload-Offset')
      if (ended.offset > end) this.#fail(`PATCH up to ${end} was answered Upload-Offset ${ended.offset}`)
      return ended.offset
    }
    if (![409, 423, 503].includes(ended.status))
      this.#fail(`PATCH was answered ${ended.status} ${ended.body}`)
    return ended.status === 409 ? undefined : this.#pause()
  }

  async #ask(): Promise<number> {
    for (;;) {
      const ended = await this.#send('HEAD', this.#path)
      if (ended.is === 'answered') {
        if (ended.status === 200 && ended.offset !== undefined) return ended.offset
        // Clients begin again at byte 0 after anything else.
        if (ended.status !== 423) this.#fail(`HEAD was answered ${ended.status}`)
      }
      await this.#pause()
    }
  }

  async #send(method: string, path: string, options: Parameters<typeof send>[2] = {}): Promise<Ended> {
    const { urls, signal, onAcknowledged } = this.#options
    signal?.throwIfAborted()
    if (performance.now() > this.#deadline) this.#fail('the deadline is over')
    const url = `${this.#chance.pick(urls)}${path}`
    const ended = await send(method, url, { ...options, ...(signal && { signal }) })
    signal?.throwIfAborted()
    if (ended.is === 'cut') {
      if (ended.why === silent) this.#silences++
      this.#ledger.push({ method, url, status: undefined, offset: undefined, why: ended.why })
      return ended
    }
    const { status, offset } = ended
    this.#ledger.push({ method, url, status, offset })
    if (offset === undefined || status >= 500) return ended
    if (offset < this.#acknowledged)
      this.#fail(`${offset} was answered after ${this.#acknowledged} had been acknowledged`)
    this.#acknowledged = offset
    onAcknowledged?.(offset)
    return ended
  }

  /** Shorter than people's clients: faults end soon, and no time is to be lost. */
  async #pause(): Promise<undefined> {
    await sleep(this.#chance.between(20, 200))
  }

  #fail(why: string): never {
    const { seed, bytes } = this.#options
    const last = this.#ledger.slice(-12).map((entry) => JSON.stringify(entry))
    const head = `upload ${JSON.stringify(seed)} of ${bytes} bytes (TEST_SEED=${testSeed}) at ${this.#path}`
    throw new Error(`${head}: ${why}\nThe last exchanges:\n  ${last.join('\n  ')}`)
  }
}

function* pieces(seed: string, start: number, end: number): Generator<Buffer> {
  for (let at = start; at < end; at += pieceBytes) yield contentOf(seed, at, Math.min(end, at + pieceBytes))
}
