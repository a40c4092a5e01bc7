// Twenty clients want the same upload, each with bytes of its own. Whose bytes are stored tells from the outside who was
// the writer: every range is that client's to whom it was acknowledged, and no range was acknowledged to two.

import { createHash } from 'node:crypto'
import { expect, it } from 'vitest'
import { fight } from './fight.ts'
import { type FleetOptions, startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'

const MiB = 1024 * 1024

it(
  '20 clients fight for one upload on two servers: one writer at any moment',
  () => expectOneWriter('two', {}),
  60_000,
)

it(
  '20 clients fight for one upload on a server that has its folder for itself: one writer at any moment',
  () => expectOneWriter('embedded', { redisUrl: 'embedded' }),
  60_000,
)

async function expectOneWriter(name: string, options: FleetOptions): Promise<void> {
  const fleet = await startFleet(options)
  const fought = await fight({ urls: fleet.urls, name, clients: 20, bytes: 3 * MiB, deadlineMs: 50_000 })

  // Something else would say that the clients never met.
  expect(fought.displacements).toBeGreaterThan(0)
  expect([fought.cuts, fought.unavailable]).toEqual([0, 0])
  expect(fought.gaps).toEqual([])
  const sha256 = createHash('sha256').update(fought.content).digest('hex')
  await expectAllWell(fleet, [{ ...fought, sha256 }])
}
