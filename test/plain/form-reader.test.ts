// The reader of forms alone, cut into any pieces and cut off anywhere.

import { Readable } from 'node:stream'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { FormReader } from '../../server/plain/form-reader.ts'
import { boundary, form, formType, part } from './form.ts'

const never = new AbortController().signal

/** Bytes of which many look like the beginning of a boundary, and none is one: a sender chooses it so. */
const content = fc
  .array(
    fc.constantFrom(
      '\r',
      '\n',
      '-',
      '\r\n--',
      `--${boundary}`.slice(0, -1),
      `\r\n--${boundary.slice(0, 5)}`,
      'y',
    ),
    {
      maxLength: 12,
    },
  )
  .map((parts) => parts.join(''))

async function read(body: Buffer, pieces: readonly number[]) {
  const chunks: Buffer[] = []
  let at = 0
  for (const length of pieces) {
    chunks.push(body.subarray(at, at + length))
    at += length
  }
  chunks.push(body.subarray(at))
  const source = Readable.from(
    chunks.filter(({ length }) => length > 0),
    { objectMode: false },
  )
  const reader = new FormReader(
    source,
    { 'content-type': formType['Content-Type'] },
    { idleMs: 60_000, stop: never },
  )
  const files: { name: string; content: string; isWhole: boolean }[] = []
  for (let file = await reader.next(); file; file = await reader.next()) {
    const bytes: Buffer[] = []
    for (let chunk = await file.next(); chunk; chunk = await file.next()) bytes.push(chunk)
    files.push({ name: file.name, content: Buffer.concat(bytes).toString('latin1'), isWhole: file.isWhole })
  }
  return { files, end: reader.end, fields: reader.fields }
}

const pieces = fc.array(fc.integer({ min: 1, max: 90 }), { maxLength: 30 })

it('gives every file as it was sent, in whatever pieces it comes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(content, { minLength: 1, maxLength: 4 }), pieces, async (contents, pieces) => {
      const parts = contents.map((text, i) => part('f', text, `n${i}`))
      const { files, end, fields } = await read(form(part('note', 'said'), ...parts), pieces)
      expect(files).toEqual(contents.map((text, i) => ({ name: `n${i}`, content: text, isWhole: true })))
      expect([end, fields.get('note')]).toEqual(['whole', 'said'])
    }),
    { numRuns: 300 },
  )
})

it('never takes a file for whole whose end did not come, wherever the form is cut off', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(content, { minLength: 1, maxLength: 3 }),
      pieces,
      fc.double({ min: 0, max: 1, noNaN: true }),
      async (contents, pieces, where) => {
        const body = form(...contents.map((text, i) => part('f', text, `n${i}`)))
        // What stands behind the two dashes of the last boundary is nothing of the form.
        const cut = body.subarray(0, Math.floor(where * (body.length - 2)))
        const isOver = cut.length >= body.length - 2
        const { files, end } = await read(cut, pieces)
        expect(end).toBe(isOver ? 'whole' : 'cut')
        for (const [i, file] of files.entries()) {
          expect(contents[i]!.startsWith(file.content)).toBe(true)
          if (file.isWhole) expect(file.content).toBe(contents[i])
        }
      },
    ),
    { numRuns: 500 },
  )
})
