// A process of its own that wants room for fifty uploads in one account, as fast as it can, and says how many got it.
import { noLimits } from '../../stores/ledger.ts'
import { LmdbLedger } from '../../stores/local/lmdb-ledger.ts'
import { turnsOfParent } from '../support/turns-of-parent.ts'

const [directory, number] = process.argv.slice(2) as [string, string]
const turns = turnsOfParent()
const ledger = new LmdbLedger({ directory, isExamined: true, turns })
await ledger.start()
const admit = async (n: number): Promise<boolean> => {
  const entry = { account: 'owner:me', id: `${number}-${n}`, createdAt: n }
  const verdict = await ledger.admit(
    entry,
    { bytes: 10, now: Date.now(), lookAt: Date.now() },
    { ...noLimits, unfinishedBytes: 775 },
  )
  return verdict.is === 'admitted'
}
await ledger.begin(
  { account: 'owner:running', id: number, token: number },
  { now: Date.now(), until: Date.now() + 3_600_000 },
  10,
)
process.stdout.write('begun\n')
let admitted = 0
for (let n = 0; n < 50; n++) if (await admit(n)) admitted++
process.stdout.write(`${admitted}\n`)
setInterval(() => undefined, 1000)
