// That the benchmark measures at all: a run with tiny sizes. Its numbers mean nothing, and none is looked at.

import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import type { Results } from '../../bench/report.ts'
import { isAlive, treeOf } from '../../bench/usage.ts'
import { startChild } from '../support/child.ts'
import { temporaryFolder } from '../support/folder.ts'

const main = fileURLToPath(new URL('../../bench/main.ts', import.meta.url))

/** A run in folders of its own. */
async function bench(...args: string[]) {
  const folder = await temporaryFolder()
  const json = join(folder, 'results.json')
  const files = join(folder, 'files')
  const where = ['--folder', files, '--disk', files, '--json', json]
  const child = startChild(process.execPath, ['--import', 'tsx', main, ...where, ...args])
  onTestFinished(() => child.kill('SIGTERM'))
  return { child, json, files }
}

const tiny = [
  '--quick',
  '--size',
  '300KiB',
  '--seconds',
  '0.1',
  '--clients',
  '2',
  '--slow',
  '6',
  '--many',
  '6',
]

it.each([
  ['tidemark', 'every case'],
  ['bare', 'big'],
])('measures %s in %s, and leaves nothing behind', { timeout: 120_000 }, async (server, which) => {
  const isAll = which === 'every case'
  const { child, json, files } = await bench(
    ...tiny,
    '--servers',
    server,
    ...(isAll ? [] : ['--cases', which]),
  )
  expect(await child.exited, child.output()).toMatchObject({ code: 0 })

  const results = JSON.parse(await readFile(json, 'utf8')) as Results
  expect(results.failures).toEqual([])
  expect(results.cases.length).toBeGreaterThan(isAll ? 10 : 0)
  expect(results.measurements.map((m) => m.case)).toEqual(results.cases.map(({ name }) => name))
  for (const [index, { kind, title }] of results.cases.entries()) {
    const measurement = results.measurements[index]!
    expect(measurement).toMatchObject({ server, round: 1, failures: 0 })
    expect(measurement.operations).toBeGreaterThan(0)
    expect(measurement.p99Ms).toBeGreaterThanOrEqual(measurement.p50Ms)
    expect(measurement.peakBytes).toBeGreaterThan(0)
    if (kind === 'bytes') expect(measurement.bytes).toBeGreaterThan(100_000)
    if (kind === 'crowd') expect(measurement.uploads).toBe(6)
    expect(child.stdout()).toContain(`### ${title}\n`)
  }
  expect(await readdir(files).catch(() => [])).toEqual([])
})

it('ends at a signal, with its servers and their files', async () => {
  const { child, files } = await bench(
    '--servers',
    'tidemark',
    '--cases',
    'slow',
    '--slow',
    '2',
    '--seconds',
    '600',
  )
  // The server writes its first file when it runs.
  const isRunning = async () => (await readdir(files, { recursive: true }).catch(() => [])).length > 1
  await expect.poll(isRunning, { timeout: 20_000 }).toBe(true)
  const [, ...servers] = treeOf(child.pid)
  expect(servers.length).toBeGreaterThan(0)
  child.kill('SIGINT')
  expect(await child.exited).toMatchObject({ code: 130 })
  await expect.poll(() => servers.filter(isAlive)).toEqual([])
  expect(await readdir(files).catch(() => [])).toEqual([])
})

it('says in one sentence what it does not know', async () => {
  const { child } = await bench('--servers', 'nobody')
  expect(await child.exited).toMatchObject({ code: 1 })
  expect(child.output()).toMatch(/^bench: nobody: unknown; there are tidemark, /)
})
