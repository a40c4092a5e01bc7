/**
 * Files that the server has already are not sent. Before a file is uploaded it is hashed, and its digest goes with the
 * creation; when the answer says that all is there, nothing follows but the question that ends the upload. Whatever is
 * in the way of a digest, the file is uploaded as ever: an error in here would stop all the others without a word.
 */
import type Uppy from '@uppy/core'
import type { Body, Meta, UppyFile } from '@uppy/core'
import type { HttpRequest, HttpResponse } from 'tus-js-client'
import { Digester } from './digester.ts'
import { hashingAtMostMs, isInTime } from './hashing-budget.ts'

type PageFile = UppyFile<Meta, Body>
type PageUppy = Uppy<Meta, Body>

const looking = 'Looking whether it is already there'

/** Thrown in place of a request that would send what is there. */
class NothingToSend extends Error {}

export class InstantUploads {
  readonly #isOffered: boolean
  readonly #creations = new WeakMap<HttpRequest, string>()
  /** Files that were found to be there, and are not yet told as finished. */
  readonly #there = new Set<string>()
  /** Of these, the ones whose next bytes have to be held back. */
  readonly #held = new Set<string>()

  constructor({ isInstant }: { isInstant: boolean }) {
    this.#isOffered = isInstant
  }

  /** A step of every page, also of those that hash nothing: what a browser has kept goes on at the step with its number. */
  addTo(uppy: PageUppy): void {
    uppy.addPreProcessor(async (fileIds) => {
      if (!this.#isOffered) return
      try {
        await declareDigests(uppy, fileIds)
      } catch (error) {
        uppy.log(error instanceof Error ? error : String(error), 'warning')
      }
    })
    uppy.on('file-removed', ({ id }) => {
      this.#there.delete(id)
      this.#held.delete(id)
    })
    uppy.on('complete', ({ successful = [] }) => {
      const there = successful.filter(({ id }) => this.wasThere(id))
      for (const { id } of there) this.#there.delete(id)
      if (there.length > 0) uppy.info(sentenceFor(there), 'success', 6000)
    })
  }

  /** Called before each request of an upload. */
  asking(request: HttpRequest, { id, meta }: PageFile): void {
    if (request.getMethod() === 'POST' && meta.sha256 !== undefined) this.#creations.set(request, id)
    // The client asks how much is there then, and is done.
    if (request.getMethod() === 'PATCH' && this.#held.delete(id)) throw new NothingToSend()
  }

  answered(request: HttpRequest, response: HttpResponse): void {
    const id = this.#creations.get(request)
    if (id === undefined || response.getStatus() !== 201) return
    if (response.getHeader('Upload-Offset') !== request.getHeader('Upload-Length')) return
    this.#there.add(id)
    this.#held.add(id)
  }

  isNothingToSend(error: Error | null): boolean {
    return error instanceof NothingToSend
  }

  wasThere(fileId: string): boolean {
    return this.#there.has(fileId)
  }
}

async function declareDigests(uppy: PageUppy, fileIds: string[]): Promise<void> {
  const files = uppy.getFiles().filter((file) => fileIds.includes(file.id) && isWorthHashing(file))
  if (files.length === 0) return
  const batch = new HashedBatch(uppy)
  try {
    for (const file of files) batch.show(file, 0)
    for (const file of files) await batch.hash(file)
  } finally {
    batch.close()
    for (const file of files) if (isKnown(uppy, file.id)) uppy.emit('preprocess-complete', file)
  }
}

/** An upload that was begun has told its digest, or does without. */
function isWorthHashing({ data, size, meta, tus, isGhost }: PageFile): boolean {
  return data instanceof Blob && !isGhost && (size ?? 0) > 0 && meta.sha256 === undefined && !tus?.uploadUrl
}

class HashedBatch {
  readonly #uppy: PageUppy
  readonly #digester = new Digester()
  readonly #endsAtMs = performance.now() + hashingAtMostMs
  #stopped = new AbortController()
  #hashedId: string | undefined
  readonly #onRemoved = ({ id }: PageFile) => {
    if (id === this.#hashedId) this.#stopped.abort()
  }

  constructor(uppy: PageUppy) {
    this.#uppy = uppy
    uppy.on('file-removed', this.#onRemoved)
  }

  async hash(file: PageFile): Promise<void> {
    const { id, data } = file
    const sizeBytes = file.size ?? 0
    const beganAtMs = performance.now()
    if (!isKnown(this.#uppy, id) || !this.#digester.isOfUse || beganAtMs >= this.#endsAtMs) return
    this.#stopped = new AbortController()
    this.#hashedId = id
    const timer = setTimeout(() => this.#stopped.abort(), this.#endsAtMs - beganAtMs)
    const sha256 = await this.#digester.sha256(data as Blob, this.#stopped.signal, (readBytes) => {
      const nowMs = performance.now()
      const pace = { readBytes, tookMs: nowMs - beganAtMs, leftMs: this.#endsAtMs - nowMs }
      if (isInTime(sizeBytes, pace)) this.show(file, readBytes / sizeBytes)
      else this.#stopped.abort()
    })
    clearTimeout(timer)
    this.#hashedId = undefined
    if (!isKnown(this.#uppy, id)) return
    this.show(file, 1)
    if (sha256 !== undefined) this.#uppy.setFileMeta(id, { sha256 })
  }

  show({ id }: PageFile, value: number): void {
    const file = this.#uppy.getFiles().find((one) => one.id === id)
    if (file === undefined) return
    const shown = file.progress.preprocess
    // Each of these draws the whole dashboard.
    if (shown?.mode === 'determinate' && Math.floor(shown.value * 100) === Math.floor(value * 100)) return
    this.#uppy.emit('preprocess-progress', file, { mode: 'determinate', message: looking, value })
  }

  close(): void {
    this.#digester.close()
    this.#uppy.off('file-removed', this.#onRemoved)
  }
}

function isKnown(uppy: PageUppy, fileId: string): boolean {
  return uppy.getFiles().some(({ id }) => id === fileId)
}

function sentenceFor(files: PageFile[]): string {
  const [{ name }] = files as [PageFile]
  if (files.length === 1) return `${name ?? 'This file'} was already there: nothing had to be sent`
  return `${files.length} files were already there: nothing of them had to be sent`
}
