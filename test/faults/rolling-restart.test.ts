// Both servers are restarted in order, one after the other, under 50 running uploads, as an upgrade does it: no client
// sees a failed upload, and none begins again.

import { expect, it, onTestFinished } from 'vitest'
import { startBalancer } from '../support/balancer.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { startUpload } from '../support/tus-client.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { expectAllWell, type Finished } from './last-look.ts'
import { contentOf } from './ledger-client.ts'
import { uploadMany } from './many-uploads.ts'

const MiB = 1024 * 1024
const bytes = 3 * MiB

it('50 uploads go on while both servers are restarted, twice', async () => {
  const fleet = await startFleet()
  const tusClients = Promise.all(Array.from({ length: 20 }, (_, i) => uploadByTusJsClient(fleet, `tus ${i}`)))
  const ledgers = await uploadMany(fleet, 'rolling restart', {
    uploads: 30,
    bytes,
    bytesPerSecond: MiB / 3,
    faults: [0.1, 0.3, 0.5, 0.7].map((part, index) => [part, () => fleet.restart(index % 2)]),
  })

  await expectAllWell(fleet, [...ledgers, ...(await tusClients)])
}, 90_000)

/** Through a balancer, which is what real clients have instead of a list of servers. */
async function uploadByTusJsClient(fleet: Fleet, seed: string): Promise<Finished> {
  const balancer = await startBalancer(fleet.servers.map(({ port }) => port))
  onTestFinished(() => balancer.close())
  const wire = await startTcpProxy(balancer.port)
  wire.bytesPerSecond = MiB / 3
  onTestFinished(() => wire.close())
  const { done, exchanges } = startUpload(contentOf(seed, 0, bytes), { endpoint: `${wire.url}/files/` })
  const { pathname: path } = new URL(await done)
  expect(exchanges.filter(({ method, status }) => method === 'POST' && status === 201)).toHaveLength(1)
  return { path, id: path.split('/').at(-1)!, bytes, seed }
}
