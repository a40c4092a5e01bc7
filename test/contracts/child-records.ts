// A process of its own that puts records of five uploads, in any order: of all sequences below 500 every third, which is its own.
import { LmdbRecords } from '../../stores/local/lmdb-records.ts'
import { turnsOfParent } from '../support/turns-of-parent.ts'

const [directory, number] = process.argv.slice(2) as [string, string]
const turns = turnsOfParent()
const records = new LmdbRecords({ directory, isExamined: true, turns })
await records.start()
const sequences = Array.from({ length: 500 }, (_, n) => n)
  .filter((n) => n % 3 === (Number(number) + 2) % 3)
  .map((n) => ({ n, at: Math.random() }))
  .toSorted((a, b) => a.at - b.at)
for (const [index, { n }] of sequences.entries()) {
  const puts = Array.from({ length: 5 }, (_, u) => {
    const mark = {
      state: 'open',
      offset: 0,
      syncedOffset: 0,
      generation: 0,
      sequence: n,
      movedAt: n,
    } as const
    return records.put({ head: { id: `u${u}`, createdAt: 1000, dialect: 'tus' }, mark }, n)
  })
  await Promise.all(puts)
  if (index === 0) console.log('put')
}
console.log('done')
await records.close()
turns.close()
