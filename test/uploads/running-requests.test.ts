// How many requests may send data at a time, and those that wait until one of them has ended.
import { expect, it, onTestFinished, vi } from 'vitest'
import { RunningLeases } from '../../server/uploads/running-leases.ts'
import { WaitingLine } from '../../server/uploads/waiting-line.ts'
import type { Run, Verdict } from '../../stores/ledger.ts'
import { ann, type CountedEngine, startCountedEngine } from '../support/counted-engine.ts'
import { openBody, request } from '../support/engine.ts'

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

it('who comes later waits behind those that wait', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const ids = await Promise.all(Array.from({ length: 40 }, () => counted.create(3)))
  const first = openBody('ab')
  const ended: string[] = []
  const send = (id: string, body: string | ReturnType<typeof openBody>) =>
    counted.append(id, 0, body).then(() => void ended.push(id))
  const running = send(ids[0]!, first)
  await expect
    .poll(async () => (await counted.ledger.usage('owner:ann', counted.now)).runningRequests)
    .toBe(1)
  const appends = []
  for (const [index, id] of ids.slice(1).entries()) {
    appends.push(send(id, 'abc'))
    if (index === 5) first.end('c')
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  await Promise.all([running, ...appends])
  expect(ended).toEqual(ids)
})

it('one that waits for one account keeps no place in another', async () => {
  const counted = await startCountedEngine({ owner: { runningRequests: 2 }, address: { runningRequests: 1 } })
  const hasAsked = asked(counted)
  const [one, two, three] = await Promise.all(['a', 'a', 'b'].map((client) => counted.create(3, { client })))
  const body = openBody('ab')
  const running = counted.append(one!, 0, body, { client: 'a' })
  await hasAsked(2)
  let isOver = false
  const waiting = counted.append(two!, 0, 'abc', { client: 'a' }).then(() => (isOver = true))
  await hasAsked(4)
  await counted.append(three!, 0, 'abc', { client: 'b' })
  expect(isOver).toBe(false)
  body.end('c')
  await Promise.all([running, waiting])
  expect((await counted.ledger.usage('owner:ann', counted.now)).runningRequests).toBe(0)
})

it('one that misses another place by now waits in that line', async () => {
  stopTheClock()
  const running = new Set<Run>()
  const ledger = {
    async begin(run: Run): Promise<Verdict> {
      if ([...running].some(({ account }) => account === run.account))
        return { is: 'refused', limit: 'runningRequests' }
      running.add(run)
      return { is: 'admitted' }
    },
    end: async (run: Run) => void running.delete(run),
  }
  const leases = new RunningLeases({ ledger: ledger as never, leaseMs: 10_000, now: () => 0 })
  onTestFinished(() => leases.close())
  const places = (...accounts: string[]) =>
    accounts.map((account) => ({ run: { account, id: accounts.join(), token: '' }, limit: 1 }))
  const begin = (of: ReturnType<typeof places>) =>
    leases.begin(of, { until: performance.now() + 60_000, signal: new AbortController().signal })
  const [bob, ann, annFromElsewhere] = [places('bob', 'here'), places('ann', 'here'), places('ann', 'there')]
  expect(await begin(bob)).toBe(undefined)
  const waiting = begin(ann)
  await new Promise((resolve) => setImmediate(resolve))
  expect(await begin(annFromElsewhere)).toBe(undefined)
  for (const { run } of [...bob, ...annFromElsewhere]) await leases.end(run)
  expect(await waiting).toBe(undefined)
  expect([...running]).toEqual(ann.map(({ run }) => run))
})

it('one that waits is refused when somebody asks how far the upload is, or removes it', async () => {
  const counted = await startCountedEngine(oneAtATime)
  const { create, append, engine } = counted
  const hasAsked = asked(counted)
  const [one, two] = [await create(3), await create(3)]
  const body = openBody('ab')
  const running = append(one, 0, body)
  await hasAsked(1)
  for (const ask of [engine.offset, engine.terminate]) {
    const waiting = append(two, 0, 'abc')
    const refused = expect(waiting).rejects.toThrow(/^423 1:/)
    await hasAsked(2)
    await new Promise((resolve) => setImmediate(resolve))
    await ask.call(engine, two, request('', { asker: ann }))
    await refused
  }
  body.end('c')
  await running
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
  await expect(waiting[0]).rejects.toThrow('A newer request wants this upload')
  stop.abort()
  const left = await Promise.allSettled([...waiting.slice(1), newer])
  expect(new Set(left.map(({ status }) => status))).toEqual(new Set(['rejected']))
  expect(line.isEmpty).toBe(true)
})
