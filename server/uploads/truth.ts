/**
 * Whether what is noted has happened. A note is made before its event becomes true, perhaps by a server that died then:
 * the mark of the upload decides, or another note, where the upload is gone.
 */
import type { ByteStore, Note } from '../../stores/contracts.ts'
import { eventIdOf } from './audience.ts'

/** `open`: not yet, but it may. */
export async function truthOf(
  { event, isTrue }: Note,
  bytes: Pick<ByteStore, 'look' | 'outbox'>,
): Promise<'true' | 'open' | 'never'> {
  if (isTrue) return 'true'
  const { head } = event.record
  const seen = await bytes.look(head.id)
  // Under the same id there may be another upload by now.
  const isThere = seen !== undefined && seen.head.createdAt === head.createdAt
  const state = isThere ? seen.mark.state : 'terminated'
  switch (event.kind) {
    case 'created':
      if (state !== 'terminated') return 'true'
      return (await bytes.outbox?.get(eventIdOf('terminated', event.record))) ? 'true' : 'never'
    case 'finished':
      if (state === 'open') return 'open'
      return state === 'finished' ? 'true' : 'never'
    case 'terminated':
      return state === 'terminated' ? 'true' : 'open'
  }
}
