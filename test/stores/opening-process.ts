// A process of its own that opens the records, puts one and closes them, again and again.
import { LmdbRecords } from '../../stores/local/lmdb-records.ts'
import { record } from '../contracts/records-contract.ts'
import { turnsOfParent } from '../support/turns-of-parent.ts'

const [directory, number, rounds] = process.argv.slice(2) as [string, string, string]
const turns = turnsOfParent()
for (let round = 0; round < Number(rounds); round++) {
  const records = new LmdbRecords({ directory, isExamined: true, turns })
  await records.start()
  await Promise.all([0, 1, 2].map((n) => records.put(record(`u${number}-${round}-${n}`), round)))
  await records.close()
}
console.log('done')
turns.close()
