/** A form with files, of any number: each becomes an upload, and the answer says which. */
import { Refusal } from '../errors.ts'
import type { Exchange, Reply } from '../host/exchange.ts'
import { corsHeaders } from '../protocol/cors.ts'
import { keyOf } from '../protocol/plain.ts'
import type { Answer, RequestHeaders } from '../protocol/tus.ts'
import { notAnyMore } from '../uploads/outcomes.ts'
import type { Door, Visit } from './door.ts'
import { FormFiles, type StoredFile } from './form-files.ts'
import { type FormFile, FormReader } from './form-reader.ts'
import type { NamedUploads } from './named-uploads.ts'
import { type FileWords, pageOf, wantsPage } from './words.ts'

export class Forms {
  readonly #door: Door
  readonly #files: FormFiles

  constructor(door: Door, uploads: NamedUploads) {
    this.#door = door
    this.#files = new FormFiles(door, uploads)
  }

  async receive(visit: Visit, key: string | undefined): Promise<Reply> {
    const { engine } = this.#door
    const { exchange } = visit
    this.#refuseStrangers(exchange.headers)
    const request = await visit.requestOf()
    const { asker } = request
    if (engine.isDraining) throw new Refusal('unavailable', { retryAfterS: 1 })
    // Only now a client that waits is told to go on.
    const form = new FormReader(exchange.body(), exchange.headers, {
      idleMs: engine.settings.idleMs,
      stop: engine.draining,
    })
    const whose = () => clientOf(asker.owner, key ?? keyOf(form.fields.get('upload-key')), exchange)
    const stored = new StoredFiles(this.#door)
    try {
      for (let file = await form.next(); file; file = await form.next()) {
        if (await isNothing(file)) continue
        const result = await this.#files.store(file, visit, whose())
        if (result.is === 'cut') return cut(exchange, result.why)
        if (result.is === 'unfinished') break
        stored.add(result, this.#wordsOf(result, file, exchange))
        count(exchange, result)
      }
      if (form.end === 'client-gone') return cut(exchange, 'client-gone')
      if (form.end !== 'whole') throw request.mayGoOn() ? brokenOff(form) : notAnyMore()
      if (stored.words.length === 0) throw new Refusal('form-empty')
      const { words: files } = stored
      const answer = wantsPage(exchange.headers) ? pageOf(files) : json(201, { files })
      return { is: 'answer', ...stored.conclude(withLocation(answer, files[0]!)) }
    } catch (error) {
      return await this.#answerError(error, exchange, stored)
    } finally {
      // Of what is stored others are told, whatever became of the rest.
      stored.conclude({ status: 201, headers: {} })
    }
  }

  #wordsOf({ record, sha256 }: StoredFile, { field, name, type }: FormFile, exchange: Exchange): FileWords {
    const { id } = record.head
    const url = this.#door.locationOf(id, exchange)
    return { field, name, id, url, size: record.mark.offset, sha256, ...(type !== undefined && { type }) }
  }

  async #answerError(error: unknown, exchange: Exchange, { words }: StoredFiles): Promise<Reply> {
    const answer = await this.#door.answerError(error, exchange, 'POST')
    return { is: 'answer', ...formError(answer, exchange, words) }
  }

  /** A browser sends forms of any site without asking; then only those of sites that may upload are taken. */
  #refuseStrangers(headers: RequestHeaders): void {
    const { origin, host } = headers
    if (typeof origin !== 'string' || origin.replace(/^https?:\/\//, '') === host) return
    const allowed = corsHeaders(headers, this.#door.options, false)['Access-Control-Allow-Origin']
    if (allowed === undefined) throw new Refusal('origin-refused')
  }
}

/**
 * The files of a form that are stored. A finish hook may want another answer: it has it where there is one file alone, and
 * else its headers are added.
 */
class StoredFiles {
  readonly words: FileWords[] = []
  readonly #door: Door
  /** The one that is not told yet: it may be the only one. */
  #last: StoredFile | undefined
  #headers: Record<string, string> = {}

  constructor(door: Door) {
    this.#door = door
  }

  add(file: StoredFile, words: FileWords): void {
    this.#headers = this.conclude({ status: 201, headers: { Location: words.url } }).headers
    this.#last = file
    this.words.push(words)
  }

  conclude(answer: Answer): Answer {
    const whole = { ...answer, headers: { ...this.#headers, ...answer.headers } }
    const file = this.#last
    if (file === undefined) return whole
    this.#last = undefined
    const changed = file.request.conclude(whole, file.record, this.#door.engine.teller)
    return this.words.length > 1 ? { ...whole, headers: changed.headers } : changed
  }
}

/** Says what is wrong with a form, and which of its files are stored all the same. */
export function formError(
  { status, headers, body }: Answer,
  { facts, headers: asked }: Exchange,
  files: readonly FileWords[] = [],
): Answer {
  // The code stands beside the sentence here.
  const message = (body ?? '').trim().replace(`${facts.code}: `, '')
  const error = { code: facts.code, message }
  const said = wantsPage(asked) ? pageOf(files, message) : json(status, { error, files })
  return { ...said, status, headers: { ...headers, ...said.headers } }
}

/** Who sends a form, as far as it is known: by sign-in, by a word of their own, or by their address. */
function clientOf(
  owner: string | undefined,
  key: string | undefined,
  { facts, peerAddress }: Exchange,
): string[] {
  if (owner !== undefined) return ['owner', owner, key ?? '']
  if (key !== undefined) return ['key', key]
  return ['address', facts.remoteAddress ?? peerAddress ?? '']
}

/** Browsers send a file without name and bytes for a field in which nothing was chosen. */
async function isNothing(file: FormFile): Promise<boolean> {
  if (file.name !== '') return false
  if (await file.next()) throw new Refusal('name-invalid')
  return true
}

function brokenOff({ end }: FormReader): Refusal {
  if (end === 'cut') return new Refusal('form-cut')
  if (end === 'idle') return new Refusal('body-idle')
  return new Refusal('unavailable', { retryAfterS: 1 })
}

function withLocation(answer: Answer, { url }: FileWords): Answer {
  return { ...answer, headers: { ...answer.headers, Location: url } }
}

function count({ facts }: Exchange, { record }: StoredFile): void {
  facts.bytesReceived = (facts.bytesReceived ?? 0) + record.mark.offset
}

function cut({ facts }: Exchange, why: string): Reply {
  facts.code = why
  return { is: 'cut' }
}

function json(status: number, value: unknown): Answer {
  const headers = { 'Content-Type': 'application/json; charset=utf-8', 'Cache-Control': 'no-store' }
  return { status, headers, body: `${JSON.stringify(value)}\n` }
}
