// Every moment at which power may be lost, and for each the states of the disk that are worth a look: the extremes,
// each single loss and each single survival, and some of all the others by lot.

import { createHash } from 'node:crypto'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { decodeSlot, encodeSlot, slotBytes } from '../../../stores/file/mark-codec.ts'
import { type Choice, Disk, type History, type Tree } from './disk-model.ts'
import type { Recorded } from './recording-file-system.ts'

export interface Loss<Note> {
  readonly tree: Tree
  readonly notes: ReadonlyMap<string, Note>
  /** Whether the same was not on the disk before, under other promises. */
  readonly isNew: boolean
  /** For whoever looks at a failure. */
  readonly what: string
}

/**
 * Different states only: many moments leave the same on the disk, under the same promises. Of the operations that are
 * not certain, the `recent` last are tried one by one at every moment, and `random` mixtures of all.
 */
export function* lossesOf<Note>(
  trace: readonly Recorded<Note>[],
  { seed, recent, random }: { seed: number; recent: number; random: number },
): Generator<Loss<Note>> {
  const disk = new Disk()
  const seen = new Set<string>()
  const lot = lots(seed)
  for (const [at, { operation, notes }] of trace.entries()) {
    if (operation) disk.apply(operation, at)
    // Each loss from long ago was tried before; it is tried again when there is a new promise.
    const since = operation ? at - recent : 0
    for (const { choice, how } of choices(disk.uncertain(), { since, random, lot })) {
      const tree = disk.tree(choice)
      const content = digestOf(tree)
      const key = content + JSON.stringify([...notes])
      if (seen.has(key)) continue
      const isNew = !seen.has(content)
      seen.add(content).add(key)
      yield { tree, notes, isNew, what: `after step ${at} (${operation?.does ?? 'a promise'}), ${how}` }
    }
  }
}

function* choices(
  histories: readonly History<unknown>[],
  { since, random, lot }: { since: number; random: number; lot: () => number },
): Generator<{ choice: Choice; how: string }> {
  const lost: Choice = () => 0
  const kept: Choice = ({ values }) => values.length - 1
  const only = (isKept: (history: History<unknown>) => boolean): Choice => {
    return (history) => (isKept(history) ? kept : lost)(history)
  }
  yield { choice: lost, how: 'nothing kept' }
  yield { choice: kept, how: 'everything kept' }
  for (const kind of ['name', 'size', 'sector'] as const) {
    yield { choice: only(({ of }) => of === kind), how: `only each ${kind} kept` }
    yield { choice: only(({ of }) => of !== kind), how: `each ${kind} lost` }
  }
  // One operation changes many things: its sectors and the size.
  const operations = new Set(histories.flatMap(({ values }) => values.slice(1).map(({ at }) => at)))
  for (const one of operations) {
    if (one < since) continue

    const change = ({ values }: History<unknown>) => values.findIndex(({ at }) => at === one)
    const without: Choice = (history) => (change(history) > 0 ? change(history) - 1 : kept(history))
    yield { choice: without, how: `all but operation ${one}` }
    yield { choice: (history) => Math.max(0, change(history)), how: `only operation ${one}` }
    // Names, without which nothing would be seen of it.
    const named: Choice = (history) => (history.of === 'name' ? kept(history) : Math.max(0, change(history)))
    yield { choice: named, how: `names and operation ${one}` }
  }
  for (const one of histories) {
    if (one.values.at(-1)!.at < since) continue
    yield { choice: only((history) => history !== one), how: `one ${one.of} lost` }
    yield {
      choice: only((history) => history === one || history.of === 'name'),
      how: `names and one ${one.of}`,
    }
  }
  for (let n = 0; n < random; n++) {
    const share = lot()
    const picks = new Map<History<unknown>, number>()
    for (const history of histories) {
      const luck = lot()
      const value = luck < share ? kept(history) : Math.floor(lot() * history.values.length)
      picks.set(history, value)
    }
    // What is named is seen; every second time all names are there.
    const choice: Choice = (history) => (n % 2 && history.of === 'name' ? kept(history) : picks.get(history)!)
    yield { choice, how: `drawn by lot (${n})` }
  }
}

function digestOf(tree: Tree): string {
  const hash = createHash('sha1')
  for (const [file, content] of tree) hash.update(`\0${file}\0${content.length}\0`).update(content)
  return hash.digest('hex')
}

/** The same draws for the same seed (mulberry32). */
function lots(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let out = Math.imul(state ^ (state >>> 15), state | 1)
    out ^= out + Math.imul(out ^ (out >>> 7), out | 61)
    return ((out ^ (out >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Puts such a state into an empty folder, as the machine finds it that was started again. */
export function materialise(tree: Tree, folder: string): void {
  for (const [file, content] of tree) {
    const place = path.join(folder, file)
    if (content === 'folder') mkdirSync(place)
    else if (typeof content === 'string') symlinkSync(content.slice(3), place)
    else writeFileSync(place, file.endsWith('.mark') ? asOfEarlierBoot(content) : content)
  }
}

function asOfEarlierBoot(mark: Buffer): Buffer {
  const out = Buffer.from(mark)
  for (const at of [0, slotBytes]) {
    const slot = decodeSlot(out.subarray(at, at + slotBytes))
    if (slot === undefined) continue
    const writer = slot.writer.replace(/^[^/]+/, '00000000-0000-4000-8000-000000000000')
    encodeSlot({ ...slot, writer }).copy(out, at)
  }
  return out
}
