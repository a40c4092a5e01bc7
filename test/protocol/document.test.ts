// docs/protocol.md says what the server answers and which test holds it. It is wrong as soon as the two drift apart.

import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

const folder = new URL('.', import.meta.url)
const document = readFileSync(new URL('../../docs/protocol.md', import.meta.url), 'utf8')

interface Row {
  readonly number: string
  readonly clause: string
  readonly tests: readonly string[]
}

function rowsOf(markdown: string): Row[] {
  return markdown.split('\n').flatMap((line) => {
    const match = /^\|\s*(\d+)\s*\|\s*(.+?)\s*\|\s*(.+?)\s*\|\s*(.*?)\s*\|$/.exec(line)
    if (!match) return []
    const [, number = '', clause = '', , cell = ''] = match
    return [{ number, clause, tests: cell === '' ? [] : cell.split('<br>') }]
  })
}

/** Tests that are named after a row, as the document names them: `core` PATCH -> 204 ... */
function testsOf(file: string): { row: string; test: string }[] {
  const source = readFileSync(new URL(file, folder), 'utf8')
  const titles = source.matchAll(/\bit\(\s*(['`])row (\d+): ((?:\\.|(?!\1).)*)\1/g)
  return [...titles].map(([, , row = '', title = '']) => ({
    row,
    test: `\`${file.replace('.test.ts', '')}\` ${title.replace(/\$\{[^}]*\}/g, '…')}`,
  }))
}

const rows = rowsOf(document)
const tests = readdirSync(folder)
  .filter((file) => file.endsWith('.test.ts'))
  .flatMap(testsOf)

describe('docs/protocol.md', () => {
  it('has one row for each number', () => {
    const numbers = rows.map(({ number }) => number)
    expect(numbers.length).toBeGreaterThan(30)
    expect(new Set(numbers).size).toBe(numbers.length)
  })

  it('has a row for every test that is named after one', () => {
    const numbers = rows.map(({ number }) => number)
    expect(tests.filter(({ row }) => !numbers.includes(row))).toEqual([])
  })

  for (const { number, clause, tests: named } of rows)
    it(`names the tests of row ${number} (${clause}), all of them and no other`, () => {
      const held = tests.filter(({ row }) => row === number).map(({ test }) => test)
      expect(held).not.toEqual([])
      expect([...named].sort()).toEqual(held.sort())
    })
})
