import { readdir, rm, utimes, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import type { EngineParts, UploadEngine } from '../../server/uploads/engine.ts'
import { Sweeper } from '../../server/uploads/sweeper.ts'
import { append, createUpload, openBody, request, startEngine } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'

const hourMs = 3_600_000
const sliding = { expiry: { afterMs: hourMs, mode: 'sliding' } } as const
const absolute = { expiry: { afterMs: hourMs, mode: 'absolute' } } as const

it('removes unfinished uploads once their time is over, with all that belongs to them', async () => {
  const { engine, folder, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '1234')

  expect(await sweeper.sweepExpired(Date.now() + hourMs - 1000)).toBe(0)
  expect(await engine.offset(id, request())).toMatchObject({ is: 'offset' })

  expect(await sweeper.sweepExpired(Date.now() + hourMs + 1000)).toBe(1)
  expect(await engine.offset(id, request())).toMatchObject({ refusal: { code: 'not-found' } })
  expect(await engine.records!.get(id)).toBe(undefined)
  expect(await filesIn(folder)).toEqual([])
})

it('never removes a finished upload', async () => {
  const { engine, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 4, '1234')
  expect(await sweeper.sweepExpired(Date.now() + 1000 * hourMs)).toBe(0)
  expect(await sweeper.walk(Date.now() + 1000 * hourMs)).toMatchObject({ removed: 0 })
  expect(await engine.read(id)).toMatchObject({ is: 'readable' })
})

it('counts from the last kept byte, or from the creation', async () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  for (const [settings, isThere] of [
    [sliding, true],
    [absolute, false],
  ] as const) {
    const { engine, sweeper } = await sweeping(settings)
    const id = await createUpload(engine, 10, '12')
    vi.setSystemTime(Date.now() + hourMs / 2)
    await append(engine, id, 2, '34')
    vi.setSystemTime(Date.now() + hourMs / 2 + 1000)
    await sweeper.sweepExpired(Date.now())
    expect((await engine.bytes.look(id)) !== undefined).toBe(isThere)
  }
})

it('is not put off by requests that bring nothing', async () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  const { engine, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '12')
  vi.setSystemTime(Date.now() + hourMs / 2)
  await append(engine, id, 2, '')
  vi.setSystemTime(Date.now() + hourMs / 2)
  expect(await sweeper.sweepExpired(Date.now())).toBe(1)
})

it('answers that an expired upload is gone until it is swept', async () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  const { engine } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '12')
  vi.setSystemTime(Date.now() + hourMs + 1)
  expect(await engine.offset(id, request())).toMatchObject({ refusal: { code: 'gone', status: 410 } })
  expect(await append(engine, id, 2, '34')).toMatchObject({ refusal: { code: 'gone' } })
  expect(await engine.terminate(id, request())).toMatchObject({ refusal: { code: 'gone' } })
})

it('leaves an upload alone that is being received', async () => {
  const { engine, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '12')
  const body = openBody('34')
  const running = append(engine, id, 2, body)
  await vi.waitFor(async () => expect((await engine.bytes.look(id))?.mark.offset).toBe(4), { timeout: 5000 })
  expect(await sweeper.sweepExpired(Date.now() + 1000)).toBe(0)
  body.end('567890')
  expect(await running).toMatchObject({ is: 'appended', record: { mark: { state: 'finished' } } })
})

it('finds by walking what the index has lost, and puts lost records back', async () => {
  const { engine, sweeper } = await sweeping(sliding)
  const kept = await createUpload(engine, 4, '1234')
  const expired = await createUpload(engine, 10, '1234')
  await engine.records!.remove(kept)
  await engine.records!.remove(expired)

  expect(await sweeper.sweepExpired(Date.now() + 2 * hourMs)).toBe(0)
  expect(await sweeper.walk(Date.now() + 2 * hourMs)).toMatchObject({ removed: 1 })
  expect(await engine.records!.get(kept)).toMatchObject({ mark: { state: 'finished', offset: 4 } })
  expect(await engine.bytes.look(expired)).toBe(undefined)
})

it('takes records out whose uploads are gone', async () => {
  const { engine, folder, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 10, '12')
  for (const name of await readdir(folder)) if (name.includes(id)) await rm(path.join(folder, name))
  await sweeper.sweepExpired(Date.now() + 2 * hourMs)
  expect(await engine.records!.get(id)).toBe(undefined)
  expect(await engine.records!.expiring(Date.now() + 2 * hourMs, 10)).toEqual([])
})

it('finds by walking records whose uploads are gone, finished ones too', async () => {
  const { engine, sweeper } = await sweeping(sliding)
  const id = await createUpload(engine, 4, '1234')
  const record = await engine.records!.get(id)
  await engine.terminate(id, request())
  // As a Redis that was started from an older snapshot does it.
  await engine.records!.put(record!)
  await sweeper.walk(Date.now())
  expect(await engine.records!.get(id)).toBe(undefined)
})

it('removes what a creation left that was cut off, and nothing that is not ours', async () => {
  const { folder, sweeper } = await sweeping(sliding)
  const orphan = path.join(folder, `.${'ab'.repeat(16)}.0.mark`)
  const foreign = path.join(folder, 'holiday.jpg')
  for (const file of [orphan, foreign]) {
    await writeFile(file, '')
    await utimes(file, new Date(0), new Date(0))
  }
  expect(await sweeper.walk(Date.now())).toEqual({ removed: 0, orphans: 1 })
  expect(await filesIn(folder)).toEqual(['holiday.jpg'])
})

it('sweeps by itself, and ends when it is closed', async () => {
  const { engine, sweeper } = await sweeping({ expiry: { afterMs: 1, mode: 'sliding' } }, 20)
  sweeper.start()
  const id = await createUpload(engine, 10, '12')
  await vi.waitFor(async () => expect(await engine.bytes.look(id)).toBe(undefined), { timeout: 5000 })
  await sweeper.close()
})

async function sweeping(
  settings: Partial<EngineParts['settings']>,
  everyMs = 60_000,
): Promise<{ engine: UploadEngine; folder: string; sweeper: Sweeper }> {
  const folder = await temporaryFolder()
  const { engine } = await startEngine(folder, { settings })
  const sweeper = new Sweeper({ engine, everyMs })
  onTestFinished(() => sweeper.close())
  return { engine, folder, sweeper }
}

async function filesIn(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name !== '.tidemark')
}
