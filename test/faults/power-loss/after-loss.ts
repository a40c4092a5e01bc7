// The machine was started again: what is in the folder now, what was promised, and whether an upload can go on.

import { readdirSync } from 'node:fs'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import type { UploadRecord } from '../../../stores/contracts.ts'
import type { Durability } from '../../../stores/file/file-appender.ts'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { codeOf } from '../../contracts/byte-store-values.ts'
import type { Tree } from './disk-model.ts'
import type { Loss } from './losses.ts'
import { type Promised, playedContent } from './scenarios.ts'

/** What was found, to be counted. */
export type Found = 'damaged' | 'finished' | 'goes on' | 'begins anew' | 'gone'

/** Fails with a sentence when a promise is broken. */
export async function lookAfterLoss(
  directory: string,
  { tree, notes, isNew }: Loss<Promised>,
  durability: Durability,
): Promise<Found[]> {
  const store = await storeOn(directory, durability)
  const walked = new Map<string, UploadRecord>()
  for await (const record of store.walk()) walked.set(record.head.id, record)
  const found: Found[] = []
  for (const [id, promised] of notes) {
    // Its head was never synced, but its last slot may be there: nobody can say what it was.
    const mayHaveFinished = /finish|removed/.test(promised.is) || promised.hasPredecessor === true
    const mayBeDamaged = durability === 'none' && mayHaveFinished
    if (mayBeDamaged && (await codeOf(store.look(id))) === 'damaged') return [...found, 'damaged']
    const record = await store.look(id)
    expectThat(walked.get(id)?.mark.state === record?.mark.state, `the walk finds ${id} as it is`)
    expectThat(walked.delete(id) || !record, `the walk finds ${id}`)
    found.push(await expectPromises(store, id, record, promised, durability))
  }
  expectThat(walked.size === 0, 'the walk finds nothing else')
  if (!isNew) return found
  await store.sweepOrphans(-1)
  // Where names were never synced a generation may be missing: the upload is then taken over twice, or found finished.
  for (const [id, promised] of notes)
    if (!hasGap(tree, id)) await expectToGoOn(directory, id, promised, durability)
    else expectThat(durability === 'none', `no generation of ${id} is missing`)
  await expectNothingLeft(directory, tree, notes)
  return found
}

async function expectPromises(
  store: FileBytes,
  id: string,
  record: UploadRecord | undefined,
  promised: Promised,
  durability: Durability,
): Promise<Found> {
  const state = record?.mark.state ?? 'terminated'
  const { is } = promised
  const mayBeBack = durability === 'none' && promised.hasPredecessor
  if (durability !== 'none') {
    if (is === 'finished') expectThat(state === 'finished', `${id} is finished, not ${state}`)
    if (is === 'removed') expectThat(state === 'terminated', `${id} is removed, not ${state}`)
    if (is === 'removing finished') expectThat(state !== 'open', `${id} is finished or gone, not ${state}`)
  }
  // A creation that brought no bytes is not synced: its client begins anew, and has lost nothing.
  if (durability === 'checkpoint' && (is === 'open' || is === 'finishing') && promised.offset > 0)
    expectThat(state !== 'terminated', `${id} is there`)
  if (!mayBeBack && (is === 'begun' || is === 'open'))
    expectThat(state !== 'finished', `${id} is not finished yet`)
  if (record === undefined || state === 'terminated') return 'gone'

  const content = playedContent(promised)
  const { offset } = record.mark
  if (durability === 'checkpoint')
    expectThat(offset >= promised.offset, `${id} keeps ${promised.offset}, has ${offset}`)
  if (state === 'finished') {
    expectThat(offset === content.length, `${id} is finished at its length, not at ${offset}`)
    const served = store.read(record, 0, offset).then((stream) => buffer(stream))
    if (durability !== 'none') expectThat((await served).equals(content), `${id} is served as it was sent`)
    else await served.catch(() => undefined)
    return 'finished'
  }
  const trusted = await buffer(await store.read(record, 0, offset))
  expectThat(trusted.equals(content.subarray(0, offset)), `${id} is trusted up to ${offset}, rightly`)
  return offset > 0 ? 'goes on' : 'begins anew'
}

/** The client comes back: the rest is sent, by a second server after a first one that falls silent; then it is removed. */
async function expectToGoOn(
  directory: string,
  id: string,
  promised: Promised,
  durability: Durability,
): Promise<void> {
  const content = playedContent(promised)
  const store = await storeOn(directory, durability)
  const before = await store.look(id)
  const first = await store.open(id)
  if (first) {
    const { offset } = first.record.mark
    expectThat(offset === before!.mark.offset, `${id} is opened where it was said to be`)
    const half = (offset + content.length) >> 1
    await first.write([content.subarray(offset, half)], offset)
    if (half < content.length) await first.commit({ offset: half })
    const second = (await (await storeOn(directory, durability)).open(id))!
    await second.write([content.subarray(half)], half)
    await second.finish(content.length)
    await Promise.all([first.close(), second.close()])
    const record = (await store.look(id))!
    expectThat(record.mark.state === 'finished', `${id} is finished once it went on`)
    const served = await buffer(await store.read(record, 0, content.length))
    expectThat(served.equals(content), `${id} is what was sent once it went on`)
  }
  await store.remove(id)
  expectThat((await store.look(id)) === undefined, `${id} is gone once it is removed`)
}

/**
 * Bytes whose mark was lost with its name look like anybody's file, so they stay; everything else is found by the sweep.
 * A name that somebody chose proves nothing either.
 */
async function expectNothingLeft(
  directory: string,
  tree: Tree,
  notes: ReadonlyMap<string, Promised>,
): Promise<void> {
  await (await storeOn(directory, 'none')).sweepOrphans(-1)
  const isOurs = (id: string) => /^[0-9a-f]{32}$/.test(id)
  const mayStay = (file: string) =>
    [...notes.keys()].some((id) => {
      const hidden = path.join(path.dirname(id), `.${path.basename(id)}.`)
      const hadMark = [...tree.keys()].some((each) => each.endsWith(`${hidden}0.mark`))
      if (file.startsWith(`${hidden}finals`)) return true
      return (file === id || file.startsWith(hidden)) && !(hadMark && isOurs(id) && !hasGap(tree, id))
    })
  const left = filesIn(directory).filter((file) => !mayStay(file))
  expectThat(left.length === 0, `nothing is left over, but there is ${left}`)
}

/** Whether the mark of a generation is there, and one before it is not. */
function hasGap(tree: Tree, id: string): boolean {
  const own = path.join('uploads', path.dirname(id), `.${path.basename(id)}.`)
  const found = [...tree.keys()].flatMap((file) => {
    return file.startsWith(own) && file.endsWith('.mark') ? [Number(file.slice(own.length, -5))] : []
  })
  return found.includes(0) && Math.max(...found) !== found.length - 1
}

function filesIn(directory: string): string[] {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
}

async function storeOn(directory: string, durability: Durability): Promise<FileBytes> {
  const store = new FileBytes({ directory, durability })
  await store.start()
  return store
}

function expectThat(isTrue: boolean, sentence: string): void {
  if (!isTrue) throw new Error(`broken: ${sentence}`)
}
