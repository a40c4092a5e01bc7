/**
 * The files of a form, one after the other, as somebody asks for their bytes. The one idea: nothing is read from the
 * client before what came is taken, so a form costs no more memory than one chunk, however many files it has.
 */
import type { Readable } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import { Busboy, type BusboyHeaders, type BusboyInstance } from '@fastify/busboy'
import { Refusal } from '../errors.ts'
import { isName, typeOf } from '../protocol/plain.ts'
import type { RequestHeaders } from '../protocol/tus.ts'

const limits = {
  fieldNameSize: 256,
  fieldSize: 64 * 1024,
  fields: 1000,
  files: 1000,
  parts: 2000,
  headerPairs: 64,
  headerSize: 16 * 1024,
}

/**
 * - `whole`: its last boundary came
 * - `cut`: its body ended before that
 * - `client-gone`, `idle`: the client went away, or was silent for too long
 * - `stopped`: somebody here asked for it
 */
export type FormEnd = 'whole' | 'cut' | 'client-gone' | 'idle' | 'stopped'

export interface FormReaderOptions {
  /** A form of which nothing comes for this long is ended. */
  readonly idleMs: number
  /** Aborts when no more is to be read. */
  readonly stop: AbortSignal
}

/** One file of a form, as far as it has come. */
export class FormFile {
  readonly field: string
  readonly name: string
  readonly type: string | undefined
  readonly #feed: () => Promise<boolean>
  readonly #chunks: Buffer[] = []
  #hasEnded = false
  #isBroken = false
  /** Bytes that were taken so far. */
  size = 0

  constructor(
    of: { field: string; name: string; type: string | undefined },
    stream: Readable,
    form: { feed: () => Promise<boolean>; isBroken: () => boolean },
  ) {
    this.field = of.field
    this.name = of.name
    this.type = of.type
    this.#feed = form.feed
    stream.on('data', (chunk: Buffer) => this.#chunks.push(chunk))
    // The end of a form that was cut off ends its last file, too.
    stream.on('end', () => {
      this.#hasEnded = !form.isBroken()
      this.#isBroken = !this.#hasEnded
    })
    stream.on('error', () => {
      this.#isBroken = true
    })
  }

  /** Whether all of it was taken, and its end has come. */
  get isWhole(): boolean {
    return this.#hasEnded && this.#chunks.length === 0
  }

  /** The next bytes; undefined when there are no more, because it is whole or the form has ended before. */
  async next(): Promise<Buffer | undefined> {
    for (;;) {
      const chunk = this.#chunks.shift()
      if (chunk) {
        this.size += chunk.length
        return chunk
      }
      if (this.#hasEnded || this.#isBroken || !(await this.#feed())) return this.#chunks.shift()
    }
  }
}

/** Why nothing more is read. */
type Unread = 'client-gone' | 'idle' | 'stopped'

export class FormReader {
  readonly fields = new Map<string, string>()
  readonly #source: Readable
  readonly #idleMs: number
  readonly #stop: AbortSignal
  readonly #parser: BusboyInstance
  readonly #files: FormFile[] = []
  #isParsed = false
  #isBroken = false
  #refusal: Refusal | undefined
  end: FormEnd | undefined

  constructor(source: Readable, headers: RequestHeaders, { idleMs, stop }: FormReaderOptions) {
    this.#source = source
    this.#idleMs = idleMs
    this.#stop = stop
    try {
      this.#parser = new Busboy({ headers: headers as BusboyHeaders, limits })
    } catch (error) {
      throw new Refusal('form-type', { cause: error })
    }
    // Whoever is still sending when this is over must not bring anybody down by going away.
    source.on('error', () => undefined)
    this.#listen()
  }

  /** The next file; undefined at the end of the form, and then `end` says which. Files before it must have been taken. */
  async next(): Promise<FormFile | undefined> {
    for (;;) {
      const file = this.#files.shift()
      if (file) return file
      if (this.#refusal) throw this.#refusal
      if (!(await this.#feed()) && this.#files.length === 0) {
        if (this.#refusal) throw this.#refusal
        return undefined
      }
    }
  }

  #listen(): void {
    const refuse = (code: 'form-large' | 'form-malformed', detail?: string) => {
      this.#refusal ??= new Refusal(code, { ...(detail !== undefined && { detail }) })
    }
    this.#parser.on('file', (field, stream, name, _encoding, type) => {
      const file = { field: field ?? '', name: fileName(name, field), type: typeOf(type) }
      const form = { feed: () => this.#feed(), isBroken: () => this.#isBroken }
      if (isFit(file.name)) this.#files.push(new FormFile(file, stream, form))
      else {
        this.#refusal ??= new Refusal('name-invalid')
        stream.on('error', () => undefined).resume()
      }
    })
    this.#parser.on('field', (name, value, isNameCut, isCut, _encoding, type) => {
      if (isNameCut || isCut) refuse('form-large')
      // What is in it would not be found, and the client told that all is well.
      if (type.startsWith('multipart/')) refuse('form-malformed', 'a form in a form is not understood here')
      if (name !== undefined) this.fields.set(name, value)
    })
    for (const limit of ['partsLimit', 'filesLimit', 'fieldsLimit'] as const)
      this.#parser.on(limit, () => refuse('form-large'))
    this.#parser.on('error', () => {
      this.#isBroken = true
    })
    this.#parser.on('finish', () => {
      this.#isParsed = true
    })
  }

  /** Hands the parser what came next. False when no more comes. */
  async #feed(): Promise<boolean> {
    if (this.end) return false
    const chunk = await this.#read()
    if (chunk === 'end') {
      await this.#finish()
      this.end = this.#isBroken ? 'cut' : 'whole'
      return false
    }
    if (typeof chunk === 'string') {
      this.end = chunk
      return false
    }
    // Beyond the last boundary nothing has a meaning.
    if (!this.#isParsed && !this.#isBroken)
      await new Promise<void>((resolve) => this.#parser.write(chunk, () => resolve()))
    return true
  }

  async #finish(): Promise<void> {
    if (this.#isParsed || this.#isBroken) return
    await new Promise<void>((resolve) => {
      this.#parser.once('finish', resolve)
      this.#parser.once('error', () => resolve())
      this.#parser.end()
    })
    // What the parser held back reaches its file in a later turn.
    await immediate()
  }

  /** What is there, or what comes next. The time that counts is the client's: it begins when we wait for it. */
  #read(): Promise<Buffer | 'end' | Unread> {
    const source = this.#source
    if (this.#stop.aborted) return Promise.resolve('stopped')
    const chunk: Buffer | null = source.read()
    if (chunk !== null) return Promise.resolve(chunk)
    if (source.readableEnded) return Promise.resolve('end')
    if (source.destroyed) return Promise.resolve('client-gone')
    return new Promise((resolve) => {
      const settle = (what: Buffer | 'end' | Unread) => {
        clearTimeout(timer)
        this.#stop.removeEventListener('abort', onStop)
        source.off('readable', onReadable).off('end', onEnd).off('close', onGone).off('error', onGone)
        resolve(what)
      }
      const onReadable = () => {
        const next: Buffer | null = source.read()
        if (next !== null) settle(next)
      }
      const onEnd = () => settle('end')
      const onGone = () => settle(source.readableEnded ? 'end' : 'client-gone')
      const onStop = () => settle('stopped')
      this.#stop.addEventListener('abort', onStop)
      const timer = setTimeout(() => settle('idle'), this.#idleMs)
      source.on('readable', onReadable).on('end', onEnd).on('close', onGone).on('error', onGone)
    })
  }
}

/** Browsers send an empty name for a field in which nothing was chosen; curl none for what is no file of its own. */
function fileName(name: string | undefined, field: string | undefined): string {
  return name ?? (field || 'file')
}

/** An empty name is that of a file that nobody chose. */
function isFit(name: string): boolean {
  return name === '' || isName(name)
}
