import { randomUUID } from 'node:crypto'
import { expect, inject, it, onTestFinished } from 'vitest'
import { type Audience, eventIdOf, type TellerEvent } from '../../server/uploads/audience.ts'
import { newRecord } from '../../server/uploads/rules.ts'
import { backoffMs, Teller } from '../../server/uploads/teller.ts'
import {
  type EventKind,
  type Locker,
  StoreError,
  type UploadEvent,
  type UploadRecord,
} from '../../stores/contracts.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { headOf } from '../contracts/byte-store-values.ts'
import { deferred } from '../support/deferred.ts'
import { request } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'

const id = 'a'.repeat(32)
const minuteMs = 60_000

/** Somebody who keeps what he is told, and can be made deaf. */
class Listener implements Audience {
  readonly name: string
  readonly isImmediate: boolean
  readonly told: UploadEvent[] = []
  kinds: EventKind[] = ['created', 'finished', 'terminated']
  isDeaf = false

  constructor(name = 'listener', isImmediate = false) {
    this.name = name
    this.isImmediate = isImmediate
  }

  hears(kind: EventKind): boolean {
    return this.kinds.includes(kind)
  }

  async tell(event: UploadEvent): Promise<void> {
    if (this.isDeaf) throw new Error('not now')
    this.told.push(event)
  }

  get heard(): string[] {
    return this.told.map(({ kind }) => kind)
  }
}

interface Site {
  readonly directory: string
  nowMs: number
}

async function aSite(): Promise<Site> {
  return { directory: await temporaryFolder(), nowMs: Date.now() }
}

/** A server as far as telling goes. Several on one site share its folder and its clock. */
async function serverOn(site: Site, audiences: Audience[], locker: Locker = new LocalLocker()) {
  const bytes = new FileBytes({ directory: site.directory, durability: 'none' })
  await bytes.start()
  await locker.start()
  const reports: TellerEvent[] = []
  const draining = new AbortController()
  const teller = new Teller({
    ...{ bytes, locker, audiences, draining: draining.signal },
    report: (event) => reports.push(event),
    now: () => site.nowMs,
  })
  onTestFinished(async () => {
    draining.abort()
    await teller.close()
    await locker.close()
  })
  const create = async (uploadId = id, length = 3) => {
    const appender = await teller.creating(headOf(uploadId), length, bytes)
    await appender.close()
    return appender.record
  }
  /** Everything up to the moment at which the upload is finished, and nothing after. */
  const finish = async (record: UploadRecord) => {
    const appender = (await bytes.open(record.head.id))!
    await appender.write([Buffer.from('abc')], 0)
    const finished = await teller.finishing(record, () => appender.finish(3))
    await appender.close()
    return finished
  }
  const remove = async (record: UploadRecord) => {
    await teller.terminating(record, async () => void (await bytes.remove(record.head.id)))
  }
  return { bytes, teller, reports, create, finish, remove }
}

it('tells each event once, in order, and leaves no note', async () => {
  const listener = new Listener()
  const site = await aSite()
  const { bytes, teller, create, finish, remove } = await serverOn(site, [listener])
  const record = await create()
  teller.tell('created', record, request())
  const finished = await finish(record)
  teller.tell('finished', finished, request())
  await remove(finished)
  teller.tell('terminated', finished, request())
  await teller.close()
  expect(listener.heard).toEqual(['created', 'finished', 'terminated'])
  expect(listener.told[1]).toMatchObject({
    id: eventIdOf('finished', record),
    record: { head: { id }, mark: { state: 'finished', offset: 3 } },
  })
  expect(await bytes.outbox.list()).toEqual([])
  site.nowMs += minuteMs
  await teller.tellWaiting()
  expect(listener.told).toHaveLength(3)
})

it('notes nothing that nobody hears', async () => {
  const listener = new Listener()
  listener.kinds = ['finished']
  const { bytes, create, teller } = await serverOn(await aSite(), [listener])
  const record = await create()
  await teller.note('terminated', record)
  expect(await bytes.outbox.list()).toEqual([])
  await teller.note('finished', record)
  expect(await bytes.outbox.list()).toEqual([eventIdOf('finished', record)])
})

it('gives every event an id of its own, that stays the same', () => {
  const record = newRecord({ ...headOf(id), createdAt: 1 }, 3)
  const later = newRecord({ ...headOf(id), createdAt: 2 }, 3)
  const ids = [record, later].flatMap((of) =>
    (['created', 'finished', 'terminated'] as const).map((kind) => eventIdOf(kind, of)),
  )
  expect(new Set(ids).size).toBe(6)
  expect(eventIdOf('finished', record)).toBe(eventIdOf('finished', { ...record }))
})

it('tells by another server what a server that died had finished and not told', async () => {
  const site = await aSite()
  const [heardByA, heardByB] = [new Listener(), new Listener()]
  const a = await serverOn(site, [heardByA])
  const b = await serverOn(site, [heardByB])
  const finished = await a.finish(await a.create())
  // It may be alive, and about to tell.
  await b.teller.tellWaiting()
  expect(heardByB.told).toEqual([])
  site.nowMs += minuteMs
  await b.teller.tellWaiting()
  expect(heardByB.told.map((event) => event.id)).toEqual([
    eventIdOf('created', finished),
    eventIdOf('finished', finished),
  ])
  expect(await b.bytes.outbox.list()).toEqual([])
})

it('tells at once what a process that is provably dead left', async () => {
  const site = await aSite()
  const listener = new Listener()
  const { bytes, teller, create, finish } = await serverOn(site, [listener])
  const finished = await finish(await create())
  for (const eventId of await bytes.outbox.list()) {
    const note = (await bytes.outbox.get(eventId))!
    // The same machine, and a pid that Linux never gives.
    await bytes.outbox.put({ ...note, teller: note.teller.replace(/\/\d+\/(\d+)$/, '/4194305/$1') })
  }
  await teller.tellWaiting()
  expect(listener.told.at(-1)?.id).toBe(eventIdOf('finished', finished))
})

it('does not tell what was noted and never came true, until it does', async () => {
  const site = await aSite()
  const listener = new Listener()
  listener.kinds = ['finished', 'terminated']
  const { bytes, teller, create, finish, remove } = await serverOn(site, [listener])
  const record = await create()
  await teller.note('finished', record)
  await teller.note('terminated', record)
  for (let round = 0; round < 3; round++) {
    site.nowMs += 2 * minuteMs
    await teller.tellWaiting()
  }
  expect(listener.told).toEqual([])
  expect(await bytes.outbox.list()).toHaveLength(2)

  const finished = await finish(record)
  site.nowMs += 2 * minuteMs
  await teller.tellWaiting()
  expect(listener.heard).toEqual(['finished'])
  await remove(finished)
  site.nowMs += 2 * minuteMs
  await teller.tellWaiting()
  expect(listener.heard).toEqual(['finished', 'terminated'])
  expect(await bytes.outbox.list()).toEqual([])
})

it('forgets what can not come true any more', async () => {
  const site = await aSite()
  const listener = new Listener()
  listener.kinds = ['created', 'finished']
  const { bytes, teller, create } = await serverOn(site, [listener])
  const record = await create()
  teller.tell('created', record, request())
  await teller.note('finished', record)
  await bytes.remove(id)
  // A creation that was cut off before there was an upload.
  await teller.note('created', newRecord(headOf('b'.repeat(32)), 3))
  site.nowMs += 2 * minuteMs
  await teller.tellWaiting()
  expect(listener.heard).toEqual(['created'])
  expect(await bytes.outbox.list()).toEqual([])
})

it('leaves no note of a creation that failed', async () => {
  const { bytes, create, teller } = await serverOn(await aSite(), [new Listener()])
  const record = await create()
  teller.tell('created', record, request())
  await teller.close()
  await expect(create()).rejects.toMatchObject({ code: 'exists' })
  expect(await bytes.outbox.list()).toEqual([])
})

it('tells soon of a finish that failed and is true all the same: a successor had claimed the upload', async () => {
  const site = await aSite()
  const [heardByA, heardByB] = [new Listener(), new Listener()]
  heardByA.kinds = heardByB.kinds = ['finished']
  const a = await serverOn(site, [heardByA])
  const b = await serverOn(site, [heardByB])
  const record = await a.create()
  const appender = (await a.bytes.open(id))!
  await appender.write([Buffer.from('abc')], 0)
  const late = async () => {
    await appender.finish(3)
    throw new StoreError('superseded', 'another writer has claimed this upload')
  }
  await expect(a.teller.finishing(record, late)).rejects.toMatchObject({ code: 'superseded' })
  await appender.close()
  await b.teller.tellWaiting()
  expect([heardByA.heard, heardByB.heard]).toEqual([[], ['finished']])
  expect(await a.bytes.outbox.list()).toEqual([])
})

it('leaves no note of a removal that came too late', async () => {
  const { bytes, create, teller } = await serverOn(await aSite(), [new Listener()])
  const record = await create()
  teller.tell('created', record, request())
  await teller.close()
  const late = () => Promise.reject(new StoreError('superseded', 'somebody went on'))
  await expect(teller.terminating(record, late)).rejects.toMatchObject({ code: 'superseded' })
  expect(await bytes.outbox.list()).toEqual([])
  // It may have come after the tombstone.
  const cut = () => Promise.reject(new StoreError('io', 'the disk is away'))
  await expect(teller.terminating(record, cut)).rejects.toMatchObject({ code: 'io' })
  expect(await bytes.outbox.list()).toHaveLength(1)
})

it('tells again later, under the same id, only who could not be told', async () => {
  const site = await aSite()
  const [hearing, deaf] = [new Listener('hearing'), new Listener('deaf')]
  deaf.isDeaf = true
  const { teller, create, finish, reports } = await serverOn(site, [hearing, deaf])
  hearing.kinds = deaf.kinds = ['finished']
  teller.tell('finished', await finish(await create()), request())
  await teller.close()
  for (let failures = 1; failures <= 3; failures++) {
    expect(reports).toHaveLength(failures)
    expect(reports.at(-1)).toMatchObject({ is: 'telling-failed', id, audience: 'deaf', failures })
    site.nowMs += backoffMs(failures) - 1
    await teller.tellWaiting()
    expect(reports).toHaveLength(failures)
    site.nowMs += 1
    await teller.tellWaiting()
  }
  deaf.isDeaf = false
  site.nowMs += backoffMs(4)
  await teller.tellWaiting()
  expect(hearing.told).toHaveLength(1)
  expect(deaf.told.map((event) => event.id)).toEqual([hearing.told[0]!.id])
})

it('waits longer after each failure, and at most an hour', () => {
  expect([1, 2, 3, 4].map(backoffMs)).toEqual([5_000, 10_000, 20_000, 40_000])
  expect(backoffMs(60)).toBe(3_600_000)
})

it('never overtakes: what happened before is told before, also when the upload is gone', async () => {
  const site = await aSite()
  const listener = new Listener()
  listener.isDeaf = true
  const { bytes, teller, create, finish, remove } = await serverOn(site, [listener])
  const record = await create()
  teller.tell('created', record, request())
  const finished = await finish(record)
  teller.tell('finished', finished, request())
  await remove(finished)
  teller.tell('terminated', finished, request())
  await teller.close()
  expect(await bytes.outbox.list()).toHaveLength(3)
  listener.isDeaf = false
  site.nowMs += minuteMs
  await teller.tellWaiting()
  expect(listener.heard).toEqual(['created', 'finished', 'terminated'])
  expect(await bytes.outbox.list()).toEqual([])
})

it('tells whoever can not fail at once, and never again', async () => {
  const site = await aSite()
  const [immediate, deaf] = [new Listener('immediate', true), new Listener('deaf')]
  deaf.isDeaf = true
  const { teller, create, finish } = await serverOn(site, [immediate, deaf])
  const record = await create()
  teller.tell('created', record, request())
  expect(immediate.heard).toEqual(['created'])
  teller.tell('finished', await finish(record), request())
  expect(immediate.heard).toEqual(['created', 'finished'])
  await teller.close()
  deaf.isDeaf = false
  site.nowMs += minuteMs
  await teller.tellWaiting()
  expect(deaf.heard).toEqual(['created', 'finished'])
  expect(immediate.heard).toEqual(['created', 'finished'])
})

it('keeps for other servers whom this one does not know', async () => {
  const site = await aSite()
  const [known, unknown] = [new Listener('known'), new Listener('unknown')]
  known.kinds = unknown.kinds = ['finished']
  const a = await serverOn(site, [known, unknown])
  const b = await serverOn(site, [known])
  await a.finish(await a.create())
  site.nowMs += minuteMs
  await b.teller.tellWaiting()
  expect([known.heard, unknown.heard]).toEqual([['finished'], []])
  site.nowMs += minuteMs
  await a.teller.tellWaiting()
  expect([known.heard, unknown.heard]).toEqual([['finished'], ['finished']])
})

it('is told once though many servers find the same note', async () => {
  const site = await aSite()
  const listener = new Listener()
  listener.kinds = ['finished']
  const gate = deferred()
  listener.tell = async (event) => {
    await gate.promise
    listener.told.push(event)
  }
  const keyPrefix = `${randomUUID()}:`
  const servers = await Promise.all(
    [1, 2, 3].map(async () => {
      const connection = new RedisConnection({ url: inject('redisUrl'), keyPrefix })
      onTestFinished(() => connection.close())
      return serverOn(site, [listener], new RedisLocker({ connection }))
    }),
  )
  await servers[0]!.finish(await servers[0]!.create())
  site.nowMs += minuteMs
  const rounds = Promise.all(servers.map(({ teller }) => teller.tellWaiting()))
  gate.resolve()
  await rounds
  await Promise.all(servers.map(({ teller }) => teller.tellWaiting()))
  expect(listener.told).toHaveLength(1)
})

it('is told by the next server when this one is stopped, and somebody never says that he heard', async () => {
  const site = await aSite()
  const [silent, next] = [new Listener(), new Listener()]
  silent.kinds = next.kinds = ['finished']
  silent.tell = () => new Promise(() => undefined)
  const a = await serverOn(site, [silent])
  const b = await serverOn(site, [next])
  a.teller.tell('finished', await a.finish(await a.create()), request())
  await a.teller.close()
  expect(a.reports).toEqual([])
  site.nowMs += minuteMs
  await b.teller.tellWaiting()
  expect(next.heard).toEqual(['finished'])
})

it('says that the notes can not be read, and goes on', async () => {
  const site = await aSite()
  const listener = new Listener()
  const { bytes, teller, reports, create, finish } = await serverOn(site, [listener])
  await finish(await create())
  site.nowMs += minuteMs
  const list = bytes.outbox.list.bind(bytes.outbox)
  bytes.outbox.list = async () => {
    throw new Error('the disk is away')
  }
  await teller.tellWaiting()
  expect(reports).toMatchObject([{ is: 'outbox-failed' }])
  bytes.outbox.list = list
  await teller.tellWaiting()
  expect(listener.heard).toEqual(['created', 'finished'])
})
