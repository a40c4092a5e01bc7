/** What a hold needs to take a body in: where its bytes go, what hashes them, and the short way of one that is at hand. */
import type { Appender } from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'
import type { Ended, ReceiverOptions } from './byte-path.ts'
import type { RunningDigest } from './digest.ts'
import type { FillPlan } from './fill-plan.ts'
import type { QuotaRoom } from './quota-room.ts'
import { giveBack } from './spent-pieces.ts'
import type { UploadRequest } from './upload-request.ts'
import type { WholeHash } from './whole-hash.ts'

/** The body, where it has come already and is to be taken as it is. Undefined where it has to be received. */
export function bodyAtHand(plan: FillPlan, request: UploadRequest): Uint8Array | undefined {
  const { offset, length, maxBytes, contentLength, checksum } = plan
  if (contentLength === undefined || offset + contentLength > (length ?? maxBytes)) return undefined
  if (checksum && 'is' in checksum) return undefined
  return request.wholeBody?.(contentLength)
}

type Taking = Pick<ReceiverOptions, 'write' | 'digest' | 'freesPieces'> & { readonly meter: Meter }

/** Writes a body that is at hand: there is nothing to wait for, to watch or to stop. */
export async function takeBody(body: Uint8Array, offset: number, taking: Taking): Promise<Ended> {
  const { write, digest, freesPieces, meter } = taking
  const { length } = body
  digest?.update(body)
  try {
    await write([body], offset)
  } catch (error) {
    return { why: 'failed', error, offset }
  }
  if (freesPieces) giveBack([body])
  meter.bodyCame(length)
  return { why: 'complete', offset: offset + length }
}

/** Asks for room before bytes are written. */
export function writeWithin(room: QuotaRoom, appender: Appender): Appender['write'] {
  return async (buffers, position) => {
    await room.reserveAhead(buffers.reduce((end, { byteLength }) => end + byteLength, position))
    await appender.write(buffers, position)
  }
}

/** Nothing, where nothing is hashed. */
export function digestsOf(
  digest: RunningDigest | undefined,
  whole: WholeHash | undefined,
): Pick<ReceiverOptions, 'digest'> {
  if (!whole) return digest ? { digest } : {}
  if (!digest) return { digest: whole }
  const update = (bytes: Uint8Array) => {
    digest.update(bytes)
    whole.update(bytes)
  }
  return { digest: { update } }
}
