/** One measurement: a server of its own in an empty folder, a warm-up that does not count, the load, and an end. */
import { type Case, Meter, type Scale, type Stage } from './cases/case.ts'
import { type Measurement, percentile } from './report.ts'
import type { RunningServer, Server } from './servers/server.ts'
import { cpuSecondsOf, forgetPeaks, memoryOf, treeOf } from './usage.ts'

export interface Plan {
  readonly server: Server
  readonly benchCase: Case
  readonly scale: Scale
  readonly warmUp: Scale
  readonly round: number
  readonly folder: string
}

export async function measureOnce(plan: Plan): Promise<Measurement> {
  const { server, benchCase, scale, warmUp, round, folder } = plan
  const running = await server.start(folder)
  try {
    // A crowd is there to be waited for: nothing in it is warm or cold.
    if (benchCase.kind !== 'crowd') await play(running, plan, warmUp)
    const counted = await play(running, plan, scale)
    return { case: benchCase.name, server: server.name, round, ...counted }
  } catch (error) {
    // What the server had to say about it comes after what the load saw.
    const said = running.output().trim().slice(-1000)
    throw new Error(
      `${error instanceof Error ? error.message : error}${said && `; the server said: ${said}`}`,
      {
        cause: error,
      },
    )
  } finally {
    await running.stop()
  }
}

type Counted = Omit<Measurement, 'case' | 'server' | 'round'>

async function play(
  running: RunningServer,
  { server, benchCase, round, warmUp }: Plan,
  scale: Scale,
): Promise<Counted> {
  let counted: Counted | undefined
  const stage: Stage = {
    target: running,
    abilities: server.abilities,
    scale,
    verifies: round === 1 || scale === warmUp,
    serverPids: () => treeOf(running.pids.server),
    async measure(work) {
      counted = await count(running, work)
    },
  }
  await benchCase.run(stage)
  if (counted === undefined) throw new Error(`${benchCase.name} measured nothing`)
  return counted
}

async function count(running: RunningServer, work: (meter: Meter) => Promise<void>): Promise<Counted> {
  const { server, redis } = running.pids
  const pids = treeOf(server)
  const redisPids = redis === undefined ? [] : treeOf(redis)
  const meter = new Meter()
  const idleBytes = memoryOf(pids, 'VmRSS')
  if (!forgetPeaks(pids)) meter.notes.push('peak memory is that of the whole life of the process')
  const cpuBefore = cpuSecondsOf(pids)
  const redisBefore = cpuSecondsOf(redisPids)
  const loadBefore = process.cpuUsage()
  const startedAt = performance.now()
  await work(meter)
  const seconds = (performance.now() - startedAt) / 1000
  const load = process.cpuUsage(loadBefore)
  const latencies = meter.latenciesMs.toSorted((a, b) => a - b)
  return {
    seconds,
    operations: latencies.length,
    bytes: meter.bytes,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    cpuSeconds: cpuSecondsOf(pids) - cpuBefore,
    redisCpuSeconds: cpuSecondsOf(redisPids) - redisBefore,
    loadCpuSeconds: (load.user + load.system) / 1_000_000,
    idleBytes,
    peakBytes: memoryOf(pids, 'VmHWM'),
    uploads: meter.uploads,
    failures: meter.failures,
    notes: meter.notes,
  }
}
