/** The hooks that are told of what has happened: as the teller tells everybody, at least once, in order, under one id. */
import type { EventKind } from '../../stores/contracts.ts'
import type { Audience } from '../uploads/audience.ts'
import type { HookType } from './hook-types.ts'
import type { Hooks } from './hooks.ts'

const types = {
  created: 'post-create',
  finished: 'post-finish',
  terminated: 'post-terminate',
} as const satisfies Record<EventKind, HookType>

/** Where an event came from when nobody noted it. */
const nobody = { method: '', uri: '', remoteAddress: '', headers: {} }

export function hookAudience(hooks: Hooks): Audience {
  return {
    name: 'hooks',
    hearsParts: true,
    wantsRequest: true,
    giveUpAfterMs: hooks.giveUpAfterMs,
    hears: (kind) => hooks.has(types[kind]),
    tell: ({ kind, id, record, request = nobody }, _, signal) =>
      hooks.tell(types[kind], id, record, request, signal),
  }
}
