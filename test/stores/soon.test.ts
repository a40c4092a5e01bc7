import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { type Copy, Soon } from '../../stores/local/soon.ts'
import { record } from '../contracts/records-contract.ts'

const copy = (id: string, sequence: number): Copy => ({ record: record(id, { sequence }) })
const named = (copies: Iterable<Copy>) =>
  [...copies].map(({ record: { head, mark } }) => `${head.id} ${mark.sequence}`)

/** What was written in each batch. A batch waits until it is let go, when `holds`. */
function start({ holds = false } = {}) {
  const written: string[][] = []
  const held: (() => void)[] = []
  const soon = new Soon(async (copies) => {
    if (holds) await new Promise<void>((resolve) => held.push(resolve))
    written.push(named(copies))
  })
  return { soon, written, letGo: () => held.shift()!() }
}

it('of each upload the newest is written, all of them together', async () => {
  const { soon, written } = start()
  await Promise.all([soon.add(copy('a', 1)), soon.add(copy('b', 1)), soon.add(copy('a', 2))])
  expect(written).toEqual([['a 2', 'b 1']])
  expect(soon.get('a')).toBeUndefined()
  await soon.add(copy('a', 3))
  expect(written).toEqual([['a 2', 'b 1'], ['a 3']])
})

it('what is not written yet is known, also while it is being written', async () => {
  const { soon, letGo } = start({ holds: true })
  const first = soon.add(copy('a', 1))
  expect(soon.get('a')?.mark.sequence).toBe(1)
  const flushed = soon.flush()
  await delay(0)
  expect(soon.get('a')?.mark.sequence).toBe(1)
  letGo()
  await Promise.all([first, flushed])
  expect(soon.get('a')).toBeUndefined()
})

it('one batch is written at a time, and a flush waits for what waits behind it', async () => {
  const { soon, written, letGo } = start({ holds: true })
  void soon.add(copy('a', 1))
  void soon.flush()
  await delay(0)
  void soon.add(copy('a', 2))
  const flushed = soon.flush().then(() => written.length)
  await delay(40)
  expect(written).toEqual([])
  expect(soon.get('a')?.mark.sequence).toBe(2)
  letGo()
  await delay(0)
  expect(written).toEqual([['a 1']])
  letGo()
  expect(await flushed).toBe(2)
  expect(written).toEqual([['a 1'], ['a 2']])
})

it('what is dropped is not written', async () => {
  const { soon, written } = start()
  const batch = soon.add(copy('a', 1))
  void soon.add(copy('b', 1))
  soon.drop('a')
  expect(soon.get('a')).toBeUndefined()
  await batch
  expect(written).toEqual([['b 1']])
})

it('who added something is told that it could not be written, and later things can', async () => {
  const written: string[][] = []
  const soon = new Soon(async (copies) => {
    if (written.push(named(copies)) === 1) throw new Error('the disk is full')
  })
  const told = Promise.allSettled([soon.add(copy('a', 1)), soon.add(copy('b', 1))])
  await soon.flush()
  expect((await told).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  await soon.add(copy('c', 1))
  expect(written).toEqual([['a 1', 'b 1'], ['c 1']])
})
