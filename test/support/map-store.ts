// A @tus store as somebody may write one: uploads in memory, the creation extension and nothing else. Tests take its
// methods' place to let it fail, wait or forget.

import type { Readable } from 'node:stream'
import { DataStore, ERRORS, Upload } from '@tus/utils'

export class MapStore extends DataStore {
  override extensions = ['creation']
  readonly content = new Map<string, Buffer[]>()
  readonly #uploads = new Map<string, Upload>()

  override async create(upload: Upload): Promise<Upload> {
    this.#uploads.set(upload.id, upload)
    this.content.set(upload.id, [])
    return upload
  }

  override async getUpload(id: string): Promise<Upload> {
    const upload = this.#uploads.get(id)
    if (!upload) throw ERRORS.FILE_NOT_FOUND
    return Object.assign(new Upload(upload as never), { offset: this.bytesOf(id).length })
  }

  override async write(source: Readable, id: string, offset: number): Promise<number> {
    let end = offset
    for await (const chunk of source as AsyncIterable<Buffer>) {
      this.keep(id, chunk)
      end += chunk.length
    }
    return end
  }

  keep(id: string, chunk: Buffer): void {
    this.content.get(id)!.push(chunk)
  }

  bytesOf(id: string): Buffer {
    return Buffer.concat(this.content.get(id) ?? [])
  }
}
