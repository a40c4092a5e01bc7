// Many uploads at once, and faults in the middle of them: each comes when so much of all content was acknowledged, so that
// the same things happen at the same places however fast the machine is.

import type { Fleet } from './fleet.ts'
import { type LedgerOptions, type LedgerUpload, uploadWithLedger } from './ledger-client.ts'

export type ManyUploads = Pick<LedgerOptions, 'bytesPerSecond' | 'patchBytes' | 'deadlineMs'> & {
  uploads: number
  /** Of each. */
  bytes: number
  /** In order. A fault begins when the one before it has ended and this part of all bytes was acknowledged. */
  faults: readonly (readonly [part: number, fault: () => Promise<unknown>])[]
}

/** Returns when all uploads are finished and all faults have happened. */
export async function uploadMany(fleet: Fleet, name: string, options: ManyUploads): Promise<LedgerUpload[]> {
  const { uploads, bytes, faults, ...rest } = options
  const open = [...faults]
  const acknowledged = Array<number>(uploads).fill(0)
  let sum = 0
  let happened: Promise<unknown> = Promise.resolve()

  const sent = Promise.all(
    acknowledged.map((_, index) =>
      uploadWithLedger({
        urls: fleet.urls,
        seed: `${name} ${index}`,
        bytes,
        ...rest,
        onAcknowledged(offset) {
          sum += offset - acknowledged[index]!
          acknowledged[index] = offset
          while (sum >= (open[0]?.[0] ?? Number.POSITIVE_INFINITY) * uploads * bytes) {
            const [, fault] = open.shift()!
            happened = happened.then(fault)
          }
        },
      }),
    ),
  )
  try {
    const done = await sent
    await happened
    return done
  } catch (error) {
    // A fault that failed says more than the client that suffered from it.
    await happened
    throw error
  }
}
