/**
 * The file system, with small operations done in place as long as it answers at once.
 *
 * Every asynchronous operation is a way to a thread and back, which costs more than what a page cache needs for a small
 * read or write; and a small upload is made of nothing else. So what touches little runs on the event loop, until it takes long: then the
 * disk is busy, and everything goes to threads for a while. What moves many bytes, syncs or walks always does.
 */
import fs, { type Stats } from 'node:fs'
import promises from 'node:fs/promises'
import type { Readable } from 'node:stream'
import type { FileSystem, OpenFile } from './file-system.ts'

/** Longer than this nothing small takes unless it waits for a disk. */
const slowMs = 5
/** For so long nothing is done in place after something was slow; twice as long each time, while it stays so. */
const firstRestMs = 1_000
const longestRestMs = 60_000
const smallBytes = 64 * 1024

/** Decides where small operations run. */
export class Pace {
  readonly #now: () => number
  #restUntil = Number.NEGATIVE_INFINITY
  #restMs = firstRestMs
  /** Never in place: another machine may let anything wait for ever. */
  isRemote = false

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  async run<T>(inPlace: () => T, inThread: () => Promise<T>): Promise<T> {
    const startedAt = this.#now()
    if (this.isRemote || startedAt < this.#restUntil) return inThread()
    try {
      return inPlace()
    } finally {
      this.#learn(startedAt)
    }
  }

  #learn(startedAt: number): void {
    const now = this.#now()
    if (now - startedAt < slowMs) return
    const isSlowAgain = startedAt < this.#restUntil + this.#restMs
    this.#restMs = isSlowAgain ? Math.min(2 * this.#restMs, longestRestMs) : firstRestMs
    this.#restUntil = now + this.#restMs
  }
}

/** Each has a pace of its own: two folders may lie on two disks. */
export function quickFiles(pace = new Pace()): FileSystem & { readonly pace: Pace } {
  return {
    ...promises,
    pace,
    open: (file: string, flags: string | number) =>
      pace.run(
        () =>
          new QuickFile(
            withoutStack(() => fs.openSync(file, flags)),
            pace,
          ),
        async () => new QuickFile(await inThread<number>((done) => fs.open(file, flags, done)), pace),
      ),
    stat: (file: string) =>
      pace.run(
        () => withoutStack(() => fs.statSync(file)),
        () => promises.stat(file),
      ),
  }
}

class QuickFile implements OpenFile {
  readonly #pace: Pace
  #fd: number
  #pending = 0
  #onIdle: (() => void) | undefined

  constructor(fd: number, pace: Pace) {
    this.#fd = fd
    this.#pace = pace
  }

  /** -1 once it is closed: the number may be another file's by then. */
  get fd(): number {
    return this.#fd
  }

  async read(buffer: Uint8Array, offset: number, length: number, position: number) {
    const bytesRead = await this.#run<number>(
      length <= smallBytes,
      (fd) => fs.readSync(fd, buffer, offset, length, position),
      (fd, done) => fs.read(fd, buffer, offset, length, position, done),
    )
    return { bytesRead }
  }

  async write(buffer: Uint8Array, offset: number, length: number, position: number) {
    const bytesWritten = await this.#run<number>(
      length <= smallBytes,
      (fd) => fs.writeSync(fd, buffer, offset, length, position),
      (fd, done) => fs.write(fd, buffer, offset, length, position, done),
    )
    return { bytesWritten }
  }

  async writev(buffers: readonly Uint8Array[], position: number) {
    const list = buffers as Uint8Array[]
    const bytes = list.reduce((sum, { byteLength }) => sum + byteLength, 0)
    const bytesWritten = await this.#run<number>(
      bytes <= smallBytes,
      (fd) => fs.writevSync(fd, list, position),
      (fd, done) => fs.writev(fd, list, position, done),
    )
    return { bytesWritten }
  }

  stat(): Promise<Stats> {
    return this.#run<Stats>(
      true,
      (fd) => fs.fstatSync(fd),
      (fd, done) => fs.fstat(fd, done),
    )
  }

  truncate(length: number): Promise<void> {
    return this.#run<void>(false, undefined, (fd, done) => fs.ftruncate(fd, length, done))
  }

  datasync(): Promise<void> {
    return this.#run<void>(false, undefined, (fd, done) => fs.fdatasync(fd, done))
  }

  sync(): Promise<void> {
    return this.#run<void>(false, undefined, (fd, done) => fs.fsync(fd, done))
  }

  /** Gives the file to the stream, which closes it. */
  createReadStream(options: { start: number; end: number; highWaterMark: number }): Readable {
    const fd = this.#fd
    if (fd === -1) throw closed()
    this.#fd = -1
    return fs.createReadStream('', { ...options, fd, autoClose: true })
  }

  /** Waits for what is under way; safe to call twice. */
  async close(): Promise<void> {
    const fd = this.#fd
    if (fd === -1) return
    this.#fd = -1
    if (this.#pending > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve
      })
    }
    await this.#pace.run(
      () => fs.closeSync(fd),
      () => inThread<void>((done) => fs.close(fd, done)),
    )
  }

  async #run<T>(
    isSmall: boolean,
    inPlace: ((fd: number) => T) | undefined,
    start: (fd: number, done: Done<T>) => void,
  ): Promise<T> {
    const fd = this.#fd
    if (fd === -1) throw closed()
    const threaded = () => this.#busy(() => inThread<T>((done) => start(fd, done)))
    return isSmall && inPlace ? this.#pace.run(() => inPlace(fd), threaded) : threaded()
  }

  async #busy<T>(work: () => Promise<T>): Promise<T> {
    this.#pending++
    try {
      return await work()
    } finally {
      this.#pending--
      if (this.#pending === 0) this.#onIdle?.()
    }
  }
}

type Done<T> = (error: NodeJS.ErrnoException | null, result?: T) => void

function inThread<T>(start: (done: Done<T>) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, result) => (error ? reject(error) : resolve(result as T)))
  })
}

/** Most failures are files that are not there, as was expected; to say where from costs more than to look for one. */
function withoutStack<T>(work: () => T): T {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return work()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

function closed(): Error {
  return Object.assign(new Error('EBADF: the file is closed'), { code: 'EBADF' })
}
