// SIGKILL of the server that writes, again and again: the clients go on at the other one, or at the one that comes back,
// from an offset that is never lower than what they were told.

import { expect, it } from 'vitest'
import { chance } from '../support/seed.ts'
import { startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'
import { uploadWithLedger } from './ledger-client.ts'

const MiB = 1024 * 1024

it.each([
  ['50 uploads on two servers', { uploads: 50, bytes: 2 * MiB, fleet: {} }],
  [
    '12 uploads on one that has its folder for itself',
    { uploads: 12, bytes: 3 * MiB, fleet: { redisUrl: 'embedded' as const } },
  ],
])(
  '%s: SIGKILL of the server that writes, at random moments',
  async (name, { uploads, bytes, fleet: options }) => {
    const fleet = await startFleet({ ...options, args: ['--lease', '3s'] })
    const random = chance(name)
    const total = uploads * bytes
    const killAt = [0.1, 0.3, 0.5, 0.7, 0.9].map((part) => (part + random.next() * 0.1) * total)
    const acknowledged = new Map<string, number>()
    let kills = Promise.resolve()
    let killed = 0

    const done = await Promise.all(
      Array.from({ length: uploads }, (_, i) =>
        uploadWithLedger({
          urls: fleet.urls,
          seed: `${name} ${i}`,
          bytes,
          bytesPerSecond: MiB / 2,
          onAcknowledged(offset) {
            acknowledged.set(`${i}`, offset)
            const sum = [...acknowledged.values()].reduce((a, b) => a + b, 0)
            if (sum < (killAt[0] ?? Number.POSITIVE_INFINITY)) return
            killAt.shift()
            const victim = random.between(0, fleet.urls.length - 1)
            kills = kills.then(async () => {
              await fleet.killAndRestart(victim)
              killed++
            })
          },
        }),
      ),
    )
    await kills

    expect(killed).toBe(5)
    await expectAllWell(fleet, done)
  },
  90_000,
)
