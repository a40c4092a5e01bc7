/**
 * What a new copy of an upload means to somebody who watches: that it was created, moved or ended, each said once as far
 * as one remembers. Records are put again for other reasons too (a walk makes them say what their marks say), and that
 * is no news.
 */
import type { UploadRecord } from '../../stores/contracts.ts'

export type HappeningKind = 'created' | 'progress' | 'finished' | 'failed' | 'terminated' | 'expired'

interface Place {
  readonly generation: number
  readonly sequence: number
}

/** What is remembered of one upload: the newest copy that was told, and the newest that was found by looking. */
interface Seen {
  readonly told: Place
  readonly found: Place
}

const rememberedAtMost = 10_000
/** Servers agree on the time by this much, and news take their way. */
const slackMs = 5_000
const none: Place = { generation: -1, sequence: -1 }

export class Chronicle {
  readonly #seen = new Map<string, Seen>()
  readonly #since: number

  /** `since` is when somebody began to watch; milliseconds since the epoch. */
  constructor(since: number) {
    this.#since = since - slackMs
  }

  /** Somebody has looked, and was shown this. The others are still to be told of it. */
  found({ head, mark }: UploadRecord): void {
    const { told, found } = this.#seen.get(head.id) ?? { told: none, found: none }
    if (mark.state === 'open' && isAhead(mark, found)) this.#remember(head.id, { told, found: mark })
  }

  put(record: UploadRecord): HappeningKind[] {
    const { head, mark } = record
    const seen = this.#seen.get(head.id)
    if (seen && !isAhead(mark, seen.told)) return []
    // Older than what was shown already, and a newer copy is on its way: an offset never goes back.
    if (seen && mark.state === 'open' && isAhead(seen.found, mark)) return []
    this.#remember(head.id, { told: mark, found: seen?.found ?? none })
    const created: HappeningKind[] = !seen && head.createdAt >= this.#since ? ['created'] : []
    if (mark.state === 'open') return created.length > 0 ? created : ['progress']
    // Of what ended before anybody watched, this is only another copy.
    if (!seen && mark.movedAt < this.#since) return []
    return [...created, mark.state === 'finished' ? 'finished' : 'failed']
  }

  removed(id: string): void {
    this.#seen.delete(id)
  }

  #remember(id: string, { told, found }: Seen): void {
    // The ones that moved last are remembered longest.
    this.#seen.delete(id)
    this.#seen.set(id, { told: placeOf(told), found: placeOf(found) })
    if (this.#seen.size <= rememberedAtMost) return
    const [oldest] = this.#seen.keys()
    this.#seen.delete(oldest!)
  }
}

function placeOf({ generation, sequence }: Place): Place {
  return { generation, sequence }
}

function isAhead(a: Place, b: Place): boolean {
  return a.generation === b.generation ? a.sequence > b.sequence : a.generation > b.generation
}
