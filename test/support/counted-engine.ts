// An engine that counts what ann uploads, and hands in the time; what was refused fails with its status and sentence.
import type { PassThrough } from 'node:stream'
import type { UploadEngine } from '../../server/uploads/engine.ts'
import type { QuotaPlan } from '../../server/uploads/quota-accounts.ts'
import { Quotas } from '../../server/uploads/quotas.ts'
import type { Asker } from '../../server/uploads/upload-request.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import type { Ledger } from '../../stores/ledger.ts'
import { LmdbLedger } from '../../stores/local/lmdb-ledger.ts'
import { request, startEngine } from './engine.ts'
import { temporaryFolder } from './folder.ts'

const startedAt = 1_900_000_000_000
export const ann: Asker = { owner: 'ann', seesAll: false }
const noPlan: QuotaPlan = { owner: {}, address: {}, perIdentity: false }

export interface CountedEngine {
  readonly engine: UploadEngine
  readonly ledger: Ledger
  readonly directory: string
  now: number
  /** Open uploads, their bytes, and the bytes of all; of ann, unless somebody else is meant. */
  used(account?: string): Promise<number[]>
  create(length: number | undefined, more?: CreateMore): Promise<string>
  createOf(asker: Asker, length: number | undefined, more?: CreateMore): Promise<string>
  append(id: string, offset: number, body: string | PassThrough, more?: AppendMore): Promise<string>
}
interface CreateMore {
  body?: string
  client?: string
  partial?: string
}
interface AppendMore {
  length?: number
  client?: string
  signal?: AbortSignal
  contentLength?: number
}

interface StartOptions {
  expireAfterMs?: number
  /** How long a request waits for others. */
  waitMs?: number
  ledger?: (real: Ledger) => Ledger
}

export async function startCountedEngine(
  plan: Partial<QuotaPlan>,
  { expireAfterMs = 0, waitMs = 60_000, ledger: given }: StartOptions = {},
): Promise<CountedEngine> {
  const directory = await temporaryFolder()
  const real = new LmdbLedger({ directory: `${directory}/.tidemark` })
  const ledger = given ? given(real) : real
  const now = () => counted.now
  const quotas = new Quotas({
    ...{ ledger, leaseMs: 10_000, now, waitMs },
    plan: { ...noPlan, ...plan },
    report: () => undefined,
  })
  const bytes = new FileBytes({ directory, durability: 'none', now })
  const { engine } = await startEngine(directory, {
    ...{ bytes, quotas, now },
    settings: { expiry: { afterMs: expireAfterMs, mode: 'sliding' } },
  })
  const answered = async (outcome: ReturnType<UploadEngine['create']>): Promise<string> => {
    const result = await outcome
    if (result.is !== 'refused') return ('record' in result && result.record?.head.id) || result.is
    const { status, message, retryAfterS } = result.refusal
    throw new Error(`${status} ${retryAfterS ?? '-'}: ${message}`)
  }
  const counted: CountedEngine = {
    ...{ engine, ledger: real, directory },
    now: startedAt,
    async used(account = 'owner:ann') {
      const { openUploads, unfinishedBytes, totalBytes } = await real.usage(account, counted.now)
      return [openUploads, unfinishedBytes, totalBytes]
    },
    create: (length, more) => counted.createOf(ann, length, more),
    createOf: (asker, length, { body, client, partial } = {}) =>
      answered(
        engine.create(
          {
            ...{ do: 'create', length, metadata: undefined, checksum: undefined, partial },
            ...{ isBytes: body !== undefined, hasBody: body !== undefined },
            contentLength: body === undefined ? 0 : body.length,
          },
          request(body, { asker, client }),
        ),
      ),
    append: (id, offset, body, { length, client, contentLength, ...more } = {}) =>
      answered(
        engine.append(
          { do: 'append', id, offset, length, contentLength, checksum: undefined },
          request(body, { asker: ann, client, ...more }),
        ),
      ),
  }
  return counted
}
