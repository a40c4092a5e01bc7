/** What an engine is made of, and how it is set. */
import type { ByteStore, Locker, Now, RecordStore } from '../../stores/contracts.ts'
import type { Meter } from '../../stores/meter.ts'
import type { Refusal } from '../errors.ts'
import type { Audience } from './audience.ts'
import type { EngineEvent } from './engine-event.ts'
import type { InstantScope } from './instant.ts'
import type { Pulse } from './pulse.ts'
import type { Quotas } from './quotas.ts'
import type { Expiry } from './rules.ts'
import type { UploadRequest } from './upload-request.ts'
import type { DigestPolicy } from './whole-hash.ts'

export interface EngineSettings {
  readonly expiry: Expiry
  readonly idleMs: number
  readonly leastBytesPerSecond: number
  readonly acquireLockTimeoutMs: number
  /** Whether parts are removed once all finals that were made of them are finished. */
  readonly removeParts: boolean
  /** Which uploads are hashed as a whole. Default: those whose digest is declared. */
  readonly digest?: DigestPolicy | undefined
  /** Whose uploads give their bytes to new ones that declare their digest. Default: nobody's. */
  readonly instantUpload?: InstantScope | undefined
  /** Whether what is there of an unfinished upload can be read. Default: no. */
  readonly serveUnfinished?: boolean | undefined
  /** New data is refused when the disk would have less left; 0 is never. */
  readonly reserveFreeBytes: number
  /** Refuses uploads by what their metadata says; undefined where nobody looks. */
  readonly refuseMetadata: ((metadata: string | undefined) => Refusal | undefined) | undefined
}

export interface EngineParts {
  readonly bytes: ByteStore
  readonly records: RecordStore | undefined
  readonly locker: Locker
  readonly settings: EngineSettings
  /** Told of what an operator should know: rewinds, lost leases, records that could not be written. */
  readonly report: (event: EngineEvent) => void
  /** Stands in for the request where the engine does something by itself: finishing a final. */
  readonly ownRequest: (id: string) => UploadRequest
  /** Who is told what happened to uploads; default nobody. */
  readonly audiences?: readonly Audience[]
  readonly pulse?: Pulse
  /** Where it is counted what happens. */
  readonly meter?: Meter
  /** How much each may have; nobody counts when there are none. */
  readonly quotas?: Quotas | undefined
  /** What time it is for all that expires; the same for the byte store. Default: the wall clock. */
  readonly now?: Now
}
