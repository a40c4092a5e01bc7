/** Who is told what happened to uploads: the listeners of this server, as @tus/server tells them, hooks, and `onUploadEvent`. */
import { EVENTS, type Upload } from '@tus/utils'
import type { EventKind, UploadEvent } from '../../stores/contracts.ts'
import { uploadOf } from '../../stores/file/file-store.ts'
import { hookAudience } from '../hooks/hook-audience.ts'
import type { Hooks } from '../hooks/hooks.ts'
import type { Audience } from '../uploads/audience.ts'
import { type Events, HookedRequest } from './tus-hooks.ts'

/** What happened to an upload. */
export interface ToldEvent {
  /** The same however often it is told; what was told before can be known by it. */
  readonly id: string
  readonly kind: EventKind
  /** Milliseconds since the epoch. */
  readonly at: number
  /** As it was then; before its removal, when it was `terminated`. */
  readonly upload: Upload
}

const eventNames = {
  created: EVENTS.POST_CREATE,
  finished: EVENTS.POST_FINISH,
  terminated: EVENTS.POST_TERMINATE,
} as const

export function audiencesOf(
  { onUploadEvent }: { readonly onUploadEvent?: (event: ToldEvent) => Promise<void> | void },
  events: Events,
  ownRequest: (id: string) => HookedRequest,
  hooks?: Hooks,
): Audience[] {
  const listeners: Audience = {
    name: 'listeners',
    isImmediate: true,
    hears: (kind) => events.isHeard(eventNames[kind]),
    tell: async (event, request) => {
      const asked = request instanceof HookedRequest ? request : ownRequest(event.record.head.id)
      asked.tell(event)
    },
  }
  const others = hooks ? [listeners, hookAudience(hooks)] : [listeners]
  if (onUploadEvent === undefined) return others
  const callback: Audience = {
    name: 'onUploadEvent',
    hears: () => true,
    tell: async (event) => onUploadEvent(asTold(event)),
  }
  return [...others, callback]
}

function asTold({ id, kind, at, record }: UploadEvent): ToldEvent {
  return { id, kind, at, upload: uploadOf(record) }
}
