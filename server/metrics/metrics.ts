/**
 * The numbers of this process, and how they become what Prometheus reads. Counting is always on and costs next to
 * nothing; prom-client, and what it watches of Node, is loaded by the first who asks.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Registry } from 'prom-client'
import type { EventKind, Note, Outbox } from '../../stores/contracts.ts'
import { Counts, Meter } from '../../stores/meter.ts'
import type { UploadsEvent } from '../open-uploads.ts'
import { type EventTally, type Family, familiesOf, type Sample } from './families.ts'
import { RequestTally } from './request-tally.ts'

export const contentType = 'text/plain; version=0.0.4; charset=utf-8'

/** A metric with its values, as processes hand it to each other. */
export interface Measured {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly aggregator: string
  readonly values: readonly Sample[]
}

/** Notes that are looked at in one scrape; those that are known already cost nothing. */
const notesAtOnce = 200

/** What is shown with a 0 before it happens; the others come when they do. */
const failures = [
  ...(['request-failed', 'record-failed', 'sweep-failed', 'assembly-failed', 'left-behind'] as const),
  ...(['telling-failed', 'outbox-failed', 'listener-failed', 'unlock-failed'] as const),
] satisfies readonly UploadsEvent['is'][]

/** The hook that an event is told by. */
const toldBy = {
  created: 'post-create',
  finished: 'post-finish',
  terminated: 'post-terminate',
} as const satisfies Record<EventKind, string>

export class Metrics {
  readonly meter = new Meter()
  readonly requests = new RequestTally()
  readonly #version: string
  readonly #events: { -readonly [K in keyof EventTally]: EventTally[K] }
  readonly #notedAt = new Map<string, number>()
  #outbox: Outbox | undefined
  #registry: Promise<Registry> | undefined

  constructor({ version, hasRedis }: { readonly version: string; readonly hasRedis: boolean }) {
    this.#version = version
    this.#events = {
      displaced: 0,
      rewinds: 0,
      failures: new Counts(failures),
      redisOutages: 0,
      redisReplaced: 0,
      isRedisThere: hasRedis ? true : undefined,
    }
  }

  /** The notes that are still to be told. */
  watch(outbox: Outbox | undefined): void {
    this.#outbox = outbox
  }

  note(event: UploadsEvent): void {
    const events = this.#events
    if (event.is === 'redis') {
      const { is } = event.event
      if (is === 'available') events.isRedisThere = true
      else if (is === 'away') {
        events.isRedisThere = false
        events.redisOutages++
      } else if (is === 'replaced') events.redisReplaced++
    } else if (event.is === 'displaced') events.displaced++
    else if (event.is === 'rewound') events.rewinds++
    else if (event.is === 'hook-called') this.meter.hookInvocations.add(event.hook)
    else if (event.is !== 'hook-said') {
      if (event.is === 'hook-failed') this.meter.hookErrors.add(event.hook)
      else if (event.is === 'telling-failed' && event.audience === 'hooks')
        this.meter.hookErrors.add(toldBy[event.kind])
      events.failures.add(event.is)
    }
  }

  /** What this process has counted, and what Node says of it. */
  async measure(): Promise<Measured[]> {
    this.#registry ??= this.#makeRegistry()
    const families = (await (await this.#registry).getMetricsAsJSON()) as unknown as Measured[]
    // What was not measured yet is no number, and would not survive a message either.
    return families.map((family) => ({
      ...family,
      values: family.values.filter(({ value }) => Number.isFinite(value)),
    }))
  }

  async #makeRegistry(): Promise<Registry> {
    const { Registry, collectDefaultMetrics } = await import('prom-client')
    const registry = new Registry()
    const delay = monitorEventLoopDelay({ resolution: 20 })
    delay.enable()
    const families = familiesOf({
      version: this.#version,
      meter: this.meter,
      requests: this.requests,
      events: this.#events,
      outbox: () => this.#look(),
      loopDelay: () => {
        const late = (nanoseconds: number) => Math.max(0, nanoseconds / 1e9 - 0.02)
        const { max } = delay
        const [medianS, p99S, mostS] = [late(delay.percentile(50)), late(delay.percentile(99)), late(max)]
        delay.reset()
        return { medianS, p99S, mostS }
      },
    })
    for (const family of families) registry.registerMetric(asMetric(family))
    collectDefaultMetrics({ register: registry })
    return registry
  }

  async #look(): Promise<{ notes: number; oldestS: number }> {
    const outbox = this.#outbox
    const ids = await (outbox?.list() ?? Promise.resolve([])).catch(() => [])
    const known = this.#notedAt
    const listed = new Set(ids)
    for (const id of known.keys()) if (!listed.has(id)) known.delete(id)
    for (const id of ids.filter((id) => !known.has(id)).slice(0, notesAtOnce)) {
      const note: Note | undefined = await outbox?.get(id).catch(() => undefined)
      if (note) known.set(id, note.event.at)
    }
    const oldestAt = Math.min(...known.values())
    return { notes: ids.length, oldestS: known.size === 0 ? 0 : Math.max(0, (Date.now() - oldestAt) / 1000) }
  }
}

/** What several processes have measured, as one text. */
export async function textOf(measured: readonly (readonly Measured[])[]): Promise<string> {
  return (await together(measured)).metrics()
}

/** The counts of processes that are gone, as one; what they showed of themselves is gone with them. */
export async function countsOf(measured: readonly (readonly Measured[])[]): Promise<Measured[]> {
  const counts = measured.map((families) => families.filter(({ type }) => type !== 'gauge'))
  return (await (await together(counts)).getMetricsAsJSON()) as unknown as Measured[]
}

async function together(measured: readonly (readonly Measured[])[]): Promise<Registry> {
  const { AggregatorRegistry } = await import('prom-client')
  const wanted = measured.length === 1 ? measured.map((families) => families.map(unchanged)) : measured
  return AggregatorRegistry.aggregate(wanted as unknown as object[])
}

/** Of one process even that is shown of which several have nothing in common to say. */
function unchanged(family: Measured): Measured {
  return { ...family, aggregator: 'first' }
}

/** What prom-client's registry asks of a metric. */
function asMetric({ name, help, type, together: aggregator = 'sum', samples }: Family) {
  const get = async () => ({ name, help, type, aggregator, values: await samples() })
  return { name, help, type, get } as unknown as Parameters<Registry['registerMetric']>[0]
}
