import { describe, expect, it } from 'vitest'
import { chosen, parseOptions } from '../../bench/options.ts'
import {
  beginMarker,
  endMarker,
  type Measurement,
  orderOf,
  percentile,
  replaceReport,
  roundsOf,
  summarize,
  tables,
} from '../../bench/report.ts'

const MiB = 1024 * 1024

const measurement = (change: Partial<Measurement>): Measurement => ({
  ...{ case: 'big', server: 'tidemark', round: 1, seconds: 2, operations: 1, bytes: 2048 * MiB },
  ...{ p50Ms: 1, p99Ms: 2, cpuSeconds: 3, redisCpuSeconds: 0, loadCpuSeconds: 1 },
  ...{ idleBytes: 50 * MiB, peakBytes: 80 * MiB, uploads: 0, failures: 0, notes: [] },
  ...change,
})

describe('the arithmetic of a report', () => {
  it('takes the middle round, or the mean of the middle two', () => {
    expect(roundsOf([3, 1, 2]).median).toBe(2)
    expect(roundsOf([4, 1, 2, 3]).median).toBe(2.5)
    expect(roundsOf([7])).toEqual({ count: 1, median: 7, spread: 0 })
  })

  it('says how far the rounds lie apart as a part of the median', () => {
    expect(roundsOf([90, 100, 120]).spread).toBeCloseTo(0.3)
    expect(roundsOf([0, 0]).spread).toBe(0)
  })

  it('finds percentiles among the values themselves', () => {
    const values = Array.from({ length: 100 }, (_, i) => i + 1)
    expect([0, 0.5, 0.99, 1].map((share) => percentile(values, share))).toEqual([1, 50, 99, 100])
    expect(percentile([5], 0.99)).toBe(5)
    expect(percentile([], 0.5)).toBeNaN()
  })

  it('counts bytes in MiB a second, and processor time in seconds per GiB', () => {
    const summary = summarize('bytes', [
      measurement({}),
      measurement({ round: 2, seconds: 4, cpuSeconds: 5, redisCpuSeconds: 0.5 }),
      measurement({ round: 3, seconds: 1, cpuSeconds: 2, notes: ['a note'] }),
    ])
    expect(summary).toMatchObject({
      rate: { median: 1024, spread: 1.5 },
      cpu: { median: 1.5 },
      redisCpu: { median: 0 },
      loadCpu: { median: 0.5 },
      loadShare: { median: 0.5 },
      peakMiB: { median: 80 },
      notes: ['a note'],
    })
  })

  it('counts operations by the second, and processor time in milliseconds for each', () => {
    const summary = summarize('operations', [measurement({ operations: 4000, redisCpuSeconds: 1 })])
    expect(summary).toMatchObject({
      rate: { median: 2000 },
      cpu: { median: 0.75 },
      redisCpu: { median: 0.25 },
    })
  })

  it('counts what an open upload adds to the memory, and every failure', () => {
    const summary = summarize('crowd', [
      measurement({ uploads: 1000, failures: 1 }),
      measurement({ uploads: 900, failures: 2 }),
    ])
    expect(summary.kibPerUpload.median).toBeCloseTo((30.72 + 34.13) / 2, 1)
    expect(summary).toMatchObject({ uploads: 900, failures: 3 })
  })
})

it('begins each round with another server', () => {
  expect([1, 2, 3, 4].map((round) => orderOf(['a', 'b', 'c'], round).join(''))).toEqual([
    ...['abc', 'bca', 'cab', 'abc'],
  ])
  expect(orderOf([], 3)).toEqual([])
})

describe('the tables', () => {
  const cases = [{ name: 'big', title: 'One large upload', kind: 'bytes' }] as const
  const servers = [
    { name: 'tidemark', title: 'Tidemark' },
    { name: 'other', title: 'Another' },
  ]

  it('have a row for each server that was measured, with Redis shown apart', () => {
    const measurements = [measurement({ redisCpuSeconds: 0.2 }), measurement({ server: 'other' })]
    const text = tables({ cases, servers, measurements, failures: [] })
    expect(text).toContain('### One large upload')
    expect(text).toMatch(/^\| Tidemark +\| +1024 \| +1\.50 \+ 0\.100 \|/m)
    expect(text).toMatch(/^\| Another +\| +1024 \| +1\.50 \|/m)
  })

  it('show a spread where there is one, and say which server failed, and with what', () => {
    const measurements = [measurement({}), measurement({ round: 2, seconds: 2.5 })]
    const failures = [{ case: 'big', server: 'other', round: 1, error: 'it was gone' }]
    const text = tables({ cases, servers, measurements, failures })
    expect(text).toMatch(/^\| Tidemark +\| +922 ±11% \|/m)
    expect(text).toContain('- Another failed in 1 round: it was gone')
  })

  it('go between the markers of the document, and nothing else of it changes', () => {
    const document = `before\n${beginMarker}\nold\n${endMarker}\nafter\n`
    const once = replaceReport(document, 'new\n\n')
    expect(once).toBe(`before\n${beginMarker}\n\nnew\n\n${endMarker}\nafter\n`)
    expect(replaceReport(once, 'new')).toBe(once)
    expect(() => replaceReport('no markers', 'new')).toThrow('has no')
  })
})

describe('the command line', () => {
  it('has sizes with units, and smaller ones for a quick look', () => {
    expect(parseOptions([]).scale.bigBytes).toBe(2048 * MiB)
    expect(parseOptions(['--quick']).scale.bigBytes).toBeLessThan(64 * MiB)
    expect(parseOptions(['--quick', '--size', '1.5MiB']).scale.bigBytes).toBe(1.5 * MiB)
    expect(parseOptions(['--cases', 'big,head']).cases).toEqual(['big', 'head'])
  })

  it.each([['--size', 'large'], ['--rounds', '0'], ['--seconds', 'x'], ['--what']])(
    'refuses %s %s',
    (...args) => {
      expect(() => parseOptions(args)).toThrow()
    },
  )

  it('takes names that exist, in the order of the list', () => {
    const all = [{ name: 'a' }, { name: 'b' }, { name: 'c' }]
    expect(chosen(all, ['c', 'a'])).toEqual([{ name: 'a' }, { name: 'c' }])
    expect(chosen(all, undefined)).toEqual(all)
    expect(() => chosen(all, ['d'])).toThrow('d: unknown; there are a, b, c')
  })
})
