// The last look itself: each thing that it is there to find, it finds.

import { mkdir, open, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { expect, it, onTestFinished } from 'vitest'
import { type Fleet, startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'
import { uploadWithLedger } from './ledger-client.ts'

it('finds content that is not what was sent', async () => {
  const { fleet, id, look } = await uploaded()
  await look()
  const file = await open(join(fleet.folder, id), 'r+')
  await file.write('x', 70_000)
  await file.close()
  await expect(look()).rejects.toThrow('content of')
})

it('finds what is left in Redis', async () => {
  const { fleet, id, look } = await uploaded()
  const { url, prefix } = fleet.redis!
  const redis = new Redis(url)
  onTestFinished(() => redis.disconnect())
  for (const key of [`lock:{${id}}`, `wait:{${id}}`, 'record:{another}', 'fence:{another}', 'something']) {
    await redis.set(`${prefix}${key}`, 'x')
    await expect(look()).rejects.toThrow('left in Redis')
    await redis.del(`${prefix}${key}`)
  }
  await redis.zadd(`${prefix}index:recent`, 1, 'another')
  await expect(look()).rejects.toThrow('left in Redis')
})

it('finds what is left in the folder', async () => {
  const { fleet, id, look } = await uploaded()
  await mkdir(join(fleet.folder, '.tidemark', 'outbox'), { recursive: true })
  for (const [name, found] of [
    [`.${id}.1.data`, 'left in the folder'],
    [`.${id}.1.mark`, 'left in the folder'],
    ['upload.tmp', 'left in the folder'],
    ['.tidemark/outbox/note', 'left in the folder'],
    ['0'.repeat(32), 'uploads that nobody knows'],
  ] as const) {
    await writeFile(join(fleet.folder, name), '')
    await expect(look()).rejects.toThrow(found)
    await rm(join(fleet.folder, name))
  }
  await look()
})

it('finds finishes that were told twice, or of nobody, or not at all', async () => {
  const { fleet, look } = await uploaded()
  const [told] = await fleet.finishes()
  const says = (...finishes: unknown[]) => ({ ...fleet, finishes: async () => finishes }) as Fleet
  await look(says(told))
  await expect(look(says(told, told))).rejects.toThrow('finished, once')
  await expect(look(says())).rejects.toThrow('finished, once')
  await expect(look(says(told, { ...told, upload: 'another' }))).rejects.toThrow('another')
  const event = { ...told, event: 'e1' }
  await expect(look(says(event, event))).rejects.toThrow('finished, once')
  await look({ ...says(event, event), wasKilled: true })
  await expect(look({ ...says(event, { ...told, event: 'e2' }), wasKilled: true })).rejects.toThrow('once')
})

async function uploaded(): Promise<{ fleet: Fleet; id: string; look: (as?: Fleet) => Promise<void> }> {
  const fleet = await startFleet({ servers: 1 })
  const upload = await uploadWithLedger({ urls: fleet.urls, seed: 'looked at', bytes: 100_000 })
  return {
    fleet,
    id: upload.id,
    look: (as = fleet) => expectAllWell(as, [upload], { patienceMs: 100 }),
  }
}
