// What Prometheus would read: the samples of one answer, by name and labels.

import { expect } from 'vitest'

export interface Scrape {
  readonly text: string
  /** By the words in front of the value: `tusd_errors_total{status="404",code="not-found"}`. */
  readonly samples: ReadonlyMap<string, number>
  /** The types, by name. */
  readonly types: ReadonlyMap<string, string>
  /** Fails when there is no such sample. */
  value(series: string): number
}

export async function scrape(url: string): Promise<Scrape> {
  const response = await fetch(url)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  return parseScrape(await response.text())
}

export function parseScrape(text: string): Scrape {
  const samples = new Map<string, number>()
  const types = new Map<string, string>()
  for (const line of text.split('\n').filter(Boolean)) {
    const [, name, type] = /^# TYPE (\S+) (counter|gauge|histogram|summary)$/.exec(line) ?? []
    if (name !== undefined) types.set(name, type!)
    if (line.startsWith('#')) continue
    const [, series, value] =
      /^([a-z_][a-z0-9_]*(?:\{(?:[a-z_]+="[^"\\\n]*",?)*\})?) (-?[\d.e+-]+|Nan|\+Inf)$/.exec(line) ?? []
    if (series === undefined) throw new Error(`no sample: ${line}`)
    if (samples.has(series)) throw new Error(`twice: ${series}`)
    samples.set(series, Number(value))
  }
  return {
    ...{ text, samples, types },
    value(series) {
      const value = samples.get(series)
      if (value === undefined) throw new Error(`there is no ${series}`)
      return value
    },
  }
}
