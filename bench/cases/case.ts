/** What is measured: a load, put on one server that was just started in an empty folder. */
import { Client, type Target, type Upload } from '../load/client.ts'
import { Content } from '../load/content.ts'
import type { CaseInfo } from '../report.ts'
import type { Ability } from '../servers/server.ts'

export interface Case {
  /** As in `--cases`. */
  readonly name: string
  readonly title: string
  /** Which numbers count: bytes, operations, how long one is kept waiting, or what many that wait do to those who ask. */
  readonly kind: CaseInfo['kind']
  readonly needs: readonly Ability[]
  run(stage: Stage): Promise<void>
}

/** How much of it. The warm-up is the same load with a smaller one. */
export interface Scale {
  /** Of one big upload; cases with several take parts of it. */
  readonly bigBytes: number
  /** Of cases that go on for a time. */
  readonly seconds: number
  /** Clients at once, where a case has many. */
  readonly clients: number
  readonly slowUploads: number
  readonly manyUploads: number
}

/** What came out of the part that counts. */
export class Meter {
  readonly latenciesMs: number[] = []
  bytes = 0
  failures = 0
  readonly notes: string[] = []
  /** Uploads that were open at once, for crowds. */
  uploads = 0

  /** One operation; `bytes` are what it moved. */
  async time(bytes: number, operation: () => Promise<unknown>): Promise<void> {
    const startedAt = performance.now()
    await operation()
    this.latenciesMs.push(performance.now() - startedAt)
    this.bytes += bytes
  }
}

export interface Stage {
  readonly target: Target
  readonly abilities: readonly Ability[]
  readonly scale: Scale
  /** Whether what was sent is read back: in every warm-up, and after the first round of the real load. */
  readonly verifies: boolean
  /** Every process of the server, now. */
  serverPids(): number[]
  /** Counts time, operations, processor and memory from here to its end; called once. */
  measure(work: (meter: Meter) => Promise<void>): Promise<void>
}

let seed = 0

/** Content that no other upload of this run has. */
export function newContent(): Content {
  return new Content(++seed)
}

/** Clients for the time of `work`. */
export async function withClients<T>(
  stage: Stage,
  count: number,
  work: (clients: Client[]) => Promise<T>,
): Promise<T> {
  const clients = Array.from({ length: count }, () => new Client(stage.target))
  try {
    return await work(clients)
  } finally {
    for (const client of clients) client.close()
  }
}

/** Reads a few back and compares them; outside of what is measured. */
export async function verifySome(stage: Stage, uploads: readonly Upload[]): Promise<void> {
  if (!stage.verifies || !stage.abilities.includes('download')) return
  await withClients(stage, 1, async ([client]) => {
    for (const upload of uploads.slice(0, 4)) await client!.verify(upload)
  })
}
