/**
 * Puts right what the ledger says wrongly: entries of creations that a killed server never began, of uploads whose end
 * nobody told, and, in a walk through everything, of uploads that are gone. An upload that is there is noted by whoever
 * looks at it; see Lifetime.
 */
import type { ByteStore, Now } from '../../stores/contracts.ts'
import type { LedgerEntry } from '../../stores/ledger.ts'
import { lookAfterMs, type Quotas } from './quotas.ts'

const dueAtOnce = 100

export class QuotaUpkeep {
  readonly #quotas: Quotas
  readonly #bytes: ByteStore
  readonly #now: Now

  constructor({ quotas, bytes, now }: { quotas: Quotas; bytes: ByteStore; now: Now }) {
    this.#quotas = quotas
    this.#bytes = bytes
    this.#now = now
  }

  /** Looks at the uploads at which it is time to look. */
  async lookAtDue(now: number, mayGoOn: () => boolean): Promise<void> {
    const { ledger } = this.#quotas
    for (;;) {
      const due = await ledger.due(now, dueAtOnce)
      for (const entry of due) {
        if (!mayGoOn()) return
        if (await this.#noteIfCounted(entry)) continue
        await ledger.settle(entry, { is: 'gone' })
        // Whoever created it just now was late, and is counted again.
        await this.#noteIfCounted(entry)
      }
      if (due.length < dueAtOnce) return
    }
  }

  /**
   * Looks at every entry. One of a finished upload that is not there is removed; one that is open may be of a creation
   * that goes on just now, so it is looked at again in a while.
   */
  async walk(mayGoOn: () => boolean, rest: () => Promise<void>): Promise<void> {
    const { ledger } = this.#quotas
    for await (const entry of ledger.entries()) {
      if (!mayGoOn()) return
      await rest()
      if (await this.#isCounted(entry)) continue
      const lookAt = this.#now() + lookAfterMs
      if (entry.isOpen) await ledger.settle(entry, { is: 'open', bytes: 0, atLeast: true, lookAt })
      else await ledger.settle(entry, { is: 'gone' })
    }
  }

  async #isCounted({ id, createdAt, account }: LedgerEntry): Promise<boolean> {
    const head = (await this.#bytes.look(id))?.head
    return head?.createdAt === createdAt && this.#quotas.isCountedIn(head, account)
  }

  async #noteIfCounted({ id, createdAt, account }: LedgerEntry): Promise<boolean> {
    const record = await this.#bytes.look(id)
    if (record?.head.createdAt !== createdAt || !this.#quotas.isCountedIn(record.head, account)) return false
    await this.#quotas.note(record)
    return true
  }
}
