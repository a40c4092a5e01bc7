/**
 * What a primary and its workers say to each other, over the channel that Node opens between a process and its child.
 * Lists are about locks (stores/local/lock-messages.ts).
 */
import type { RecordNews } from '../../stores/contracts.ts'
import type { LockReply, LockRequest } from '../../stores/local/lock-messages.ts'
import type { FromOpener, ToOpener } from '../../stores/local/opening-turns.ts'
import type { Measured } from '../metrics/metrics.ts'

export type FromWorker =
  | readonly LockRequest[]
  /** Asks for the folder, before anything in it is touched. */
  | { readonly is: 'joining' }
  /** About opening the files that all of them have open. */
  | { readonly is: 'turn'; readonly turn: FromOpener }
  | { readonly is: 'listening'; readonly port: number | undefined }
  /** It can not start, and waits to be ended; `message` is a sentence for whoever started the server. */
  | { readonly is: 'refused'; readonly message: string }
  /** Whether it wants to hear what others do with records; and what it did. */
  | { readonly is: 'wants-news'; readonly isWanted: boolean }
  | { readonly is: 'news'; readonly news: readonly RecordNews[] }
  /** What it has counted, for the round that asked. */
  | { readonly is: 'measured'; readonly round: number; readonly measured: readonly Measured[] }
  /** It is asked for what all workers have counted. */
  | { readonly is: 'gather'; readonly question: number }
  /** It does not hang. */
  | { readonly is: 'beat' }

export type FromPrimary =
  | readonly LockReply[]
  | { readonly is: 'joined'; readonly now: number }
  | { readonly is: 'turn'; readonly turn: ToOpener }
  | { readonly is: 'wants-news'; readonly isWanted: boolean }
  | { readonly is: 'news'; readonly news: readonly RecordNews[] }
  | { readonly is: 'stop' }
  | { readonly is: 'measure'; readonly round: number }
  | {
      readonly is: 'gathered'
      readonly question: number
      readonly measured: readonly (readonly Measured[])[]
    }

/** How often a worker says that it does not hang; the primary counts as often who was silent. */
export const beatEveryMs = 2_000

/** The variable that makes a process a worker, and numbers it. It is none of the settings, which begin otherwise. */
export const workerVariable = 'WORKER_OF_TIDEMARK'
