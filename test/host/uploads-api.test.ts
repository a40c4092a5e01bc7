// /uploads as those see it who ask: one upload, lists of their own, and what happens, as it happens.

import { describe, expect, it, vi } from 'vitest'
import { openBody } from '../support/engine.ts'
import { type House, startHouse } from '../support/upload-house.ts'

const MiB = 1024 * 1024
const name = (text: string) => `filename ${Buffer.from(text).toString('base64')}`

describe('one upload', () => {
  it('says how many bytes were acknowledged, of how many', async () => {
    const house = await startHouse({ isOpen: true })
    const id = await house.create('ann', { length: 12, body: 'abc', metadata: name('a.txt') })
    const { status, body } = await house.get(`/uploads/${id}`)
    expect(status).toBe(200)
    expect(body).toEqual({
      id,
      url: `${house.url}/files/${id}`,
      state: 'open',
      offset: 3,
      length: 12,
      percent: 25,
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      movedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    })
    await house.append('ann', id, 3, 'defghijkl')
    expect((await house.get(`/uploads/${id}`)).body).toMatchObject({
      state: 'finished',
      offset: 12,
      percent: 100,
    })
  })

  it('has no percent while its length is not known, and never 100 while a byte is missing', async () => {
    const house = await startHouse({ isOpen: true })
    const unknown = await house.create('ann')
    expect((await house.get(`/uploads/${unknown}`)).body).toMatchObject({
      offset: 0,
      length: null,
      percent: null,
    })
    const almost = await house.create('ann', { length: 100_001, body: 'x'.repeat(100_000) })
    expect((await house.get(`/uploads/${almost}`)).body).toMatchObject({ percent: 99.9 })
    const empty = await house.create('ann', { length: 0 })
    expect((await house.get(`/uploads/${empty}`)).body).toMatchObject({ state: 'finished', percent: 100 })
  })

  it('is not there for others, when people are asked who they are; its name is for those who see it', async () => {
    const house = await startHouse()
    const id = await house.create('ann', { length: 3, metadata: `${name('ä\n.txt')},other eA==` })
    for (const path of [`/uploads/${id}`, `/uploads/${id}/events`]) {
      expect((await house.get(path)).status).toBe(403)
      expect((await house.get(path, 'bob')).status).toBe(404)
    }
    expect((await house.get(`/uploads/${id}`, 'ann')).body).toMatchObject({ name: 'ä\n.txt' })
    expect((await house.get(`/uploads/${id}`, 'root')).body).toMatchObject({ name: 'ä\n.txt' })
    expect((await house.get(`/uploads?id=${id}`, 'bob')).body).toEqual({ offset: 0, length: 0, uploads: [] })
  })

  it.each([
    ['/uploads/nobody', 404, 'not-found'],
    ['/uploads/nobody/events', 404, 'not-found'],
    ['/uploads/..%2f..%2fetc', 404, 'not-found'],
    ['/uploads/a/b', 404, 'route-unknown'],
    ['/uploads', 404, 'route-unknown'],
    ['/uploads/events', 404, 'route-unknown'],
    ['/uploads?id=a&limit=3', 400, 'query-invalid'],
    [`/uploads?${'id=a&'.repeat(101)}`, 400, 'query-invalid'],
  ])('answers %s with %i %s where nobody is asked who they are', async (path, status, code) => {
    const house = await startHouse({ isOpen: true })
    const answer = await fetch(house.url + path)
    expect([answer.status, (await answer.text()).split(':')[0]]).toEqual([status, code])
    expect(answer.headers.get('cache-control')).toBe('no-store')
  })

  it('is shown with all parts of a final, whose bytes are counted as one', async () => {
    const house = await startHouse({ isOpen: true })
    const parts = [
      await house.create('ann', { length: 4, body: 'ab', partial: true }),
      await house.create('ann', { length: 6, partial: true }),
    ]
    const id = await house.concat('ann', parts)
    const view = async () => (await house.get(`/uploads/${id}`)).body
    expect(await view()).toMatchObject({
      ...{ state: 'open', offset: 2, length: 10, percent: 20, partCount: 2, partsFinished: 0 },
      parts: [
        { id: parts[0], url: `${house.url}/files/${parts[0]}`, state: 'open', offset: 2, length: 4 },
        { id: parts[1], state: 'open', offset: 0, length: 6 },
      ],
    })
    await house.append('ann', parts[1]!, 0, 'cdefgh')
    expect(await view()).toMatchObject({ offset: 8, percent: 80, partsFinished: 1 })
    await house.append('ann', parts[0]!, 2, 'cd')
    await vi.waitFor(async () =>
      expect(await view()).toMatchObject({ state: 'finished', offset: 10, length: 10 }),
    )
  })

  it('is counted with others that are named, as if they were one: parts that have no final yet', async () => {
    const house = await startHouse({ isOpen: true })
    const [a, b] = [
      await house.create('ann', { length: 4, body: 'ab', partial: true }),
      await house.create('ann', { length: 6, body: 'abc', partial: true }),
    ]
    const { body } = await house.get(`/uploads?id=${a}&id=nobody&id=${b}`)
    expect(body).toMatchObject({
      offset: 5,
      length: 10,
      uploads: [
        { id: a, offset: 2 },
        { id: b, offset: 3 },
      ],
    })
  })
})

describe('a list', () => {
  it('has the uploads of whoever asks, newest first and page by page, without parts', async () => {
    const house = await startHouse()
    const mine: string[] = []
    for (let n = 0; n < 5; n++)
      mine.unshift(await house.create('ann', { length: 3, ...(n % 2 && { body: 'abc' }) }))
    await house.create('bob', { length: 3 })
    const part = await house.create('ann', { body: 'part', partial: true })
    mine.unshift(await house.concat('ann', [part]))
    expect(await idsOf(house, '/uploads', 'ann')).toEqual(inOrder(mine))
    for (const limit of [1, 2, 3, 6]) expect(await pages(house, `limit=${limit}`)).toEqual(inOrder(mine))
    expect(await pages(house, 'state=open&limit=2')).toHaveLength(3)
    expect(await pages(house, 'state=finished&limit=2')).toHaveLength(3)

    /** Uploads of one millisecond stand in the order of their ids. */
    function inOrder(ids: string[]) {
      return expect.toSatisfy((listed: string[]) => listed.toSorted().join() === ids.toSorted().join())
    }
  })

  it('says of an upload what its mark says, also in the moment before its copy is written', async () => {
    const house = await startHouse()
    for (let n = 0; n < 3; n++) {
      const id = await house.create('ann', { length: 4 })
      await house.append('ann', id, 0, 'ab')
      expect((await house.get('/uploads?limit=1', 'ann')).body).toMatchObject({
        uploads: [{ id, offset: 2 }],
      })
      await house.append('ann', id, 2, 'cd')
      expect(await idsOf(house, '/uploads?state=open', 'ann')).toEqual([])
      expect(await idsOf(house, '/uploads?state=finished', 'ann')).toContain(id)
    }
  })

  it('is for its owner; who may see all sees all, or those of one', async () => {
    const house = await startHouse()
    const [a, b] = [await house.create('ann', { length: 1 }), await house.create('bob', { length: 2 })]
    expect((await house.get('/uploads')).status).toBe(403)
    expect((await house.get('/uploads?owner=ann', 'bob')).status).toBe(403)
    expect(await idsOf(house, '/uploads', 'bob')).toEqual([b])
    expect((await idsOf(house, '/uploads', 'root')).toSorted()).toEqual([a, b].toSorted())
    expect(await idsOf(house, '/uploads?owner=ann', 'root')).toEqual([a])
    expect(await idsOf(house, '/uploads?owner=bob', 'bob')).toEqual([b])
  })

  it('is not there where it is switched off, whoever asks', async () => {
    const house = await startHouse({ api: { withoutLists: true } })
    const id = await house.create('root', { length: 1 })
    expect((await house.get('/uploads', 'root')).status).toBe(404)
    expect((await house.get('/uploads/events', 'root')).status).toBe(404)
    expect((await house.get(`/uploads/${id}`, 'root')).status).toBe(200)
  })

  it('does not show what is gone or expired, though the records still say that it is there', async () => {
    const expiry = { afterMs: 1000, mode: 'absolute' } as const
    const house = await startHouse({ uploads: { expiry, sweepEveryMs: 600_000 } })
    const gone = await house.create('ann', { length: 3 })
    const kept = await house.create('ann', { body: 'abc' })
    await house.uploads.server.engine.bytes.remove(gone)
    expect(await idsOf(house, '/uploads', 'ann')).toEqual([kept])
    const expiring = await house.create('ann', { length: 3 })
    await vi.waitFor(
      async () => expect((await house.get(`/uploads/${expiring}`, 'ann')).status).toBe(404),
      5000,
    )
    expect(await idsOf(house, '/uploads', 'ann')).toEqual([kept])
  })

  it.each(['state=half', 'limit=0', 'limit=101', 'limit=x', 'after=x', 'after=WzFd'])(
    'refuses ?%s with a sentence',
    async (query) => {
      const house = await startHouse()
      const { status, body } = await house.get(`/uploads?${query}`, 'ann')
      expect([status, body]).toEqual([
        400,
        expect.stringMatching(/^query-invalid: "(state|limit|after)" is /),
      ])
    },
  )
})

describe('a stream', () => {
  it('shows all there is, and then what happens, of each upload the latest', async () => {
    const house = await startHouse()
    const old = await house.create('ann', { length: 3, body: 'abc', metadata: name('old') })
    const stream = await house.watch('/uploads/events', 'ann')
    expect(stream.headers).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
    const first = await stream.until(({ kind }) => kind === 'snapshot')
    expect(first.data).toMatchObject({ uploads: [{ id: old, name: 'old', state: 'finished' }], next: null })

    const id = await house.create('ann', { length: 2 * MiB })
    expect((await stream.until(({ kind }) => kind === 'created')).data).toMatchObject({ id, offset: 0 })
    const body = openBody('x'.repeat(MiB))
    const appending = house.append('ann', id, 0, body)
    const moved = await stream.until(({ kind, data }) => kind === 'progress' && data.offset === MiB)
    expect(moved.data).toMatchObject({ id, percent: 50, state: 'open' })
    body.end('y'.repeat(MiB))
    await appending
    expect((await stream.until(({ kind }) => kind === 'finished')).data).toMatchObject({ id, percent: 100 })
    await house.terminate('ann', id)
    expect((await stream.until(({ kind }) => kind === 'terminated')).data).toMatchObject({ id })
    await house.create('bob', { length: 1 })
    await house.create('ann', { length: 1, body: 'z' })
    await stream.until(({ kind, data }) => kind === 'finished' && data.length === 1)
    expect(stream.events.filter(({ data }) => data.id !== id).map(({ kind }) => kind)).toEqual([
      'snapshot',
      'created',
      'finished',
    ])
    const offsets = stream.events.filter(({ data }) => data.id === id).map(({ data }) => data.offset)
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b))
  })

  it('tells of all parts of a parallel upload as of one', async () => {
    const house = await startHouse()
    const parts = [
      await house.create('ann', { length: 4, partial: true }),
      await house.create('ann', { length: 6, partial: true }),
    ]
    const stream = await house.watch('/uploads/events', 'ann')
    const id = await house.concat('ann', parts)
    const named = await house.watch(`/uploads/${id}/events`, 'ann')
    await stream.until(({ kind, data }) => kind === 'created' && data.id === id)
    await house.append('ann', parts[1]!, 0, 'abcdef')
    for (const one of [stream, named]) {
      const { data } = await one.until(({ kind, data }) => kind === 'progress' && data.offset === 6)
      expect(data).toMatchObject({ id, length: 10, percent: 60, partCount: 2, partsFinished: 1 })
    }
    await house.append('ann', parts[0]!, 0, 'abcd')
    expect((await stream.until(({ kind }) => kind === 'finished')).data).toMatchObject({ id, offset: 10 })
    expect(new Set(stream.events.flatMap(({ data }) => data.id ?? []))).toEqual(new Set([id]))
  })

  it('of uploads that are named tells of these, parts too, and nobody else is asked for', async () => {
    const house = await startHouse({ isOpen: true })
    const part = await house.create('ann', { length: 4, partial: true })
    const other = await house.create('ann', { length: 4 })
    const stream = await house.watch(`/uploads/events?id=${part}&id=nobody`)
    expect(stream.events[0] ?? (await stream.until(() => true))).toMatchObject({
      data: { uploads: [{ id: part }] },
    })
    await house.append('ann', other, 0, 'ab')
    await house.append('ann', part, 0, 'abcd')
    await stream.until(({ kind, data }) => kind === 'finished' && data.id === part)
    expect(stream.events.every(({ data }) => data.id !== other)).toBe(true)
  })

  it('says of an upload whose time was over that it expired', async () => {
    const house = await startHouse({
      uploads: { expiry: { afterMs: 1500, mode: 'absolute' }, sweepEveryMs: 100 },
    })
    const stream = await house.watch('/uploads/events', 'ann')
    const id = await house.create('ann', { length: 4, body: 'ab' })
    expect((await stream.until(({ kind }) => kind === 'expired')).data).toMatchObject({ id, offset: 2 })
  })

  it('tells who comes back of what finished meanwhile, after everything there is', async () => {
    const house = await startHouse()
    const id = await house.create('ann', { length: 4 })
    const before = await house.watch('/uploads/events', 'ann')
    const { id: last } = await before.until(({ kind }) => kind === 'snapshot')
    before.close()
    await house.append('ann', id, 0, 'abcd')
    const after = await house.watch('/uploads/events', 'ann', { 'Last-Event-ID': last! })
    expect((await after.until(({ kind }) => kind === 'finished')).data).toMatchObject({ id })
    expect(after.events.map(({ kind }) => kind)).toEqual(['snapshot', 'finished'])
  })

  it('shows that it lives, ends when its reader may not read any more, and when the server does', async () => {
    let isKnown = true
    const { Refusal } = await import('../../server/errors.ts')
    const whoAsks = async () => (isKnown ? { owner: 'ann', seesAll: false } : new Refusal('owner-needed'))
    const house = await startHouse({ api: { heartbeatMs: 20, whoAsks } })
    const [one, other] = [await house.watch('/uploads/events'), await house.watch('/uploads/events')]
    await vi.waitFor(() => expect(one.comments).toBeGreaterThan(2))
    isKnown = false
    expect(await one.ended).toBe('end')
    await other.ended
    isKnown = true
    const last = await house.watch('/uploads/events')
    await house.uploads.drain()
    expect(await last.ended).toBe('end')
    expect(house.uploads.watching.size).toBe(0)
    expect((await house.get('/uploads/events')).status).toBe(503)
  })

  it('costs one look for many readers of the same, and nothing once they are gone', async () => {
    const house = await startHouse()
    const id = await house.create('ann', { length: 4 })
    const streams = await Promise.all(
      Array.from({ length: 200 }, () => house.watch('/uploads/events', 'ann')),
    )
    expect(house.uploads.watching.size).toBe(200)
    const { records } = house.uploads.server.engine
    const list = vi.spyOn(records!, 'list')
    await house.append('ann', id, 0, 'abcd')
    await Promise.all(streams.map((stream) => stream.until(({ kind }) => kind === 'finished')))
    expect(list).not.toHaveBeenCalled()
    for (const stream of streams) stream.close()
    await vi.waitFor(() => expect(house.uploads.watching.size).toBe(0))
  })
})

it('may be read by pages of other sites, as the server says', async () => {
  const corsHeaders = (origin: string | undefined): Record<string, string> =>
    origin === 'https://a.example'
      ? { 'Access-Control-Allow-Origin': origin, Vary: 'Origin' }
      : { Vary: 'Origin' }
  const house = await startHouse({ isOpen: true, api: { corsHeaders } })
  const id = await house.create('ann', { length: 1 })
  const ask = (method: string, path: string, origin: string) =>
    fetch(house.url + path, { method, headers: { Origin: origin } })
  for (const path of [`/uploads/${id}`, '/uploads/nobody', '/uploads?limit=x']) {
    expect((await ask('GET', path, 'https://a.example')).headers.get('access-control-allow-origin')).toBe(
      'https://a.example',
    )
    expect(
      (await ask('GET', path, 'https://b.example')).headers.get('access-control-allow-origin'),
    ).toBeNull()
  }
  const preflight = await ask('OPTIONS', '/uploads/events', 'https://a.example')
  expect([preflight.status, preflight.headers.get('access-control-allow-headers')]).toEqual([
    204,
    'Authorization, Last-Event-ID, X-Request-ID',
  ])
  const stream = await house.watch(`/uploads/${id}/events`, undefined, { Origin: 'https://a.example' })
  expect(stream.headers['access-control-allow-origin']).toBe('https://a.example')
})

async function idsOf(house: House, path: string, who: string): Promise<string[]> {
  const { status, body } = await house.get(path, who)
  expect(status).toBe(200)
  return body.uploads.map(({ id }: { id: string }) => id)
}

async function pages(house: House, query: string): Promise<string[]> {
  const ids: string[] = []
  let after = ''
  do {
    const { body } = await house.get(`/uploads?${query}${after && `&after=${after}`}`, 'ann')
    ids.push(...body.uploads.map(({ id }: { id: string }) => id))
    after = body.next ?? ''
  } while (after)
  return ids
}
