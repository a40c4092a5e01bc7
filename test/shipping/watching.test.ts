// The dashboard and the alerts that are shipped ask for metrics, by names and labels: those that a server has.

import { readFile } from 'node:fs/promises'
import { beforeAll, describe, expect, inject, it } from 'vitest'
import { parse } from 'yaml'
import { errorTable } from '../../server/errors.ts'
import { requestKinds } from '../../server/metrics/request-tally.ts'
import { makeFolder } from '../support/folder.ts'
import { type Scrape, scrape } from '../support/scrape.ts'
import { startServer } from '../support/server-process.ts'

let metrics: Scrape
beforeAll(async () => {
  const folder = await makeFolder()
  const server = await startServer({ dir: folder.path, redisUrl: inject('redisUrl') })
  try {
    // One of everything whose labels only come with it.
    await fetch(`${server.url}/files/none`, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
    metrics = await scrape(`${server.url}/metrics`)
  } finally {
    await server.stop()
    await folder.remove()
  }
})

interface Panel {
  readonly title: string
  readonly type: string
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[]
}

const shipped = (path: string) => readFile(new URL(`../../deploy/${path}`, import.meta.url), 'utf8')
const dashboard = JSON.parse(await shipped('grafana/tidemark.json')) as {
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly { readonly name: string; readonly query: unknown }[] }
}
const alerts = parse(await shipped('prometheus/tidemark-alerts.yml')) as {
  readonly groups: readonly { readonly rules: readonly { readonly alert: string; readonly expr: string }[] }[]
}
const rules = alerts.groups.flatMap((group) => group.rules)
const panels = dashboard.panels.filter(({ type }) => type !== 'row')

describe('deploy/grafana/tidemark.json', () => {
  it('has panels, and each of them asks for something', () => {
    expect(panels.length).toBeGreaterThan(15)
    expect(panels.filter(({ targets = [] }) => targets.length === 0)).toEqual([])
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length)
  })

  for (const { title, targets = [] } of panels)
    it(`asks in "${title}" only for what there is`, () => {
      for (const { expr, legendFormat } of targets) {
        expect(faultsOf(expr)).toEqual([])
        const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!)
        expect(shown.filter((label) => !groupedBy(expr).includes(label))).toEqual([])
      }
    })

  it('chooses servers by a metric that there is', () => {
    const queries = dashboard.templating.list.map(({ query }) => JSON.stringify(query))
    const names = queries.flatMap((query) => namesIn(query))
    expect(names).toEqual(['tidemark_build_info', 'tidemark_build_info'])
    expect(metrics.types.has('tidemark_build_info')).toBe(true)
  })

  it('shows every metric of ours but those that say the same again', () => {
    const shown = panels.flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => namesIn(expr)))
    const ours = [...metrics.types.keys()].filter((name) => /^(tidemark|tusd)_/.test(name))
    const left = ours.filter((name) => !shown.map(familyOf).includes(name))
    expect(left).toEqual(['tusd_requests_total', 'tusd_bytes_received'])
  })
})

describe('deploy/prometheus', () => {
  for (const { alert, expr } of rules)
    it(`asks in ${alert} only for what there is`, () => {
      expect(faultsOf(expr)).toEqual([])
    })

  it('scrapes the path that is the default, and reads the alerts that are beside it', async () => {
    const config = parse(await shipped('prometheus/prometheus.yml')) as Record<string, never>
    expect(config).toMatchObject({
      rule_files: ['tidemark-alerts.yml'],
      scrape_configs: [{ job_name: 'tidemark', metrics_path: '/metrics' }],
    })
  })

  it('is told of in docs/production.md, alert by alert', async () => {
    const document = await readFile(new URL('../../docs/production.md', import.meta.url), 'utf8')
    expect(rules.map(({ alert }) => alert).filter((alert) => !document.includes(`\`${alert}\``))).toEqual([])
  })
})

/** Names, labels and values of labels that no server has. */
function faultsOf(expr: string): string[] {
  const names = namesIn(expr)
  if (names.length === 0 && !/\bup\{/.test(expr)) return [`no metric: ${expr}`]
  const faults = names.filter((name) => !metrics.types.has(familyOf(name)))
  for (const [, name = '', matchers = ''] of expr.matchAll(/([a-z_]+)\{([^}]*)\}/g))
    for (const [, label = '', value = ''] of matchers.matchAll(/(\w+)=~?"([^"]*)"/g))
      if (!isLabelOf(name, label, value)) faults.push(`${name}{${label}="${value}"}`)
  for (const label of groupedBy(expr))
    if (!names.some((name) => isLabelOf(name, label))) faults.push(`by (${label})`)
  return faults
}

function isLabelOf(name: string, label: string, value?: string): boolean {
  if (label === 'job' || label === 'instance') return true
  const isKnown = value === undefined || isPossible(label, value)
  const pattern = new RegExp(`^${name}\\{.*\\b${label}="`)
  return isKnown && [...metrics.samples.keys()].some((series) => pattern.test(series))
}

/** Values that a label has only once something has happened. */
function isPossible(label: string, value: string): boolean {
  if (label === 'code') return Object.hasOwn(errorTable, value)
  if (label === 'kind') return (requestKinds as readonly string[]).includes(value)
  if (label === 'status') return value === 'cut' || /^[45]\d\d$/.test(value)
  return [...metrics.samples.keys()].some((series) => series.includes(`${label}="${value}"`))
}

const namesIn = (expr: string) => expr.match(/\b(?:tidemark|tusd|process|nodejs)_[a-z0-9_]+/g) ?? []

function groupedBy(expr: string): string[] {
  return [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, labels]) =>
    labels!.split(',').map((l) => l.trim()),
  )
}

function familyOf(name: string): string {
  const family = name.replace(/_(bucket|sum|count)$/, '')
  return metrics.types.get(family) === 'histogram' ? family : name
}
