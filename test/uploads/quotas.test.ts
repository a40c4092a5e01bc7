// What quotas admit, and what they count when uploads grow, finish, fail, expire and go; with time handed in.
import { describe, expect, it } from 'vitest'
import type { UploadEngine } from '../../server/uploads/engine.ts'
import { Sweeper } from '../../server/uploads/sweeper.ts'
import { StoreError } from '../../stores/contracts.ts'
import { type Ledger, noLimits } from '../../stores/ledger.ts'
import { ann, type CountedEngine, startCountedEngine } from '../support/counted-engine.ts'
import { append, openBody, request } from '../support/engine.ts'

const MiB = 1024 * 1024
const minuteMs = 60_000

const terminate = (engine: UploadEngine, id: string) =>
  engine.terminate(id, request(undefined, { asker: ann }))

describe('a creation', () => {
  it('is refused with 429 and a sentence while too many uploads are unfinished, and taken when one has ended', async () => {
    const { create, append, engine } = await startCountedEngine({ owner: { openUploads: 2 } })
    const [one, two] = [await create(3), await create(3)]
    const refusal =
      '429 10: 2 unfinished uploads are allowed at a time; try again when one is finished or deleted'
    await expect(create(3)).rejects.toThrow(refusal)
    await append(one, 0, 'abc')
    await create(3)
    await expect(create(3)).rejects.toThrow(refusal)
    await terminate(engine, two)
    await create(3)
  })

  it('is refused when there were too many within a minute, and told when there may be another', async () => {
    const counted = await startCountedEngine({ owner: { creationsPerMinute: 2 } })
    await counted.create(1)
    counted.now += 20_000
    await counted.create(1)
    await expect(counted.create(1)).rejects.toThrow(
      '429 41: 2 uploads may be created within a minute; try again in 41 s',
    )
    counted.now += 40_999
    await expect(counted.create(1)).rejects.toThrow('429 1:')
    counted.now += 1
    await counted.create(1)
  })

  it('counts by its length, whether it has bytes already or not', async () => {
    const { create, used } = await startCountedEngine({ owner: { unfinishedBytes: 100 } })
    await create(60, { body: 'abc' })
    expect(await used()).toEqual([1, 60, 60])
    await expect(create(41)).rejects.toThrow('429 30: unfinished uploads may have 100 bytes together')
    await create(40)
  })

  it('is refused for good, with 413, when it is larger than all uploads may be together', async () => {
    const { create, used } = await startCountedEngine({ owner: { unfinishedBytes: 100, totalBytes: 50 } })
    await expect(create(51)).rejects.toThrow('413 -: uploads may have 50 bytes together')
    expect(await used()).toEqual([0, 0, 0])
  })

  it('counts in total when it is finished, until it is deleted', async () => {
    const { create, engine, used } = await startCountedEngine({ owner: { totalBytes: 100 } })
    const id = await create(60, { body: 'x'.repeat(60) })
    expect(await used()).toEqual([0, 0, 60])
    await expect(create(41)).rejects.toThrow(
      '429 30: uploads may have 100 bytes together; try again when one was',
    )
    await terminate(engine, id)
    expect(await used()).toEqual([0, 0, 0])
    await create(41)
  })

  it('of somebody else counts for them; who is nobody counts with all others who are', async () => {
    const { create, createOf } = await startCountedEngine({ owner: { openUploads: 1 } })
    await create(1)
    await createOf({ owner: 'bob', seesAll: false }, 1)
    await createOf({ seesAll: true }, 1)
    for (const asker of [ann, { owner: 'bob', seesAll: false }, { seesAll: true }])
      await expect(createOf(asker, 1)).rejects.toThrow('429')
  })

  it('has the limits of who asks in place of the usual ones, lower or higher', async () => {
    const { create, createOf } = await startCountedEngine({ owner: { openUploads: 2 } })
    const bob = { owner: 'bob', seesAll: false, limits: { openUploads: 1 } }
    const eve = { owner: 'eve', seesAll: false, limits: { openUploads: 0 } }
    for (const asker of [bob, eve, eve, eve]) await createOf(asker, 1)
    await expect(createOf(bob, 1)).rejects.toThrow('429')
    await create(1)
    await create(1)
    await expect(create(1)).rejects.toThrow('429')
  })

  it('counts by its network address too, and is given back to its owner when that has no room', async () => {
    const plan = { owner: { openUploads: 5 }, address: { openUploads: 1 } }
    const { create, used } = await startCountedEngine(plan)
    await create(1, { client: '192.0.2.1' })
    await expect(create(1, { client: '192.0.2.1' })).rejects.toThrow(
      '1 unfinished upload from your network address is allowed',
    )
    expect([await used(), await used('address:192.0.2.1')]).toEqual([
      [1, 1, 1],
      [1, 1, 1],
    ])
    await create(1, { client: '192.0.2.2' })
  })

  it('that fails after it was admitted is given back', async () => {
    const { engine, used, create } = await startCountedEngine({ owner: { openUploads: 1 } })
    const id = await create(5, { body: 'abcde' })
    const again = () =>
      engine.create(
        {
          ...{ do: 'create', length: 5, metadata: undefined, checksum: undefined },
          ...{ isBytes: false, hasBody: false, contentLength: 0 },
        } as const,
        request(undefined, { asker: ann, nameUpload: async () => id }),
      )
    expect(await again()).toMatchObject({ is: 'refused', refusal: { code: 'exists' } })
    expect(await used()).toEqual([0, 0, 0])
    expect(await again()).toMatchObject({ refusal: { code: 'exists' } })
  })

  it('that is refused with its body on the way is given back', async () => {
    const { create, used } = await startCountedEngine({ owner: { openUploads: 1 } })
    const tooLong = { body: 'abcdef' }
    await expect(create(3, tooLong)).rejects.toThrow('413')
    expect(await used()).toEqual([0, 0, 0])
  })

  it('is refused with 503 while the ledger is away', async () => {
    let isAway = false
    const away = async () => {
      throw new StoreError('unavailable', 'away')
    }
    const { create, used } = await startCountedEngine(
      { owner: { openUploads: 1 } },
      { ledger: (real) => breaking(real, () => isAway, { admit: away, settle: away }) },
    )
    isAway = true
    await expect(create(1)).rejects.toThrow('503 1:')
    isAway = false
    await create(1)
    expect(await used()).toEqual([1, 1, 1])
  })

  it('that took so long that its room was given back is admitted once more, or removed', async () => {
    let slow = async () => {}
    const counted = await startCountedEngine(
      { owner: { openUploads: 1 } },
      {
        ledger: (real) =>
          breaking(real, () => true, {
            admit: async (...args) => {
              const verdict = await real.admit(...args)
              await slow()
              return verdict
            },
          }),
      },
    )
    const { engine, used } = counted
    slow = async () => {
      slow = async () => {}
      counted.now += 10 * minuteMs
      await sweepers(counted)
      expect(await used()).toEqual([0, 0, 0])
    }
    const id = await counted.create(1)
    expect(await used()).toEqual([1, 1, 1])
    await terminate(engine, id)

    slow = async () => {
      slow = async () => {}
      counted.now += 10 * minuteMs
      await sweepers(counted)
      await counted.create(1)
    }
    await expect(counted.create(1)).rejects.toThrow('429')
    expect(await used()).toEqual([1, 1, 1])
  })
})

describe('an upload of unknown length', () => {
  it('counts what is sent; an append that has no room is refused with 423, and goes on when there is some', async () => {
    const { create, append, used, engine } = await startCountedEngine({ owner: { unfinishedBytes: 100 } })
    const other = await create(70)
    const id = await create(undefined)
    expect(await used()).toEqual([2, 70, 70])
    await append(id, 0, 'x'.repeat(20), { contentLength: 20 })
    expect(await used()).toEqual([2, 90, 90])
    await expect(append(id, 20, 'x'.repeat(20), { contentLength: 20 })).rejects.toThrow(
      '423 30: unfinished uploads may have 100 bytes together',
    )
    expect(await used()).toEqual([2, 90, 90])
    await append(other, 0, 'x'.repeat(70))
    await append(id, 20, 'x'.repeat(20), { contentLength: 20 })
    await append(id, 40, 'x'.repeat(10), { length: 50 })
    expect(await used()).toEqual([0, 0, 0])
    expect((await engine.read(id, { asker: ann })).is).toBe('readable')
  })

  it('keeps what had room of a body that says no length', async () => {
    const { create, append, used, engine } = await startCountedEngine({
      owner: { unfinishedBytes: 10 * MiB },
    })
    await create(7 * MiB)
    const id = await create(undefined)
    const body = openBody()
    const refused = append(id, 0, body)
    for (let n = 0; n < 16; n++) body.write(Buffer.alloc(MiB / 4, 'x'))
    await expect(refused).rejects.toThrow('423 30:')
    const { offset } = (await engine.bytes.look(id))!.mark
    expect(offset).toBeGreaterThanOrEqual(MiB)
    expect(await used()).toEqual([2, 7 * MiB + offset, 7 * MiB + offset])
    // Alone it could not have room either, however long somebody waits.
    await expect(append(id, offset, 'x'.repeat(10 * MiB), { length: 11 * MiB })).rejects.toThrow('413')
  })

  it('asks for room in steps, and gives back what it did not use', async () => {
    const asked: number[] = []
    const counting = (real: Ledger): Ledger =>
      breaking(real, () => true, {
        grow: (entry, ask, limits) => {
          asked.push(ask.wanted)
          return real.grow(entry, ask, limits)
        },
      })
    const { create, engine, used } = await startCountedEngine(
      { owner: { unfinishedBytes: 40 * MiB } },
      { ledger: counting },
    )
    const id = await create(undefined)
    const body = openBody()
    const done = append(engine, id, 0, body, request(body, { asker: ann }))
    const piece = Buffer.alloc(MiB, 'x')
    for (let n = 0; n < 20; n++)
      if (!body.write(piece)) await new Promise((resume) => body.once('drain', resume))
    body.end()
    expect((await done).is).toBe('appended')
    expect(asked.length).toBeLessThanOrEqual(4)
    expect(await used()).toEqual([1, 20 * MiB, 20 * MiB])
  })

  it('is refused a length for which there is no room, before any data', async () => {
    const { create, append, engine } = await startCountedEngine({ owner: { unfinishedBytes: 100 } })
    await create(60)
    const id = await create(undefined)
    await expect(append(id, 0, 'abc', { length: 50 })).rejects.toThrow('423 30:')
    await expect(append(id, 0, 'abc', { length: 101 })).rejects.toThrow('413')
    expect((await engine.bytes.look(id))!.mark).toMatchObject({ offset: 0 })
    await append(id, 0, 'abc', { length: 40 })
  })
})

describe('what was left wrong is put right', () => {
  it('a creation that was admitted and never made is given back after two minutes', async () => {
    const counted = await startCountedEngine({ owner: { openUploads: 1 } })
    await counted.ledger.admit(
      { account: 'owner:ann', id: 'never', createdAt: counted.now },
      { bytes: 7, now: counted.now, lookAt: counted.now + 2 * minuteMs },
      noLimits,
    )
    await expect(counted.create(1)).rejects.toThrow('429')
    await sweepers(counted)
    expect(await counted.used()).toEqual([1, 7, 7])
    counted.now += 2 * minuteMs
    await sweepers(counted)
    expect(await counted.used()).toEqual([0, 0, 0])
    await counted.create(1)
  })

  it('an upload whose end could not be told is found within ten minutes', async () => {
    let isAway = false
    const counted = await startCountedEngine(
      { owner: { openUploads: 1, totalBytes: 10 } },
      {
        ledger: (real) =>
          breaking(real, () => isAway, {
            settle: async () => {
              throw new StoreError('unavailable', 'away')
            },
          }),
      },
    )
    const id = await counted.create(3)
    isAway = true
    await counted.append(id, 0, 'abc')
    expect(await counted.used()).toEqual([1, 3, 3])
    isAway = false
    counted.now += 10 * minuteMs
    await sweepers(counted)
    expect(await counted.used()).toEqual([0, 0, 3])
    isAway = true
    await terminate(counted.engine, id)
    isAway = false
    await walk(counted)
    expect(await counted.used()).toEqual([0, 0, 0])
  })

  it('a ledger that was lost is made again by a walk; what it says of uploads that are gone is removed', async () => {
    const counted = await startCountedEngine({
      owner: { openUploads: 9, totalBytes: 1000 },
      address: { openUploads: 9 },
    })
    const one = await counted.create(10, { client: 'a' })
    const two = await counted.create(20, { client: 'a' })
    const three = await counted.create(undefined, { client: 'b' })
    await counted.append(two, 0, 'x'.repeat(20))
    await counted.append(three, 0, 'abc', { contentLength: 3 })
    const all = async () => [
      await counted.used(),
      await counted.used('address:a'),
      await counted.used('address:b'),
    ]
    const before = await all()
    expect(before[0]).toEqual([2, 13, 33])
    for await (const entry of counted.ledger.entries()) await counted.ledger.settle(entry, { is: 'gone' })
    expect(await counted.used()).toEqual([0, 0, 0])
    await walk(counted)
    expect(await all()).toEqual([before[0], [1, 10, 10], [1, 3, 3]])

    // Removed behind everybody's back.
    for (const id of [one, two, three]) await counted.engine.bytes.remove(id)
    await walk(counted)
    counted.now += 2 * minuteMs
    await sweepers(counted)
    expect(await all()).toEqual([
      [0, 0, 0],
      [0, 0, 0],
      [0, 0, 0],
    ])
    for await (const entry of counted.ledger.entries()) throw new Error(`${entry.id} is still there`)
  })

  it('an upload that expires counts no more', async () => {
    const counted = await startCountedEngine({ owner: { openUploads: 1 } }, { expireAfterMs: minuteMs })
    await counted.create(10)
    counted.now += minuteMs
    await sweepers(counted)
    expect(await counted.used()).toEqual([0, 0, 0])
    await counted.create(10)
  })

  it('entries of accounts that are counted no more are removed', async () => {
    const counted = await startCountedEngine({ owner: { openUploads: 3 } })
    const id = await counted.create(10, { client: 'a' })
    const { createdAt } = (await counted.engine.bytes.look(id))!.head
    const stale = { account: 'address:a', id, createdAt }
    await counted.ledger.settle(stale, { is: 'open', bytes: 10, lookAt: counted.now })
    await sweepers(counted)
    expect([await counted.used(), await counted.used('address:a')]).toEqual([
      [1, 10, 10],
      [0, 0, 0],
    ])
  })
})

describe('concatenation', () => {
  it('parts and final count, and what is made of parts whose length nobody knew waits for room', async () => {
    const counted = await startCountedEngine({ owner: { openUploads: 2, totalBytes: 10 } })
    const { create, append, engine, used } = counted
    const one = await create(3, { body: 'abc', partial: 'partial' })
    const two = await create(undefined, { partial: 'partial' })
    const concat = () =>
      engine.concat(
        { do: 'concat', asSent: `final;/${one} /${two}`, parts: [one, two], metadata: undefined },
        request(undefined, { asker: ann }),
      )
    const made = await concat()
    if (made.is !== 'created') throw new Error(made.is)
    expect(await used()).toEqual([2, 3, 6])
    await append(two, 0, 'def', { length: 3 })
    // Twelve bytes are too many.
    await expect.poll(used, { timeout: 10_000 }).toEqual([1, 3, 9])
    expect(await concat()).toMatchObject({ is: 'refused', refusal: { code: 'over-quota-append' } })
    await terminate(engine, made.record.head.id)
    expect(await used()).toEqual([0, 0, 6])
  })
})

/** What a server does every minute. */
async function sweepers(counted: CountedEngine): Promise<void> {
  const sweeper = new Sweeper({ engine: counted.engine, everyMs: 0 })
  await sweeper.sweepExpired(counted.now)
  await sweeper.lookAtDueQuotas(counted.now)
}

async function walk(counted: CountedEngine): Promise<void> {
  await new Sweeper({ engine: counted.engine, everyMs: 0 }).walk(counted.now)
}

/** A ledger of which some acts are done by others while `isBroken` says so. */
function breaking(real: Ledger, isBroken: () => boolean, others: Partial<Ledger>): Ledger {
  return new Proxy(real, {
    get(_, name: keyof Ledger) {
      const own = Reflect.get(real, name) as (...args: unknown[]) => unknown
      return isBroken() && others[name] ? others[name] : own.bind(real)
    },
  })
}
