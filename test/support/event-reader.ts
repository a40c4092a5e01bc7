// A reader of server-sent events, as plain as the standard: it keeps what came, and waits for what is to come.

import { request } from 'node:http'
import { vi } from 'vitest'

interface ReadEvent {
  readonly kind: string
  readonly id: string | undefined
  // biome-ignore lint/suspicious/noExplicitAny: whatever the server wrote; the test says what it is
  readonly data: any
}

export interface EventReader {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** Everything so far. */
  readonly events: readonly ReadEvent[]
  /** Comments so far. */
  readonly comments: number
  /** The first event for which this holds, as soon as it is there. */
  until: (holds: (event: ReadEvent) => boolean) => Promise<ReadEvent>
  readonly ended: Promise<'end' | 'cut'>
  close: () => void
}

/** Resolves with the head of the answer. */
export function readEvents(url: string, headers: Record<string, string> = {}): Promise<EventReader> {
  return new Promise((resolve, reject) => {
    const events: ReadEvent[] = []
    let comments = 0
    let rest = ''
    const asking = request(url, { agent: false, headers })
    asking.on('error', reject)
    asking.on('response', (answer) => {
      asking.off('error', reject).on('error', () => undefined)
      answer.setEncoding('utf8')
      answer.on('error', () => undefined)
      answer.on('data', (text: string) => {
        const blocks = (rest + text).split('\n\n')
        rest = blocks.pop()!
        for (const block of blocks) {
          if (block.startsWith(':')) comments++
          const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, 'm').exec(block)?.[1]
          const data = field('data')
          if (data !== undefined)
            events.push({ kind: field('event') ?? 'message', id: field('id'), data: JSON.parse(data) })
        }
      })
      const ended = new Promise<'end' | 'cut'>((tell) => {
        answer.once('end', () => tell('end')).once('close', () => tell(answer.complete ? 'end' : 'cut'))
      })
      resolve({
        status: answer.statusCode!,
        headers: answer.headers,
        events,
        get comments() {
          return comments
        },
        until: (holds) =>
          vi.waitFor(
            () => {
              const found = events.find(holds)
              if (found) return found
              throw new Error(`not yet; so far: ${JSON.stringify(events.slice(-5))}`)
            },
            { timeout: 20_000, interval: 20 },
          ),
        ended,
        close: () => asking.destroy(),
      })
    })
    asking.end()
  })
}
