/** What the numbers were made on. */
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os'

export interface Machine {
  readonly processor: string
  readonly cores: number
  readonly memoryGiB: number
  readonly system: string
  readonly node: string
}

export function describeMachine(): Machine {
  return {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${distribution()}, ${type()} ${release()}`,
    node: process.version,
  }
}

/** A sentence when others use the machine: then nothing that is measured can be trusted. */
export function busyWarning(): string | undefined {
  const [load = 0] = loadavg()
  return load > 0.5
    ? `The machine was busy before the run (load ${load.toFixed(1)}); do not trust these numbers.`
    : undefined
}

function distribution(): string {
  try {
    return readFileSync('/etc/os-release', 'utf8').match(/^PRETTY_NAME="?([^"\n]*)/m)?.[1] ?? 'unknown'
  } catch {
    return 'unknown'
  }
}
