// SIGKILL of a server that writes, again and again: the clients go on at another one, or at the one that comes back,
// from an offset that is never lower than what they were told.

import { it } from 'vitest'
import { chance } from '../support/seed.ts'
import { type FleetOptions, startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'
import { type ManyUploads, uploadMany } from './many-uploads.ts'

const KiB = 1024
const MiB = 1024 * KiB

it(
  '50 uploads on two servers lose nothing when the server that writes is killed, five times',
  () => killServers('two servers', {}, 50),
  90_000,
)

it(
  '12 uploads on a server that has its folder for itself lose nothing when it is killed, five times',
  () => killServers('embedded', { redisUrl: 'embedded' }, 12),
  90_000,
)

it(
  '12 uploads that are sent in pieces to two servers lose nothing when one is killed, five times',
  () => killServers('pieces', {}, 12, { patchBytes: [4 * KiB, 96 * KiB] }),
  90_000,
)

async function killServers(
  name: string,
  options: FleetOptions,
  uploads: number,
  clients: Pick<ManyUploads, 'patchBytes'> = {},
): Promise<void> {
  const fleet = await startFleet(options)
  const random = chance(`kills ${name}`)
  const done = await uploadMany(fleet, name, {
    uploads,
    bytes: 2 * MiB,
    bytesPerSecond: MiB / 2,
    ...clients,
    faults: [0.1, 0.3, 0.5, 0.7, 0.85].map((part) => [
      part + random.next() * 0.1,
      () => fleet.killAndRestart(random.between(0, fleet.urls.length - 1)),
    ]),
  })
  await expectAllWell(fleet, done)
}
