/**
 * What an upload as a whole hashes to, computed while its bytes come. A hash is kept in this process from one request to
 * the next; what it has not seen, because another process received it, is read from the store once, beside the body where
 * this request can finish the upload, else when one does. No upload is ever held in memory.
 *
 * A kept hash counts only while nobody else has moved the mark that it was kept with: whoever did may have set it back.
 */
import { createHash, type Hash } from 'node:crypto'
import type { Appender, Digest, UploadRecord } from '../../stores/contracts.ts'
import { isPart } from './kin.ts'

/** - `declared`: where the client says what it shall be; `always`: for every upload; `never`: nothing that is declared counts */
export type DigestPolicy = 'declared' | 'always' | 'never'

/** Uploads of which one process keeps a hash; each is less than a kilobyte. */
const mostKept = 4096

/**
 * As often may the mark have been written since: when the upload was let go of, and opened again. Whoever set it back and let it grow
 * again has written it once more than that.
 */
const ownMarks = 2

interface State {
  readonly hash: Hash
  readonly offset: number
}

interface Kept extends State {
  readonly generation: number
  readonly sequence: number
}

const names = { 'sha-256': 'sha256', 'sha-512': 'sha512' } as const

export class WholeHashes {
  readonly #policy: DigestPolicy
  /** The oldest first. */
  readonly #kept = new Map<string, Kept>()

  constructor(policy: DigestPolicy) {
    this.#policy = policy
  }

  /** Whether and how an upload is hashed. What was declared once is verified, whatever the setting is by now. */
  algorithmOf({ digest, ...head }: UploadRecord['head']): Digest['algorithm'] | undefined {
    if (digest) return digest.algorithm
    // Of parts nobody is told: what was uploaded is their final.
    return this.#policy === 'always' && !isPart({ ...head }) ? 'sha-256' : undefined
  }

  /** Goes on hashing an upload that was just opened; undefined where it is not hashed. */
  begin(appender: Appender): WholeHash | undefined {
    const { head, mark } = appender.record
    const algorithm = this.algorithmOf(head)
    if (algorithm === undefined) return undefined
    const kept = this.#kept.get(head.id)
    this.#kept.delete(head.id)
    const isSame =
      kept?.generation === mark.generation &&
      mark.sequence - kept.sequence <= ownMarks &&
      kept.offset <= mark.offset
    const state = isSame ? kept : { hash: createHash(names[algorithm]), offset: 0 }
    return new WholeHash(algorithm, state, appender)
  }

  /** Keeps a hash for the next request, once the upload was let go. */
  keep(hash: WholeHash, { head, mark }: UploadRecord): void {
    const state = mark.state === 'open' ? hash.stateAt(mark.offset) : undefined
    if (state === undefined) return
    this.#kept.set(head.id, { ...state, generation: mark.generation, sequence: mark.sequence })
    if (this.#kept.size <= mostKept) return
    const [oldest] = this.#kept.keys()
    this.#kept.delete(oldest!)
  }
}

/** The hash of one upload, during one request. */
export class WholeHash {
  readonly #algorithm: Digest['algorithm']
  readonly #appender: Appender
  /** Where the mark stood when the request began: what is before it stays as it is. */
  readonly #marked: number
  readonly #hash: Hash
  #offset: number
  /** The hash as it was at the mark, when more has passed. */
  #atMark: State | undefined
  /** Where the next bytes of the body begin. */
  #position: number
  /** Where the last write that returned has ended. */
  #written: number
  #reading: Promise<void> | undefined
  #isStopped = false
  #wake: (() => void) | undefined

  constructor(algorithm: Digest['algorithm'], { hash, offset }: State, appender: Appender) {
    this.#algorithm = algorithm
    this.#appender = appender
    this.#hash = hash
    this.#offset = offset
    this.#marked = appender.record.mark.offset
    this.#position = this.#marked
    this.#written = this.#marked
    this.#noteMark()
  }

  /** Sees the bytes of the body, in order, before they are written. */
  update(bytes: Uint8Array): void {
    const isNext = this.#offset === this.#position && this.#reading === undefined
    this.#position += bytes.length
    if (isNext) this.#add(bytes)
  }

  /** To be called when what was seen is written. */
  wrote(): void {
    this.#written = this.#position
    this.#wake?.()
  }

  /** Reads what this hash has not seen, behind the body, until it has overtaken it. */
  catchUp(): void {
    if (this.#offset === this.#position) return
    this.#reading ??= this.#chase()
      // What could not be read is read again for the finish, which then says why.
      .catch(() => undefined)
      .finally(() => {
        this.#reading = undefined
      })
  }

  /** The digest of the bytes [0, length), which are all written; undefined when `isStopped` says so before it is known. */
  async digest(length: number, isStopped: () => boolean): Promise<Digest | undefined> {
    await this.stop()
    await this.#readTo(length, isStopped)
    if (this.#offset !== length) return undefined
    return { algorithm: this.#algorithm, base64: this.#hash.copy().digest('base64') }
  }

  /** Ends what reads the upload. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#wake?.()
    await this.#reading
  }

  /** What is known of the bytes before a mark. */
  stateAt(mark: number): State | undefined {
    return this.#offset <= mark ? { hash: this.#hash, offset: this.#offset } : this.#atMark
  }

  async #chase(): Promise<void> {
    while (!this.#isStopped && this.#offset < this.#position) {
      if (this.#offset < this.#written) await this.#readTo(this.#written, () => this.#isStopped)
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
    }
  }

  async #readTo(end: number, isStopped: () => boolean): Promise<void> {
    while (this.#offset < end && !isStopped()) {
      const stop = this.#offset < this.#marked ? Math.min(this.#marked, end) : end
      for await (const bytes of this.#appender.read(this.#offset, stop)) {
        this.#add(bytes)
        if (isStopped()) return
      }
    }
  }

  #add(bytes: Uint8Array): void {
    this.#hash.update(bytes)
    this.#offset += bytes.length
    this.#noteMark()
  }

  #noteMark(): void {
    if (this.#offset === this.#marked) this.#atMark = { hash: this.#hash.copy(), offset: this.#offset }
  }
}
