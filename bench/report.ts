/** From measurements to tables, purely: medians over the rounds, and how far the rounds lie apart. */

export interface Measurement {
  readonly case: string
  readonly server: string
  /** From 1. */
  readonly round: number
  readonly seconds: number
  readonly operations: number
  readonly bytes: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Of all processes of the server, without Redis. */
  readonly cpuSeconds: number
  readonly redisCpuSeconds: number
  /** Of the load, which shares the machine with what it measures. */
  readonly loadCpuSeconds: number
  /** Before the load, and the most during it. */
  readonly idleBytes: number
  readonly peakBytes: number
  /** Open at once, for crowds. */
  readonly uploads: number
  readonly failures: number
  readonly notes: readonly string[]
}

/** A server that failed a case in a round, and with what. */
export interface Failure {
  readonly case: string
  readonly server: string
  readonly round: number
  readonly error: string
}

export interface CaseInfo {
  readonly name: string
  readonly title: string
  readonly kind: 'bytes' | 'operations' | 'waits' | 'crowd'
}

interface ServerInfo {
  readonly name: string
  readonly title: string
}

/** One number over the rounds. */
interface Rounds {
  readonly count: number
  readonly median: number
  /** How far the largest lies above the smallest, as a part of the median. */
  readonly spread: number
}

const MiB = 1024 * 1024
const GiB = 1024 * MiB

/** @param sorted in ascending order; the value below which `share` of them lie, as one of them */
export function percentile(sorted: readonly number[], share: number): number {
  if (sorted.length === 0) return Number.NaN
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!
}

export function roundsOf(values: readonly number[]): Rounds {
  const sorted = values.toSorted((a, b) => a - b)
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
  const lower = sorted[Math.floor((sorted.length - 1) / 2)] ?? Number.NaN
  const median = (upper + lower) / 2
  const range = (sorted.at(-1) ?? Number.NaN) - (sorted[0] ?? Number.NaN)
  return { count: values.length, median, spread: range === 0 ? 0 : range / median }
}

/** One row of a case: what a server did in all its rounds. */
interface Summary {
  readonly case: string
  readonly server: string
  /** Of all rounds. */
  readonly operations: number
  /** MiB or operations a second. */
  readonly rate: Rounds
  readonly p50Ms: Rounds
  readonly p99Ms: Rounds
  /** Processor time: seconds per GiB for bytes, milliseconds per operation otherwise. */
  readonly cpu: Rounds
  readonly redisCpu: Rounds
  /** The same for the load. */
  readonly loadCpu: Rounds
  /** What part of one core the load was busy with. */
  readonly loadShare: Rounds
  readonly peakMiB: Rounds
  readonly uploads: number
  /** More than before the load, for each upload that was open. */
  readonly kibPerUpload: Rounds
  readonly failures: number
  readonly notes: readonly string[]
}

export function summarize(kind: CaseInfo['kind'], measurements: readonly Measurement[]): Summary {
  const first = measurements[0]
  if (first === undefined) throw new RangeError('there is nothing to sum up')
  const over = (value: (m: Measurement) => number) => roundsOf(measurements.map(value))
  const perUnit = (seconds: number, { bytes, operations }: Measurement) =>
    kind === 'bytes' ? seconds / (bytes / GiB) : (seconds * 1000) / operations
  return {
    case: first.case,
    server: first.server,
    operations: measurements.reduce((total, m) => total + m.operations, 0),
    rate: over((m) => (kind === 'bytes' ? m.bytes / MiB : m.operations) / m.seconds),
    p50Ms: over((m) => m.p50Ms),
    p99Ms: over((m) => m.p99Ms),
    cpu: over((m) => perUnit(m.cpuSeconds, m)),
    redisCpu: over((m) => perUnit(m.redisCpuSeconds, m)),
    loadCpu: over((m) => perUnit(m.loadCpuSeconds, m)),
    loadShare: over((m) => m.loadCpuSeconds / m.seconds),
    peakMiB: over((m) => m.peakBytes / MiB),
    uploads: Math.min(...measurements.map((m) => m.uploads)),
    kibPerUpload: over((m) => (m.peakBytes - m.idleBytes) / 1024 / m.uploads),
    failures: measurements.reduce((total, m) => total + m.failures, 0),
    notes: [...new Set(measurements.flatMap((m) => m.notes))],
  }
}

/** The rounds of a run: every server once in each, and another one first each time. */
export function orderOf<T>(servers: readonly T[], round: number): T[] {
  const by = servers.length === 0 ? 0 : (round - 1) % servers.length
  return [...servers.slice(by), ...servers.slice(0, by)]
}

export interface Results {
  readonly cases: readonly CaseInfo[]
  readonly servers: readonly ServerInfo[]
  readonly measurements: readonly Measurement[]
  readonly failures: readonly Failure[]
}

/** The tables of a run, in Markdown that can be read in a terminal too. */
export function tables(results: Results): string {
  return results.cases
    .map((info) => caseTable(info, results))
    .filter((text) => text !== '')
    .join('\n')
}

const columns: Record<CaseInfo['kind'], readonly [title: string, cell: (row: Summary) => string][]> = {
  bytes: [
    ['MiB/s', ({ rate }) => withSpread(rate)],
    ['CPU s/GiB', (row) => besideRedis(row)],
    ['p50 ms', ({ p50Ms }) => number(p50Ms.median)],
    ['p99 ms', ({ p99Ms }) => number(p99Ms.median)],
    ['peak MiB', ({ peakMiB }) => number(peakMiB.median)],
    ['load: s/GiB', ({ loadCpu }) => number(loadCpu.median)],
    ['of a core', ({ loadShare }) => percent(loadShare.median)],
  ],
  operations: [
    ['ops/s', ({ rate }) => withSpread(rate)],
    ['CPU ms/op', (row) => besideRedis(row)],
    ['p50 ms', ({ p50Ms }) => number(p50Ms.median)],
    ['p99 ms', ({ p99Ms }) => number(p99Ms.median)],
    ['peak MiB', ({ peakMiB }) => number(peakMiB.median)],
    ['load: ms/op', ({ loadCpu }) => number(loadCpu.median)],
    ['of a core', ({ loadShare }) => percent(loadShare.median)],
  ],
  waits: [
    ['times', ({ operations }) => String(operations)],
    ['p50 ms', ({ p50Ms }) => withSpread(p50Ms)],
    ['p99 ms', ({ p99Ms }) => withSpread(p99Ms)],
  ],
  crowd: [
    ['uploads', ({ uploads }) => String(uploads)],
    ['failed', ({ failures }) => String(failures)],
    ['KiB each', ({ kibPerUpload }) => withSpread(kibPerUpload)],
    ['peak MiB', ({ peakMiB }) => number(peakMiB.median)],
    ['HEAD p50 ms', ({ p50Ms }) => number(p50Ms.median)],
    ['HEAD p99 ms', ({ p99Ms }) => withSpread(p99Ms)],
    ['load: of a core', ({ loadShare }) => percent(loadShare.median)],
  ],
}

function caseTable(info: CaseInfo, { servers, measurements, failures }: Results): string {
  const rows: string[][] = []
  const remarks: string[] = []
  for (const { name, title } of servers) {
    const own = measurements.filter((m) => m.case === info.name && m.server === name)
    if (own.length > 0) {
      const summary = summarize(info.kind, own)
      rows.push([title, ...columns[info.kind].map(([, cell]) => cell(summary))])
      remarks.push(...summary.notes.map((note) => `${title}: ${note}`))
    }
    const failed = failures.filter((f) => f.case === info.name && f.server === name)
    if (failed.length > 0)
      remarks.push(
        `${title} failed in ${failed.length} ${failed.length === 1 ? 'round' : 'rounds'}: ${failed[0]!.error}`,
      )
  }
  if (rows.length === 0 && remarks.length === 0) return ''
  const header = ['', ...columns[info.kind].map(([title]) => title)]
  const notes = remarks.map((remark) => `- ${remark}\n`).join('')
  return `### ${info.title}\n\n${markdownTable([header, ...rows])}${notes && `\n${notes}`}`
}

function markdownTable([header = [], ...rows]: readonly string[][]): string {
  const widths = header.map((_, i) => Math.max(3, ...[header, ...rows].map((row) => row[i]!.length)))
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |\n`
  const rule = `|${widths.map((width, i) => (i === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|\n`
  return line(header) + rule + rows.map(line).join('')
}

/** Half of the spread on each side; of one round there is nothing to say. */
function withSpread({ count, median, spread }: Rounds): string {
  return count < 2 || Number.isNaN(median) ? number(median) : `${number(median)} ±${percent(spread / 2)}`
}

function besideRedis({ cpu, redisCpu }: Summary): string {
  return redisCpu.median > 0 ? `${number(cpu.median)} + ${number(redisCpu.median)}` : number(cpu.median)
}

/** Three digits that count, and never more than are known. */
function number(value: number): string {
  if (!Number.isFinite(value)) return '-'
  if (value === 0) return '0'
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return value.toFixed(Math.min(3, digits))
}

function percent(share: number): string {
  return `${Math.round(share * 100)}%`
}

export const beginMarker = '<!-- bench:begin -->'
export const endMarker = '<!-- bench:end -->'

/** Puts a report between the markers of a document; throws where it has none. */
export function replaceReport(document: string, report: string): string {
  const from = document.indexOf(beginMarker)
  const to = document.indexOf(endMarker)
  if (from < 0 || to < from) throw new Error(`the document has no ${beginMarker} ... ${endMarker}`)
  return `${document.slice(0, from + beginMarker.length)}\n\n${report.trim()}\n\n${document.slice(to)}`
}
