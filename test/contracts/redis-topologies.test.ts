import { expect, it } from 'vitest'
import { startCluster, startSentinels } from '../support/redis-topologies.ts'
it('c', async () => {
  let t = performance.now()
  const c = await startCluster()
  console.log('cluster', performance.now() - t, c.url)
  await c.stop()
  t = performance.now()
  const s = await startSentinels()
  console.log('sentinel', performance.now() - t, s.url)
  const p = await s.primary()
  await p.kill()
  t = performance.now()
  await s.untilFailover(p)
  console.log('failover', performance.now() - t)
  await s.stop()
}, 60000)
