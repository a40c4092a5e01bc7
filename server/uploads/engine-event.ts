import type { TellerEvent } from './audience.ts'
import type { QuotaEvent } from './quotas.ts'

/** What an operator should know. */
export type EngineEvent =
  | { readonly is: 'rewound'; readonly id: string; readonly from: number; readonly to: number }
  | { readonly is: 'displaced'; readonly id: string; readonly offset: number }
  | { readonly is: 'record-failed'; readonly id: string; readonly error: unknown }
  | { readonly is: 'instant-failed'; readonly id: string; readonly error: unknown }
  | { readonly is: 'left-behind'; readonly id: string; readonly error: unknown }
  | { readonly is: 'assembly-failed'; readonly id: string; readonly error: unknown }
  | { readonly is: 'sweep-failed'; readonly error: unknown }
  | QuotaEvent
  | TellerEvent
