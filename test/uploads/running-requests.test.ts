// How many requests may send data at a time, and those that wait until one of them has ended.
import { expect, it, onTestFinished, vi } from 'vitest'
import { WaitingLine } from '../../server/uploads/waiting-line.ts'
import { type CountedEngine, startCountedEngine } from '../support/counted-engine.ts'
import { openBody } from '../support/engine.ts'

const oneAtATime = { owner: { runningRequests: 1 } }

/** Nobody is woken by a timer. */
function stopTheClock(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
}

/** Says when so many requests have asked for a place. */
function asked(counted: CountedEngine): (times: number) => Promise<void> {
  const begin = vi.spyOn(counted.ledger, 'begin')
  return (times) =>
    expect.poll(() => begin.mock.calls.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(times)
}
it('beyond the limit are refused: an append with 423, a creation with 429; a newer one of the same upload is not', async () => {
  const { create, append } = await startCountedEngine({ owner: { runningRequests: 1 } }, { waitMs: 20 })
  const [one, two] = [await create(10), await create(10)]
  const body = openBody('abc')
  const running = append(one, 0, body)
  running.catch(() => undefined)
  await expect
    .poll(() => append(two, 0, '').catch(String), { timeout: 10_000 })
    .toMatch(/423 1: 1 request may send data/)
  await expect(create(3, { body: 'abc' })).rejects.toThrow('429 1: 1 request may send data at a time')
  await create(3)
  const newer = append(one, 0, 'abc')
  await expect(running).rejects.toThrow('423 -: another request wants this upload')
  await expect(newer).rejects.toThrow('409')
  await append(two, 0, 'abc')
})

it('are counted for the address that they come from', async () => {
  const { create, append } = await startCountedEngine({ address: { runningRequests: 1 } }, { waitMs: 20 })
  const [one, two] = [await create(10, { client: 'a' }), await create(10, { client: 'a' })]
  const body = openBody('abc')
  const running = append(one, 0, body, { client: 'a' })
  await expect
    .poll(() => append(two, 0, '', { client: 'a' }).catch(String), { timeout: 10_000 })
    .toMatch(/423/)
  await append(two, 0, 'abc', { client: 'b' })
  body.end()
  await running
  await append(two, 3, 'abc', { client: 'a' })
})

it('beyond the limit wait for each other, and go on in the order in which they came', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const hasAsked = asked(counted)
  const ids = await Promise.all(Array.from({ length: 4 }, () => counted.create(3)))
  const first = openBody('ab')
  const ended: string[] = []
  const appends: Promise<unknown>[] = []
  for (const [index, id] of ids.entries()) {
    const done = counted.append(id, 0, index === 0 ? first : 'abc')
    appends.push(done.then(() => ended.push(id)))
    await hasAsked(index + 1)
  }
  expect(ended).toEqual([])
  first.end('c')
  await Promise.all(appends)
  expect(ended).toEqual(ids)
})

it('a creation with a body waits as well', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const hasAsked = asked(counted)
  const body = openBody('ab')
  const running = counted.append(await counted.create(3), 0, body)
  await hasAsked(1)
  const created = counted.create(3, { body: 'abc' })
  await hasAsked(2)
  body.end('c')
  expect(await Promise.all([running, created])).toHaveLength(2)
})

it('one that waits is told to go when its client has gone, and leaves its place to the next', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const { create, append, engine } = counted
  const hasAsked = asked(counted)
  const [one, two, three] = [await create(3), await create(3), await create(3)]
  const body = openBody('ab')
  const running = append(one, 0, body)
  await hasAsked(1)
  const client = new AbortController()
  const gone = append(two, 0, 'abc', { signal: client.signal })
  await hasAsked(2)
  const next = append(three, 0, 'abc')
  await hasAsked(3)
  client.abort()
  expect(await gone).toBe('cut')
  body.end('c')
  await Promise.all([running, next])
  expect((await engine.bytes.look(two))!.mark.offset).toBe(0)
  await append(two, 0, 'abc')
})

it('of two that wait for the same upload the older one is told that a newer one has come', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const { create, append } = counted
  const hasAsked = asked(counted)
  const [one, two] = [await create(3), await create(3)]
  const body = openBody('ab')
  const running = append(one, 0, body)
  await hasAsked(1)
  const older = append(two, 0, 'abc')
  await hasAsked(2)
  const refused = expect(older).rejects.toThrow(/^423 1:/)
  const newer = append(two, 0, 'abc')
  await refused
  body.end('c')
  await Promise.all([running, newer])
})

it('a newer request of the upload that runs waits for nobody in the line', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const { create, append } = counted
  const hasAsked = asked(counted)
  const [one, two] = [await create(3), await create(3)]
  const displaced = expect(append(one, 0, openBody('ab'))).rejects.toThrow(
    'another request wants this upload',
  )
  await hasAsked(1)
  const waiting = append(two, 0, 'abc')
  await hasAsked(2)
  await expect(append(one, 0, 'abc')).rejects.toThrow('409')
  await Promise.all([displaced, waiting])
})

it('a drain ends those that wait, and those that run', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const { create, append, engine } = counted
  const hasAsked = asked(counted)
  const [one, two] = [await create(3), await create(3)]
  const running = append(one, 0, openBody('ab'))
  await hasAsked(1)
  const waiting = expect(append(two, 0, 'abc')).rejects.toThrow(/^503 1:/)
  await hasAsked(2)
  await engine.drain()
  await Promise.all([running, waiting])
})

it('one that asks only when a drain has begun does not wait', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const { create, ledger, now, engine } = counted
  await ledger.begin({ account: 'owner:ann', id: 'elsewhere', token: 't' }, { now, until: now + 60_000 }, 1)
  const { begin } = ledger
  vi.spyOn(ledger, 'begin').mockImplementationOnce(async (...args) => {
    await engine.drain()
    return begin.apply(ledger, args)
  })
  await expect(create(3, { body: 'abc' })).rejects.toThrow(/^503 1:/)
})

it('the next one is called when the first gives up, and does not only ask when its second is over', async () => {
  stopTheClock()
  const line = new WaitingLine()
  const client = new AbortController()
  const until = performance.now() + 60_000
  const gone = line.wait('a', async () => false, { until, signal: client.signal })
  const next = line.wait('b', async () => true, { until, signal: new AbortController().signal })
  client.abort()
  await expect(gone).rejects.toThrow('The request ended')
  expect(await next).toBe(true)
})

it('who takes the place of one that was called is called in its stead', async () => {
  stopTheClock()
  const line = new WaitingLine()
  const { signal } = new AbortController()
  const until = performance.now() + 60_000
  let answer: ((isAdmitted: boolean) => void) | undefined
  const ask = () => new Promise<boolean>((resolve) => (answer = resolve))
  const older = line.wait('a', ask, { until, signal })
  line.callFirst()
  await new Promise((resolve) => setImmediate(resolve))
  const newer = line.wait('a', async () => true, { until, signal })
  answer!(true)
  expect([await older, await newer]).toEqual([true, true])
})

it('no more than a hundred wait in a line; the next is refused at once', async () => {
  const line = new WaitingLine()
  const stop = new AbortController()
  const wait = (upload: string) => {
    const signal = AbortSignal.any([stop.signal])
    return line.wait(upload, async () => false, { until: performance.now() + 60_000, signal })
  }
  const waiting = Array.from({ length: 100 }, (_, index) => wait(String(index)))
  expect(await wait('one more')).toBe(false)
  const newer = wait('0')
  await expect(waiting[0]).rejects.toThrow('A newer request waits for a place')
  stop.abort()
  const left = await Promise.allSettled([...waiting.slice(1), newer])
  expect(new Set(left.map(({ status }) => status))).toEqual(new Set(['rejected']))
  expect(line.isEmpty).toBe(true)
})
