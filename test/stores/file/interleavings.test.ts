/**
 * Two servers on one folder, in any order of steps, against what may be known of an upload: what was acknowledged is
 * kept, what is finished is exact, and what was removed stays away. Every writer sends bytes that nobody else sends.
 */
import { buffer } from 'node:stream/consumers'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Appender, StoreError } from '../../../stores/contracts.ts'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { headOf } from '../../contracts/byte-store-values.ts'
import { makeFolder } from '../../support/folder.ts'
import { filesIn } from './support.ts'

const length = 64

type Step =
  | { does: 'create' | 'open' | 'finish' | 'remove' | 'close' | 'look'; by: number }
  | { does: 'write'; by: number; bytes: number }

const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ does: fc.constant('create' as const), by: fc.nat(1) }) },
  {
    weight: 12,
    arbitrary: fc.record({
      does: fc.constantFrom('open', 'open', 'finish', 'close', 'look', 'look'),
      by: fc.nat(1),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      does: fc.constant('write' as const),
      by: fc.nat(1),
      bytes: fc.integer({ min: 1, max: 30 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ does: fc.constant('remove' as const), by: fc.nat(1) }) },
)

/** What the acknowledged bytes are, and who may still write. */
class Model {
  exists = false
  isFinished = false
  content = Buffer.alloc(0)
  owner: Writer | undefined
}

interface Writer {
  readonly appender: Appender
  readonly mark: number
  pending: Buffer
}

async function play(all: readonly Step[], stores: readonly FileBytes[], id: string): Promise<number> {
  const model = new Model()
  const writers: (Writer | undefined)[] = [undefined, undefined]
  const everybody: Writer[] = []
  let nextMark = 1
  const take = (by: number, appender: Appender) => {
    const writer = { appender, mark: nextMark++, pending: Buffer.from(model.content) }
    writers[by] = writer
    everybody.push(writer)
    model.owner = writer
  }
  const expectKept = async (by: number) => {
    const record = await stores[by]!.look(id)
    expect(record?.mark.state).toBe(model.exists ? (model.isFinished ? 'finished' : 'open') : undefined)
    if (!record) return
    expect(record.mark.offset).toBe(model.content.length)
    const kept = await buffer(await stores[by]!.read(record, 0, record.mark.offset))
    expect(kept.equals(model.content)).toBe(true)
  }
  for (const step of all) {
    const { by } = step
    const store = stores[by]!
    const writer = writers[by]
    const mayWrite = writer !== undefined && model.owner === writer && model.exists && !model.isFinished
    switch (step.does) {
      case 'create': {
        const code = await store.create(headOf(id), length).then((made) => {
          take(by, made)
          return undefined
        }, codeOf)
        expect(code).toBe(model.exists ? 'exists' : undefined)
        if (model.exists) break
        Object.assign(model, { exists: true, isFinished: false, content: Buffer.alloc(0) })
        model.owner!.pending = Buffer.alloc(0)
        break
      }
      case 'open': {
        const opened = await store.open(id)
        expect(opened !== undefined).toBe(model.exists && !model.isFinished)
        if (opened) take(by, opened)
        expect(opened?.record.mark.offset ?? 0).toBe(opened ? model.content.length : 0)
        expect(opened?.rewound).toBeUndefined()
        break
      }
      case 'write': {
        if (!writer || writer.pending.length + step.bytes >= length) break
        const more = Buffer.alloc(step.bytes, writer.mark)
        const written = await writer.appender.write([more], writer.pending.length).catch(codeOf)
        const after = Buffer.concat([writer.pending, more])
        const code = await writer.appender.commit({ offset: after.length }).then(() => undefined, codeOf)
        if (written !== undefined) break // Its files are closed.
        expect(code).toBe(mayWrite ? undefined : 'superseded')
        writer.pending = after
        if (mayWrite) model.content = after
        break
      }
      case 'finish': {
        if (!writer) break
        const rest = Buffer.alloc(length - writer.pending.length, writer.mark)
        const isClosed = await writer.appender.write([rest], writer.pending.length).catch(codeOf)
        if (isClosed !== undefined) break
        const whole = Buffer.concat([writer.pending, rest])
        const code = await writer.appender.finish(length).then(() => undefined, codeOf)
        expect(code).toBe(mayWrite ? undefined : 'superseded')
        await writer.appender.close()
        writers[by] = undefined
        if (mayWrite) Object.assign(model, { isFinished: true, content: whole })
        break
      }
      case 'close':
        await writer?.appender.close()
        writers[by] = undefined
        break
      case 'remove':
        expect(await store.remove(id)).toBe(model.exists)
        Object.assign(model, { exists: false, isFinished: false, owner: undefined })
        break
      case 'look':
        await expectKept(by)
    }
  }
  await expectKept(0)
  await Promise.all(everybody.map(({ appender }) => appender.close()))
  await expectKept(1)
  await stores[0]!.remove(id)
  return everybody.length
}

for (const isShared of [true, false]) {
  it(`whatever two writers do ${isShared ? 'on two servers' : 'in one store'}, acknowledged bytes are kept and finished ones exact`, async () => {
    const folder = await makeFolder()
    const options = { directory: folder.path, isShared, durability: 'none' } as const
    const first = new FileBytes(options)
    const second = isShared ? new FileBytes(options) : first
    for (const store of [first, second]) await store.start()
    let turn = 0
    try {
      const property = fc.asyncProperty(fc.array(steps, { minLength: 5, maxLength: 40 }), async (all) => {
        turn += 1
        const id = turn % 2 ? `u${turn}` : String(turn).padStart(32, '0')
        await play([{ does: 'create', by: turn % 2 }, ...all], [first, second], id)
        expect(await filesIn(folder.path)).toEqual([])
      })
      await fc.assert(property, { numRuns: 150, interruptAfterTimeLimit: 20_000 })
    } finally {
      await folder.remove()
    }
  })

  it(`however many lose their lock and go on ${isShared ? 'of two servers' : 'of one store'}, nothing that was acknowledged is lost`, async () => {
    const folder = await makeFolder()
    const options = { directory: folder.path, isShared, durability: 'none' } as const
    const first = new FileBytes(options)
    const second = isShared ? new FileBytes(options) : first
    for (const store of [first, second]) await store.start()
    let turn = 0
    try {
      const moves = fc.array(fc.tuple(fc.nat(1), fc.nat(5), fc.integer({ min: 1, max: 20 })), {
        minLength: 4,
        maxLength: 12,
      })
      const property = fc.asyncProperty(moves, async (all) => {
        turn += 1
        const id = `c${turn}`
        await (await first.create(headOf(id), length)).close()
        let acknowledged = 0
        let isFinished = false
        // Opening is what the lock is needed for; a lease that is lost afterwards stops nobody from writing on.
        let locked: Promise<unknown> = Promise.resolve()
        const underLock = <T>(work: () => Promise<T>): Promise<T> => {
          const done = locked.then(work)
          locked = done.catch(() => undefined)
          return done
        }
        const append = async (by: number, pause: number, bytes: number) => {
          for (let n = 0; n < pause; n++) await new Promise((resolve) => setImmediate(resolve))
          const store = by ? second : first
          const appender = await underLock(() => store.open(id)).catch(codeOf)
          if (appender === undefined || typeof appender === 'string') return
          const from = appender.record.mark.offset
          const to = Math.min(length, from + bytes)
          // Each byte says its place, so whoever wrote it, it must be right; a hole would be 0.
          const part = Buffer.from(Array.from({ length: to - from }, (_, n) => from + n + 1))
          const result = await appender
            .write([part], from)
            .then(() => (to === length ? appender.finish(length) : appender.commit({ offset: to })))
            .catch(codeOf)
          if (typeof result === 'object') {
            acknowledged = Math.max(acknowledged, to)
            isFinished ||= to === length
          }
          const seen = (await store.look(id))!.mark
          if (typeof result === 'object' && isShared) expect(seen.offset).toBeGreaterThanOrEqual(to)
          await appender.close()
        }
        await Promise.all(all.map(([by, pause, bytes]) => append(by, pause, bytes)))
        const record = (await second.look(id))!
        expect(record.mark.offset).toBeGreaterThanOrEqual(acknowledged)
        if (isFinished) expect(record.mark.state).toBe('finished')
        const kept = await buffer(await first.read(record, 0, record.mark.offset))
        expect([...kept]).toEqual(Array.from(kept, (_, n) => n + 1))
        await first.remove(id)
        expect(await filesIn(folder.path)).toEqual([])
      })
      await fc.assert(property, { numRuns: 120, interruptAfterTimeLimit: 20_000 })
    } finally {
      await folder.remove()
    }
  })
}

function codeOf(error: unknown): string {
  if (error instanceof StoreError) return error.code
  throw error
}
