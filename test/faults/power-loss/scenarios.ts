// What is done to uploads before the power is lost. Every step says what is promised before it is taken, and after.

import { setImmediate } from 'node:timers/promises'
import type { Appender, UploadRecord } from '../../../stores/contracts.ts'
import type { Durability } from '../../../stores/file/file-appender.ts'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { headOf, randomBytes } from '../../contracts/byte-store-values.ts'
import type { Recording } from './recording-file-system.ts'

/** What may be found of an upload after the loss, and what must be. */
export interface Promised {
  readonly is: 'begun' | 'open' | 'finishing' | 'finished' | 'removing' | 'removing finished' | 'removed'
  /** What was acknowledged. */
  readonly offset: number
  readonly length: number
  /** Which bytes it has. */
  readonly seed: number
  /** An upload with this name was finished and removed before: without syncs it may be back. */
  readonly hasPredecessor?: true
}

interface Stage {
  readonly recording: Recording<Promised>
  readonly durability: Durability
  readonly directory: string
}

export type Scenario = (stage: Stage) => Promise<void>

const own = '0123456789abcdef0123456789abcdef'
const other = 'f'.repeat(32)
const length = 2000

function contentOf({ seed, length }: Pick<Promised, 'seed' | 'length'>): Buffer {
  return randomBytes(length, seed)
}

/** One upload, and what is promised of it. */
class Play {
  readonly #stage: Stage
  readonly id: string
  readonly content: Buffer
  #promised: Promised

  constructor(stage: Stage, id: string, seed = 1, content = contentOf({ seed, length })) {
    this.#stage = stage
    this.id = id
    this.content = content
    this.#promised = { is: 'begun', offset: 0, length: content.length, seed }
  }

  promise(change: Partial<Promised>): void {
    this.#promised = { ...this.#promised, ...change }
    this.#stage.recording.note(this.id, this.#promised)
  }

  async create(store: FileBytes, head = {}): Promise<Appender> {
    this.promise({ is: 'begun' })
    const appender = await store.create(headOf(this.id, head), this.content.length)
    this.promise({ is: 'open' })
    return appender
  }

  async createEmpty(store: FileBytes, head = {}): Promise<void> {
    this.promise({ is: 'begun' })
    await store.createEmpty(headOf(this.id, head), this.content.length)
    this.promise({ is: 'open' })
  }

  /** Writes what comes next, in two goes, and has it acknowledged. */
  async append(appender: Appender, to: number, last = false): Promise<void> {
    await this.write(appender, to)
    await appender.commit({ offset: to, last })
    this.promise({ offset: to })
  }

  async write(appender: Appender, to: number): Promise<void> {
    const { offset } = this.#promised
    const middle = (offset + to) >> 1
    await Promise.all([
      appender.write([this.content.subarray(offset, middle)], offset),
      appender.write([this.content.subarray(middle, to)], middle),
    ])
  }

  async finish(appender: Appender): Promise<UploadRecord> {
    await this.write(appender, this.content.length)
    this.promise({ is: 'finishing' })
    const record = await appender.finish(this.content.length)
    this.promise({ is: 'finished', offset: this.content.length })
    await appender.close()
    return record
  }

  async remove(store: FileBytes): Promise<void> {
    this.promise({ is: this.#promised.is === 'finished' ? 'removing finished' : 'removing' })
    await store.remove(this.id)
    this.promise({ is: 'removed' })
  }

  /** Bytes of a writer who was never acknowledged for them. */
  async writeOther(appender: Appender, from: number): Promise<void> {
    await appender.write([randomBytes(this.content.length - from, 99)], from)
  }
}

async function storeOn(stage: Stage, more: { backgroundSyncBytes?: number } = {}): Promise<FileBytes> {
  const { recording, durability, directory } = stage
  const store = new FileBytes({ directory, durability, fileSystem: recording.fileSystem, ...more })
  await store.start()
  return store
}

export const scenarios: Record<string, Scenario> = {
  'an upload that comes whole': async (stage) => {
    const store = await storeOn(stage)
    const play = new Play(stage, own)
    play.promise({ is: 'finishing' })
    await store.createFinished(headOf(own), play.content)
    play.promise({ is: 'finished', offset: play.content.length })
    await play.remove(store)
  },

  'an upload in several requests': async (stage) => {
    const store = await storeOn(stage)
    const play = new Play(stage, own)
    const first = await play.create(store)
    await play.append(first, 700)
    await play.append(first, 1300, true)
    await first.close()
    await play.finish((await store.open(own))!)
  },

  'a creation that brings all bytes, in a folder of its own': async (stage) => {
    const store = await storeOn(stage)
    const play = new Play(stage, `in/${own}`)
    await play.finish(await play.create(store, { metadata: `name ${'x'.repeat(1500)}` }))
  },

  'a creation that brings none, and its first bytes later': async (stage) => {
    const store = await storeOn(stage)
    const play = new Play(stage, own)
    await (await play.create(store, { metadata: `name ${'x'.repeat(1500)}` })).close()
    const appender = (await store.open(own))!
    await play.append(appender, 600, true)
    await appender.close()
  },

  'a creation that lets go of its upload at once, and its first bytes later': async (stage) => {
    const store = await storeOn(stage)
    const play = new Play(stage, own)
    await play.createEmpty(store, { metadata: `name ${'x'.repeat(1500)}` })
    await play.finish((await store.open(own))!)
  },

  'syncs in the background, while more is written': async (stage) => {
    const store = await storeOn(stage, { backgroundSyncBytes: 512 })
    const play = new Play(stage, own)
    const appender = await play.create(store)
    for (let offset = 250; offset < length; offset += 250) {
      await play.append(appender, offset)
      if (offset % 500 === 0) await setImmediate()
    }
    await appender.close()
    await play.finish((await store.open(own))!)
  },

  'a sync that fails, and the upload that goes on after it': async (stage) => {
    const store = await storeOn(stage, { backgroundSyncBytes: 512 })
    const play = new Play(stage, own)
    const appender = await play.create(store)
    await play.append(appender, 600)
    await play.append(appender, 700, true)
    await appender.close()
    const broken = (await store.open(own))!
    const { offset } = broken.record.mark
    await play.write(broken, 1500)
    stage.recording.failsToSync = true
    play.promise({ offset: Math.min(offset, broken.record.mark.syncedOffset) })
    await broken.finish(length).catch(() => undefined)
    await broken.close()
    stage.recording.failsToSync = false
    const again = (await store.open(own))!
    play.promise({ offset: again.record.mark.offset })
    await play.append(again, 1100)
    await play.finish(again)
  },

  'silent writers, each followed by another': async (stage) => {
    const play = new Play(stage, own)
    const silent: Appender[] = []
    let offset = 0
    for (let n = 0; n < 2; n++) {
      const store = await storeOn(stage)
      const appender = n === 0 ? await play.create(store) : (await store.open(own))!
      silent.push(appender)
      offset += 400
      await play.append(appender, offset)
      await play.writeOther(appender, offset)
    }
    const last = (await (await storeOn(stage)).open(own))!
    await silent[1]!.write([randomBytes(900, 98)], 300)
    await play.finish(last)
    await Promise.all(silent.map((appender) => appender.close()))
  },

  'a writer that falls silent after it created': async (stage) => {
    const play = new Play(stage, own)
    const silent = await play.create(await storeOn(stage))
    const next = (await (await storeOn(stage)).open(own))!
    await play.append(next, 800)
    await play.finish(next)
    await silent.close()
  },

  'removals: of one that is open, one that is finished, one that was taken over': async (stage) => {
    const store = await storeOn(stage)
    const [open, finished, taken] = [own, 'named', other].map((id, n) => new Play(stage, id, n + 1))
    const appender = await open!.create(store)
    await open!.append(appender, 900, true)
    await appender.close()
    await finished!.finish(await finished!.create(store))
    const silent = await taken!.create(store)
    await taken!.append(silent, 300)
    await taken!.finish((await (await storeOn(stage)).open(other))!)
    await silent.close()
    for (const each of [open, finished, taken]) await each!.remove(store)
  },

  'a removal, and another upload with the same name': async (stage) => {
    const store = await storeOn(stage)
    const first = new Play(stage, 'named', 1)
    await first.finish(await first.create(store))
    await first.remove(store)
    const second = new Play(stage, 'named', 2)
    second.promise({ hasPredecessor: true })
    const appender = await second.create(store)
    await second.append(appender, 600)
    await second.finish(appender)
    await second.remove(store)
  },

  'a removal under a writer that does not know of it': async (stage) => {
    const play = new Play(stage, own)
    const silent = await play.create(await storeOn(stage))
    await play.append(silent, 600)
    await play.remove(await storeOn(stage))
    await play.writeOther(silent, 600)
    await silent.commit({ offset: 900 }).catch(() => undefined)
    await silent.close()
  },

  'two parts, the final that is made of them, and the removal of the parts': async (stage) => {
    const store = await storeOn(stage)
    const parts = [new Play(stage, own, 1), new Play(stage, other, 2)]
    const ids = parts.map(({ id }) => id)
    // The content of the final is found by the seeds of its parts.
    const final = new Play(stage, 'final', 12, Buffer.concat(parts.map(({ content }) => content)))
    const key = 'k'.repeat(40)
    const records: UploadRecord[] = []
    records.push(await parts[0]!.finish(await parts[0]!.create(store, { concat: 'partial' })))
    const appender = await final.create(store, { concat: 'final', parts: ids, concatKey: key })
    for (const id of ids.slice(0, 1)) await store.concatenation.tie(id, key, 'final')
    records.push(await parts[1]!.finish(await parts[1]!.create(store, { concat: 'partial' })))
    await store.concatenation.tie(other, key, 'final')
    await store.concatenation.assemble(appender, records, new AbortController().signal)
    final.promise({ is: 'finishing' })
    await appender.finish(final.content.length)
    final.promise({ is: 'finished', offset: final.content.length })
    await appender.close()
    for (const part of parts) {
      await store.concatenation.seal(part.id, async () => false)
      await part.remove(store)
    }
  },
}

/** The bytes of an upload that was played; a final has those of its parts. */
export function playedContent({ seed, length }: Promised): Buffer {
  if (seed !== 12) return contentOf({ seed, length })
  return Buffer.concat([1, 2].map((part) => contentOf({ seed: part, length: length / 2 })))
}
