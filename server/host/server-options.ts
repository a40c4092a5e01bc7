/** What a tus server of ours is made of, beyond the options of @tus/server, and what it reports. */
import type { ServerOptions } from '@tus/server'
import type { DataStore } from '@tus/utils'
import type { ByteStore, Now, RecordStore } from '../../stores/contracts.ts'
import type { Ledger } from '../../stores/ledger.ts'
import type { Meter } from '../../stores/meter.ts'
import type { Gate } from '../access/gate.ts'
import type { HookEvent, HookSettings } from '../hooks/hooks.ts'
import type { EngineSettings } from '../uploads/engine.ts'
import type { EngineEvent } from '../uploads/engine-event.ts'
import type { InstantScope } from '../uploads/instant.ts'
import type { QuotaPlan } from '../uploads/quota-accounts.ts'
import type { DigestPolicy } from '../uploads/whole-hash.ts'
import type { ToldEvent } from './audiences.ts'
import type { LockerOption } from './lockers.ts'
import type { HookOptions } from './tus-hooks.ts'

export interface TidemarkServerOptions
  extends Omit<ServerOptions, 'locker' | 'lockDrainTimeout' | 'relativeLocation'> {
  /** As in @tus/server; or relative only where a proxy is in front whose `X-Forwarded-*` are not respected. */
  readonly relativeLocation?: boolean | 'behind-unknown-proxy'
  /** A Tidemark store, or any other store for @tus/server: its own offset is then the truth. */
  readonly datastore: DataStore & { readonly byteStore?: ByteStore }
  /** Tidemark's or any other for @tus/server. Default: a locker for this process alone. */
  readonly locker?: LockerOption
  /** Where lists and progress are kept; without one there are none. */
  readonly records?: RecordStore
  /** What time it is for all that expires; the same for the store. Default: the wall clock. */
  readonly now?: Now
  /** How long unfinished uploads live. Default: for ever. A store that is not Tidemark's says it by itself. */
  readonly expiry?: EngineSettings['expiry']
  /** A body without a byte for this long is cut off. Default 60,000. */
  readonly networkTimeoutMs?: number
  /** A body with less than this on average, over `networkTimeoutMs` and more, is cut off. Default 0: never. */
  readonly leastBytesPerSecond?: number
  /** How long a request waits for its upload. Default 20,000. */
  readonly acquireLockTimeoutMs?: number
  readonly disableTermination?: boolean
  /** Where forms and plain files are received, beside `path`. Default: nowhere. Needs a store of Tidemark. */
  readonly plainPath?: string
  /** Remove parts once all uploads that were made of them are finished. Default: they stay. */
  readonly removeParts?: boolean
  readonly disableDownload?: boolean
  /** How much each owner and each network address may have at a time. Default: as much as they like, and nobody counts. */
  readonly quotas?: QuotaOptions | undefined
  /** New data is refused when the disk would have less left. Default 0: never. */
  readonly reserveFreeBytes?: number
  /** Media types that uploads may have (`image/*`), as clients say them in the metadata. Default: any. */
  readonly allowedTypes?: readonly string[] | undefined
  /** Which uploads are hashed as a whole, and whether what clients declare is verified. Default: `declared`. */
  readonly digest?: DigestPolicy
  /**
   * Finish uploads at once whose digest and length a finished one has: one of the same owner, or of anybody. `global` lets
   * whoever knows the digest of a file have the file. Default: `owner`, which is off where nobody says who they are.
   */
  readonly instantUpload?: InstantScope
  /** Let what was acknowledged of an unfinished upload be downloaded. Default: that is 404. */
  readonly serveUnfinished?: boolean
  /**
   * Told what happened to uploads, at least once for each event, in order for one upload, by whichever server: also when
   * the one that did it died. An event that this rejects is told again later, under the same id.
   */
  readonly onUploadEvent?: (event: ToldEvent) => Promise<void> | void
  /**
   * Asked before a client's termination, while nobody else can use the upload; what it throws keeps the upload, and in
   * the manner of @tus/server (`{ status_code, body }`) is what the client is told.
   */
  readonly onUploadTerminate?: NonNullable<HookOptions['onUploadTerminate']>
  /** Hooks as tusd calls them, by HTTP or as programs: see docs/hooks.md. */
  readonly hooks?: HookSettings
  /** Whose `X-Forwarded-*` count, when `respectForwardedHeaders` is set. Default: everybody's. */
  readonly trustsProxy?: (address: string) => boolean
  /** Where it is counted what happens. */
  readonly meter?: Meter
  /**
   * Who may upload, and what: asked when a request begins, and again before it finishes an upload. What one owner creates
   * is absent for all others. Default: everybody may do everything.
   */
  readonly gate?: Gate | undefined
  /** Told of what an operator should know. */
  readonly report?: (event: ServerEvent) => void
}

interface QuotaOptions extends QuotaPlan {
  /** Where it is counted, for all servers. */
  readonly ledger: Ledger
  /** How long a running request of a server that vanished is counted. Default 10,000. */
  readonly leaseMs?: number
}

export type ServerEvent =
  | EngineEvent
  | HookEvent
  | { readonly is: 'request-failed'; readonly error: unknown }
  | { readonly is: 'listener-failed'; readonly event: string; readonly error: unknown }
  | { readonly is: 'unlock-failed'; readonly id: string; readonly error: unknown }
