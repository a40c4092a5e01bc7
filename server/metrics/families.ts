/**
 * Every metric of ours, each in one row: its name, what it says, and where its numbers are. tusd's names come first and
 * mean what they mean there, so that its dashboards work; the others begin with `tidemark_`.
 */
import type { Counts, Meter, Spread } from '../../stores/meter.ts'
import type { RequestTally } from './request-tally.ts'

export interface Sample {
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
  /** For the parts of a histogram. */
  readonly metricName?: string
}

export interface Family {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  /** What several workers say together. Default: the sum. */
  readonly together?: 'sum' | 'max' | 'min' | 'first'
  readonly samples: () => readonly Sample[] | Promise<readonly Sample[]>
}

/** Where the numbers are. */
export interface Sources {
  readonly version: string
  readonly meter: Meter
  readonly requests: RequestTally
  readonly events: EventTally
  /** Notes of events that somebody is still to be told of; undefined where there are none. */
  readonly outbox: () => Promise<{ readonly notes: number; readonly oldestS: number }>
  readonly loopDelay: () => { readonly medianS: number; readonly p99S: number; readonly mostS: number }
}

/** What happened that an operator should know. */
export interface EventTally {
  readonly displaced: number
  readonly rewinds: number
  readonly failures: Counts
  readonly redisOutages: number
  readonly redisReplaced: number
  /** Undefined without a Redis. */
  readonly isRedisThere: boolean | undefined
}

export function familiesOf(sources: Sources): Family[] {
  const { meter, requests, events } = sources
  return [
    counts('tusd_requests_total', 'Requests to uploads, by method.', 'method', requests.byMethod),
    {
      ...{ name: 'tusd_errors_total', type: 'counter' },
      help: 'Answers to requests to uploads with a status from 400 on, by status and code of the refusal.',
      samples: () => pairs(requests.errors, 'status', 'code'),
    },
    counter('tusd_bytes_received', 'Bytes of uploads that came, running bodies included.', () =>
      Number(meter.receivedBytes),
    ),
    counter('tusd_uploads_created', 'Uploads that were created.', () => meter.created),
    counter('tusd_uploads_finished', 'Uploads that were finished.', () => meter.finished),
    counter('tusd_uploads_terminated', 'Uploads that clients terminated.', () => meter.terminated),
    gauge('tusd_connections_open', 'Open connections.', () => requests.connections),
    counts('tusd_hook_invocations_total', 'Hooks that were called.', 'hooktype', meter.hookInvocations),
    counts('tusd_hook_errors_total', 'Hooks that failed.', 'hooktype', meter.hookErrors),

    {
      ...{ name: 'tidemark_requests_total', type: 'counter' },
      help: 'Requests that have ended, by kind and status; "cut" without an answer.',
      samples: () => pairs(requests.byKind, 'kind', 'status'),
    },
    {
      ...{ name: 'tidemark_request_duration_seconds', type: 'histogram' },
      help: 'From the headers of a request to the end of its answer, by kind.',
      samples: () =>
        [...requests.durations].flatMap(([kind, spread]) =>
          bucketsOf('tidemark_request_duration_seconds', spread, { kind }),
        ),
    },
    counts('tidemark_refusals_total', 'Refusals, by code.', 'code', requests.refusals),
    counter('tidemark_received_bytes_total', 'Bytes of uploads that came, running bodies included.', () =>
      Number(meter.receivedBytes),
    ),
    counter('tidemark_offset_moves_total', 'Times that the mark of an upload was moved.', () => meter.marks),
    gauge('tidemark_running_bodies', 'Bodies of uploads that are being received.', () => meter.runningBodies),
    gauge('tidemark_open_uploads', 'Uploads that requests hold, or wait for.', () => meter.held),
    histogram(
      'tidemark_lock_wait_seconds',
      'How long requests waited for their upload, and questions for an answer that stays true.',
      meter.lockWaits,
    ),
    counter(
      'tidemark_take_overs_total',
      'Uploads that were taken over from a holder.',
      () => meter.takeOvers,
    ),
    counter(
      'tidemark_displaced_requests_total',
      'Requests that ended because another one wanted the upload.',
      () => events.displaced,
    ),
    counter(
      'tidemark_rewinds_total',
      'Uploads set back because storage held less than was acknowledged.',
      () => events.rewinds,
    ),
    histogram('tidemark_sync_seconds', 'How long it took to bring bytes and marks to the disk.', meter.syncs),
    histogram('tidemark_redis_command_seconds', 'How long commands to Redis took.', meter.redisCommands),
    {
      ...{ name: 'tidemark_redis_available', type: 'gauge', together: 'min' },
      help: 'Whether Redis answers; without a Redis there is no value.',
      samples: () => (events.isRedisThere === undefined ? [] : plain(events.isRedisThere ? 1 : 0)),
    },
    counter(
      'tidemark_redis_outages_total',
      'Times that Redis could not be reached any more.',
      () => events.redisOutages,
    ),
    counter(
      'tidemark_redis_replaced_total',
      'Times that another Redis answered, or a restarted one.',
      () => events.redisReplaced,
    ),
    counter(
      'tidemark_expired_uploads_total',
      'Uploads that were removed because they had expired.',
      () => meter.expired,
    ),
    counter('tidemark_sweeps_total', 'Rounds that looked for what has expired.', () => meter.sweeps),
    counter('tidemark_walks_total', 'Walks through all uploads.', () => meter.walks),
    counts(
      'tidemark_failures_total',
      'What an operator should know of, by what it is.',
      'what',
      events.failures,
    ),
    ...outboxFamilies(sources),
    {
      ...{ name: 'tidemark_event_loop_delay_seconds', type: 'gauge', together: 'max' },
      help: 'How late timers were since the last scrape; of several workers the worst. "1" is the most.',
      samples: () => {
        const { medianS, p99S, mostS } = sources.loopDelay()
        const values = { 0.5: medianS, 0.99: p99S, 1: mostS }
        return Object.entries(values).map(([quantile, value]) => ({ labels: { quantile }, value }))
      },
    },
    {
      ...{ name: 'tidemark_build_info', type: 'gauge', together: 'first' },
      help: 'Always 1; the labels say what runs.',
      samples: () => [{ labels: { version: sources.version, node: process.version }, value: 1 }],
    },
  ]
}

/** Of a folder that several processes share all say the same. */
function outboxFamilies({ outbox }: Sources): Family[] {
  const look = remembered(outbox)
  return [
    {
      ...{ name: 'tidemark_outbox_notes', type: 'gauge', together: 'max' },
      help: 'Events that somebody is still to be told of.',
      samples: async () => plain((await look()).notes),
    },
    {
      ...{ name: 'tidemark_outbox_oldest_seconds', type: 'gauge', together: 'max' },
      help: 'How long ago the oldest of them happened.',
      samples: async () => plain((await look()).oldestS),
    },
  ]
}

/** Both rows of one scrape look once. */
function remembered<T>(look: () => Promise<T>): () => Promise<T> {
  let looking: Promise<T> | undefined
  return () => {
    looking ??= look().finally(() => {
      looking = undefined
    })
    return looking
  }
}

const plain = (value: number): Sample[] => [{ labels: {}, value }]

function counter(name: string, help: string, value: () => number): Family {
  return { name, help, type: 'counter', samples: () => plain(value()) }
}

function gauge(name: string, help: string, value: () => number): Family {
  return { name, help, type: 'gauge', samples: () => plain(value()) }
}

function counts(name: string, help: string, label: string, counted: Counts): Family {
  const samples = () => [...counted.entries()].map(([word, value]) => ({ labels: { [label]: word }, value }))
  return { name, help, type: 'counter', samples }
}

function histogram(name: string, help: string, spread: Spread): Family {
  return { name, help, type: 'histogram', samples: () => bucketsOf(name, spread, {}) }
}

/** Counts of two words each. */
function pairs(counted: Counts, first: string, second: string): Sample[] {
  return [...counted.entries()].map(([words, value]) => {
    const [one = '', two = ''] = words.split(' ')
    return { labels: { [first]: one, [second]: two }, value }
  })
}

function bucketsOf(name: string, { boundsS, counts, sumS }: Spread, labels: Sample['labels']): Sample[] {
  let below = 0
  const buckets = counts.map((count, i) => {
    below += count
    return { metricName: `${name}_bucket`, labels: { ...labels, le: boundsS[i] ?? '+Inf' }, value: below }
  })
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: sumS },
    { metricName: `${name}_count`, labels, value: below },
  ]
}
