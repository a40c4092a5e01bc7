import { readFile, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { UploadHead } from '../../../stores/contracts.ts'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import {
  decodeHead,
  decodeSlot,
  encodeHead,
  encodeSlot,
  newestSlot,
  type Slot,
  slotBytes,
  slotPosition,
} from '../../../stores/file/mark-codec.ts'
import { codeOf, headOf } from '../../contracts/byte-store-values.ts'
import { temporaryFolder } from '../../support/folder.ts'
import { filesIn } from './support.ts'

const bytes = fc.maxSafeNat()
const slots: fc.Arbitrary<Slot> = fc.record(
  {
    state: fc.constantFrom('open', 'finished', 'failed', 'terminated'),
    offset: bytes,
    syncedOffset: bytes,
    length: bytes,
    generation: fc.nat(999_999_999),
    sequence: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER - 1 }),
    movedAt: bytes,
    writer: fc.string({ maxLength: 200, unit: 'grapheme-ascii' }),
    isReleased: fc.boolean(),
  },
  {
    noNullPrototype: true,
    requiredKeys: [
      'state',
      'offset',
      'syncedOffset',
      'generation',
      'sequence',
      'movedAt',
      'writer',
      'isReleased',
    ],
  },
)
const heads: fc.Arbitrary<UploadHead> = fc.record(
  {
    id: fc.string({ unit: 'grapheme', minLength: 1 }),
    metadata: fc.string({ unit: 'binary' }).filter((text) => text.isWellFormed()),
    createdAt: bytes,
    dialect: fc.constant('tus' as const),
    concat: fc.string(),
    owner: fc.string({ unit: 'grapheme' }),
  },
  { noNullPrototype: true, requiredKeys: ['id', 'createdAt', 'dialect'] },
)

describe('the bytes of a mark', () => {
  it('give back every slot that was written', () => {
    fc.assert(
      fc.property(slots, (slot) => {
        expect(encodeSlot(slot)).toHaveLength(slotBytes)
        expect(decodeSlot(encodeSlot(slot))).toStrictEqual(slot)
      }),
    )
  })

  it('give back every head that was written, or say how many bytes of it are missing', () => {
    fc.assert(
      fc.property(heads, fc.double({ min: 0, max: 1, noNaN: true }), (head, part) => {
        const whole = encodeHead(head)
        expect(decodeHead(Buffer.concat([whole, Buffer.alloc(10)]))).toStrictEqual(head)
        const cut = whole.subarray(0, Math.floor(part * (whole.length - 1)))
        expect(decodeHead(cut)).toBe(cut.length < 8 ? undefined : whole.length)
      }),
    )
  })

  it('show no head of which any byte is damaged', () => {
    fc.assert(
      fc.property(heads, fc.nat(), fc.integer({ min: 1, max: 255 }), (head, at, flip) => {
        const damaged = encodeHead(head)
        damaged[at % damaged.length]! ^= flip
        expect(typeof decodeHead(damaged)).not.toBe('object')
      }),
    )
  })

  it('count the other slot when the newest was written by half, wherever it was cut', () => {
    fc.assert(
      fc.property(slots, slots, (first, second) => {
        const before = { ...first, sequence: Math.min(first.sequence, Number.MAX_SAFE_INTEGER - 2) }
        const after = { ...second, sequence: before.sequence + 1 }
        const older = { ...second, sequence: before.sequence - 1 }
        const file = Buffer.alloc(2 * slotBytes)
        encodeSlot(older).copy(file, slotPosition(after.sequence))
        encodeSlot(before).copy(file, slotPosition(before.sequence))
        const next = encodeSlot(after)
        for (let cut = 0; cut <= slotBytes; cut++) {
          const torn = Buffer.from(file)
          next.copy(torn, slotPosition(after.sequence), 0, cut)
          const isWhole = torn.subarray(slotPosition(after.sequence)).subarray(0, slotBytes).equals(next)
          expect(newestSlot(torn)).toStrictEqual(isWhole ? after : before)
        }
      }),
      { numRuns: 30 },
    )
  })

  it('count the higher sequence, in whichever slot it stands', () => {
    fc.assert(
      fc.property(slots, slots, (a, b) => {
        const file = Buffer.concat([encodeSlot(a), encodeSlot(b)])
        expect(newestSlot(file)?.sequence).toBe(Math.max(a.sequence, b.sequence))
      }),
    )
  })

  it('keep no name of a writer that does not fit', () => {
    const slot = fc.sample(slots, 1)[0]!
    expect(() => encodeSlot({ ...slot, writer: 'x'.repeat(201) })).toThrow(RangeError)
  })
})

describe('a mark file', () => {
  const start = async () => {
    const folder = await temporaryFolder()
    const store = new FileBytes({ directory: folder })
    await store.start()
    return { folder, store, mark: join(folder, '.a.0.mark'), data: join(folder, 'a') }
  }
  const kept = async (store: FileBytes, head = headOf('a')) => {
    const appender = await store.create(head, 9)
    await appender.write([Buffer.from('abc')], 0)
    await appender.commit({ offset: 2 })
    await appender.commit({ offset: 3, last: true })
    await appender.close()
  }

  it('shows the mark before when any byte of the newest slot is damaged', async () => {
    const { store, mark } = await start()
    await kept(store)
    const { sequence } = (await store.look('a'))!.mark
    const whole = await readFile(mark)
    for (let at = 0; at < slotBytes; at += 13) {
      const damaged = Buffer.from(whole)
      damaged[slotPosition(sequence) + at]! ^= 1
      await writeFile(mark, damaged)
      expect((await store.look('a'))!.mark).toMatchObject({ offset: 2, sequence: sequence - 1 })
    }
  })

  it('keeps a head that is longer than the first read', async () => {
    const { store } = await start()
    for (const length of [3000, 3060, 3070, 3080, 4096, 70_000, 1 << 20]) {
      const head = headOf(`h${length}`, { metadata: 'x'.repeat(length) })
      await kept(store, head)
      expect((await store.look(head.id))!.head).toStrictEqual(head)
    }
  })

  it('with a damaged head is called damaged, and nothing is removed', async () => {
    const { store, mark, folder } = await start()
    await kept(store)
    const whole = await readFile(mark)
    for (const at of [1024, 1028, 1040, whole.length - 1]) {
      const damaged = Buffer.from(whole)
      damaged[at]! ^= 1
      await writeFile(mark, damaged)
      for (const ask of ['look', 'open', 'remove'] as const)
        expect(await codeOf(store[ask]('a'))).toBe('damaged')
    }
    await truncate(mark, 1030)
    expect(await codeOf(store.look('a'))).toBe('damaged')
    await kept(store, headOf('b'))
    expect(await store.sweepOrphans(-1)).toBe(0)
    const walked: string[] = []
    for await (const { head } of store.walk()) walked.push(head.id)
    expect(walked).toEqual(['b'])
    expect(await filesIn(folder)).toEqual(['.a.0.mark', '.b.0.mark', 'a', 'b'])
  })

  it('with both slots damaged is called damaged', async () => {
    const { store, mark } = await start()
    await kept(store)
    const damaged = await readFile(mark)
    damaged[20]! ^= 1
    damaged[slotBytes + 20]! ^= 1
    await writeFile(mark, damaged)
    expect(await codeOf(store.look('a'))).toBe('damaged')
  })

  it('that is empty is no upload, and goes with the sweep', async () => {
    const { store, mark, folder } = await start()
    await writeFile(mark, '')
    expect(await store.look('a')).toBeUndefined()
    expect(await store.open('a')).toBeUndefined()
    expect(await store.remove('a')).toBe(false)
    expect(await codeOf(store.create(headOf('a'), 1))).toBe('exists')
    expect(await store.sweepOrphans(-1)).toBe(1)
    expect(await filesIn(folder)).toEqual([])
  })

  it('without its bytes sets the upload back to what is there, and says so', async () => {
    const { store, data } = await start()
    await kept(store)
    await unlink(data)
    expect((await store.look('a'))!.mark.offset).toBe(3)
    const appender = (await store.open('a'))!
    expect(appender.rewound).toEqual({ from: 3, to: 0 })
    expect((await store.look('a'))!.mark.offset).toBe(0)
    await appender.close()
  })

  it('that is missing makes bytes somebody else’s: never an upload, never removed, never written over', async () => {
    const { store, data, folder } = await start()
    for (const content of ['', 'precious']) {
      await writeFile(data, content)
      expect(await store.look('a')).toBeUndefined()
      expect(await store.remove('a')).toBe(false)
      expect(await codeOf(store.create(headOf('a'), 1))).toBe('exists')
      expect(await store.sweepOrphans(-1)).toBe(0)
      expect(await filesIn(folder)).toEqual(['a'])
      expect(await readFile(data, 'utf8')).toBe(content)
    }
  })
})
