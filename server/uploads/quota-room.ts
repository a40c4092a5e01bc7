/**
 * Room for an upload whose length is not known yet: it is reserved in steps ahead of the body, so that the ledger is
 * not asked for every batch, and what was not used is given back at the end.
 */
import type { UploadRecord } from '../../stores/contracts.ts'
import type { Quotas } from './quotas.ts'
import type { UploadRequest } from './upload-request.ts'

/** Reserved at a time. So much of a quota may be held by an upload that is being received, and not used in the end. */
const stepBytes = 8 * 1024 * 1024

export class QuotaRoom {
  readonly #quotas: Quotas
  readonly #record: UploadRecord
  readonly #request: UploadRequest
  #reserved: number
  /** Of two accounts one may have given more than the other. */
  #hasAsked = false

  constructor(quotas: Quotas, record: UploadRecord, request: UploadRequest, reserved: number) {
    this.#quotas = quotas
    this.#record = record
    this.#request = request
    this.#reserved = reserved
  }

  /** Returns when the upload may have so many bytes; refuses when it may not. */
  async reserve(bytes: number): Promise<void> {
    if (bytes <= this.#reserved) return
    this.#hasAsked = true
    this.#reserved = await this.#quotas.grow(this.#record.head, bytes, bytes, this.#request)
  }

  /** The same for a body of which nobody knows how long it is. Undefined when there is nothing to wait for. */
  reserveAhead(bytes: number): Promise<void> | undefined {
    if (bytes <= this.#reserved) return undefined
    this.#hasAsked = true
    return this.#quotas.grow(this.#record.head, bytes, bytes + stepBytes, this.#request).then((granted) => {
      this.#reserved = granted
    })
  }

  /** To be called under the lock, when the body has ended and `kept` is what there is of the upload. */
  async giveBack(kept: UploadRecord): Promise<void> {
    if (this.#hasAsked && kept.mark.state === 'open') await this.#quotas.settleOpen(kept)
  }
}
