import v8 from 'node:v8'
import vm from 'node:vm'
import { expect, it } from 'vitest'
import { PassingMap, PassingSet } from '../../stores/passing.ts'

it('a set keeps its members in the order in which they came, until they leave', () => {
  const set = new PassingSet<{ name: string }>()
  const [a, b, c] = ['a', 'b', 'c'].map((name) => set.add({ name }))
  b!.leave()
  b!.leave()
  expect([set.size, a!.member, b!.member]).toEqual([2, { name: 'a' }, undefined])
  set.add({ name: 'd' })
  c!.leave()
  expect([...set]).toEqual([{ name: 'a' }, { name: 'd' }])
})

it('a member that is there twice has two places', () => {
  const set = new PassingSet<object>()
  const member = {}
  const first = set.add(member)
  set.add(member)
  first.leave()
  expect([...set]).toEqual([member])
})

it('who goes through a set meets those that come meanwhile, and not those that left', () => {
  const set = new PassingSet<{ n: number }>()
  const places = [1, 2, 3].map((n) => set.add({ n }))
  const met: number[] = []
  for (const { n } of set) {
    met.push(n)
    if (n === 1) places[1]!.leave()
    if (n < 30) set.add({ n: n * 10 })
  }
  expect(met).toEqual([1, 3, 10, 30, 100])
})

it('a map holds one member for each key, the last one', () => {
  const map = new PassingMap<string, { n: number }>()
  map.set('a', { n: 1 })
  map.set('a', { n: 2 })
  map.set('b', { n: 3 })
  expect([map.size, map.get('a'), map.has('c'), map.get('c')]).toEqual([2, { n: 2 }, false, undefined])
  expect([...map.keys()]).toEqual(['a', 'b'])
  expect([map.delete('a'), map.delete('a'), map.has('a')]).toEqual([true, false, false])
  expect([...map.values()]).toEqual([{ n: 3 }])
  map.clear()
  expect([map.size, [...map.values()]]).toEqual([0, []])
})

it('what left is not held by what is still there', async () => {
  const set = new PassingSet<object>()
  const map = new PassingMap<number, object>()
  const gone: WeakRef<object>[] = []
  const kept: unknown[] = []
  const pass = (n: number) => {
    const member = {}
    gone.push(new WeakRef(member))
    const place = set.add(member)
    map.set(n, member)
    kept.push(place)
    place.leave()
    map.delete(n)
  }
  for (let n = 0; n < 100; n++) pass(n)
  await new Promise((resolve) => setImmediate(resolve))
  collectGarbage()
  expect(gone.filter((reference) => reference.deref() !== undefined)).toEqual([])
  expect(kept).toHaveLength(100)
})

function collectGarbage(): void {
  v8.setFlagsFromString('--expose-gc')
  ;(vm.runInNewContext('gc') as () => void)()
}
