/** What an operator decides about the engine. */
import type { InstantScope } from './instant.ts'
import type { Expiry } from './rules.ts'
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
}
