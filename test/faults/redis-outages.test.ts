// Redis does not answer: it stands still, is not there, or the way to it is silent. New data is refused in words that
// clients wait for, nothing hangs, and all heals by itself.

import { it, onTestFinished } from 'vitest'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { startFleet } from './fleet.ts'
import { expectAllWell } from './last-look.ts'
import { uploadMany } from './many-uploads.ts'
import { expectAway, expectBack, expectFewWords, ownRedis, twenty } from './redis-outage.ts'

/** What Redis runs late, when it goes on, may lock an upload for a lease more. */
const args = ['--lease', '4s']

it('Redis stands still for 15 seconds', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url, args })
  const done = await uploadMany(fleet, 'redis stands still', {
    ...twenty,
    faults: [
      [
        0.4,
        async () => {
          process.kill(redis.pid, 'SIGSTOP')
          await during(15_000, () => expectAway(fleet))
          process.kill(redis.pid, 'SIGCONT')
          await expectBack(fleet)
        },
      ],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 1)
}, 120_000)

it('Redis is not there for 15 seconds', async () => {
  const redis = await ownRedis()
  const fleet = await startFleet({ redisUrl: redis.url, args })
  const done = await uploadMany(fleet, 'redis not there', {
    ...twenty,
    faults: [
      [
        0.4,
        async () => {
          await redis.kill()
          await during(15_000, () => expectAway(fleet))
          await redis.restart()
          await expectBack(fleet)
        },
      ],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 1)
}, 120_000)

it('the way to Redis falls silent, and heals', async () => {
  const redis = await ownRedis()
  const wire = await startTcpProxy(redis.port)
  onTestFinished(() => wire.close())
  const fleet = await startFleet({ redisUrl: `redis://127.0.0.1:${wire.port}`, args })
  const done = await uploadMany(fleet, 'redis silent', {
    ...twenty,
    faults: [
      [
        0.4,
        async () => {
          wire.isSilent = true
          await during(6_000, () => expectAway(fleet))
          wire.isSilent = false
          await expectBack(fleet)
        },
      ],
    ],
  })

  await expectAllWell(fleet, done)
  expectFewWords(fleet, 1)
}, 120_000)

/** What is looked at has to be over by then; the fault lasts as long in any case. */
async function during(ms: number, look: () => Promise<void>): Promise<void> {
  const over = new Promise((resolve) => setTimeout(resolve, ms))
  await look()
  await over
}
