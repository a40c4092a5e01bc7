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
import { type FileSystem, isThere, type OpenFile } from './file-system.ts'
import { Parking, reopen, type Whereabouts, whereaboutsOf } from './parking.ts'

/** Longer than this nothing small takes unless it waits: for a disk, or for a processor that others have. */
const slowMs = 5
/** Nobody waits so long for a processor. */
const verySlowMs = 50
/** Of so many a slow disk is slow twice. A busy processor takes turns a hundred times a second: hardly ever. */
const watchedOperations = 20
/** For so long nothing is done in place after something was slow; twice as long each time, while it stays so. */
const firstRestMs = 1_000
const longestRestMs = 60_000
const smallBytes = 64 * 1024

/** Decides where small operations run. */
export class Pace {
  readonly #now: () => number
  #restUntil = Number.NEGATIVE_INFINITY
  #restMs = firstRestMs
  #sinceSlow = watchedOperations
  /** Never in place: another machine may let anything wait for ever. */
  isRemote = false

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Makes no promise but the one that it answers: a small upload is ten of these. */
  run<T>(inPlace: () => T, inThread: () => Promise<T>): Promise<T> {
    const startedAt = this.#now()
    if (this.isRemote || startedAt < this.#restUntil) return inThread()
    try {
      return Promise.resolve(inPlace())
    } catch (error) {
      return Promise.reject(error)
    } finally {
      this.#learn(startedAt)
    }
  }

  #learn(startedAt: number): void {
    const now = this.#now()
    const tookMs = now - startedAt
    if (tookMs < slowMs) {
      this.#sinceSlow++
      return
    }
    const isDisk = tookMs >= verySlowMs || this.#sinceSlow < watchedOperations
    this.#sinceSlow = 0
    if (!isDisk) return
    const isSlowAgain = startedAt < this.#restUntil + this.#restMs
    this.#restMs = isSlowAgain ? Math.min(2 * this.#restMs, longestRestMs) : firstRestMs
    this.#restUntil = now + this.#restMs
  }
}

/** Each has a pace of its own: two folders may lie on two disks. */
export function quickFiles(pace = new Pace(), parking = new Parking()): FileSystem & { readonly pace: Pace } {
  const opened = (fd: number, file: string, flags: string | number) => {
    const quick = new QuickFile(fd, pace, parking, file)
    // Who only reads is done soon.
    if (flags !== 'r') parking.add(quick)
    return quick
  }
  return {
    ...promises,
    pace,
    open: (file: string, flags: string | number) =>
      pace.run(
        () => opened(openInPlace(file, flags), file, flags),
        async () => opened(await inThread<number>((done) => fs.open(file, flags, done)), file, flags),
      ),
    stat: (file: string) =>
      pace.run(
        () => statInPlace(file),
        () => promises.stat(file),
      ),
    isThere: (file: string) =>
      pace.run(
        () => fs.statSync(file, { throwIfNoEntry: false }) !== undefined,
        () => isThere(promises, file),
      ),
    unlinkEmpty: (file: string) =>
      pace.run(
        () => fs.unlinkSync(file),
        () => promises.unlink(file),
      ),
  }
}

class QuickFile implements OpenFile {
  readonly #pace: Pace
  readonly #parking: Parking
  readonly #file: string
  #fd: number
  /** Set while it is parked: what is needed to open it again. */
  #parkedAt: Whereabouts | undefined
  #pending = 0
  #onIdle: (() => void) | undefined

  constructor(fd: number, pace: Pace, parking: Parking, file: string) {
    this.#fd = fd
    this.#pace = pace
    this.#parking = parking
    this.#file = file
  }

  /** -1 once it is closed: the number may be another file's by then. From here on it is not parked. */
  get fd(): number {
    if (this.#parkedAt) this.#unpark()
    this.#parking.remove(this)
    return this.#fd
  }

  /** Closes the file until it is used again. False while that can not be. */
  park(): boolean {
    if (this.#fd === -1 || this.#pending > 0 || this.#pace.isRemote) return false
    const fd = this.#fd
    this.#parkedAt = whereaboutsOf(fd)
    this.#fd = -1
    fs.closeSync(fd)
    return true
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number) {
    return this.#run<{ bytesRead: number }>(
      length <= smallBytes,
      (fd) => ({ bytesRead: fs.readSync(fd, buffer, offset, length, position) }),
      (fd, done) =>
        fs.read(fd, buffer, offset, length, position, (error, bytesRead) => done(error, { bytesRead })),
    )
  }

  write(buffer: Uint8Array, offset: number, length: number, position: number) {
    return this.#run<{ bytesWritten: number }>(
      length <= smallBytes,
      (fd) => ({ bytesWritten: fs.writeSync(fd, buffer, offset, length, position) }),
      (fd, done) =>
        fs.write(fd, buffer, offset, length, position, (error, bytesWritten) =>
          done(error, { bytesWritten }),
        ),
    )
  }

  writev(buffers: readonly Uint8Array[], position: number) {
    const list = buffers as Uint8Array[]
    let bytes = 0
    for (const { byteLength } of list) bytes += byteLength
    return this.#run<{ bytesWritten: number }>(
      bytes <= smallBytes,
      (fd) => ({ bytesWritten: fs.writevSync(fd, list, position) }),
      (fd, done) => fs.writev(fd, list, position, (error, bytesWritten) => done(error, { bytesWritten })),
    )
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
    const { fd } = this
    if (fd === -1) throw closed()
    this.#fd = -1
    return fs.createReadStream('', { ...options, fd, autoClose: true })
  }

  /** Waits for what is under way; safe to call twice. */
  close(): Promise<void> {
    const fd = this.#fd
    this.#parking.remove(this)
    this.#parkedAt = undefined
    if (fd === -1) return Promise.resolve()
    this.#fd = -1
    return this.#pending > 0 ? this.#closeWhenIdle(fd) : this.#close(fd)
  }

  async #closeWhenIdle(fd: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
    await this.#close(fd)
  }

  #close(fd: number): Promise<void> {
    return this.#pace.run(
      () => fs.closeSync(fd),
      () => inThread<void>((done) => fs.close(fd, done)),
    )
  }

  #unpark(): void {
    this.#fd = reopen(this.#file, this.#parkedAt!)
    this.#parkedAt = undefined
    this.#parking.add(this)
  }

  #run<T>(
    isSmall: boolean,
    inPlace: ((fd: number) => T) | undefined,
    start: (fd: number, done: Done<T>) => void,
  ): Promise<T> {
    try {
      if (this.#parkedAt) this.#unpark()
    } catch (error) {
      return Promise.reject(error)
    }
    const fd = this.#fd
    if (fd === -1) return Promise.reject(closed())
    if (!isSmall || !inPlace) return this.#busy(fd, start)
    return this.#pace.run(
      () => inPlace(fd),
      () => this.#busy(fd, start),
    )
  }

  #busy<T>(fd: number, start: (fd: number, done: Done<T>) => void): Promise<T> {
    this.#pending++
    return new Promise((resolve, reject) => {
      start(fd, (error, result) => {
        this.#pending--
        if (this.#pending === 0) this.#onIdle?.()
        if (error) reject(error)
        else resolve(result as T)
      })
    })
  }
}

type Done<T> = (error: NodeJS.ErrnoException | null, result?: T) => void

function inThread<T>(start: (done: Done<T>) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, result) => (error ? reject(error) : resolve(result as T)))
  })
}

function openInPlace(file: string, flags: string | number): number {
  return withoutStack(() => fs.openSync(file, flags))
}

function statInPlace(file: string): Stats {
  const stats = fs.statSync(file, { throwIfNoEntry: false })
  if (stats) return stats
  const error = withoutStack(() => new Error(`ENOENT: no such file or directory, stat '${file}'`))
  throw Object.assign(error, { code: 'ENOENT', syscall: 'stat', path: file })
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
