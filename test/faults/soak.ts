// Everything at once, for as long as it is told: uploads come and go on two servers, while chance kills and restarts
// servers, kills, empties, stops and silences Redis, and lets clients fight. At the end all must be well.

import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { it, onTestFinished } from 'vitest'
import { startRedis } from '../support/redis.ts'
import { chance, seed } from '../support/seed.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { fight } from './fight.ts'
import { startFleet } from './fleet.ts'
import { expectAllWell, type Finished } from './last-look.ts'
import { uploadWithLedger } from './ledger-client.ts'

const MiB = 1024 * 1024
const minutes = Number(process.env.SOAK_MINUTES ?? 10)
const clients = 20
/** For what was begun when the time was over. */
const afterwardsMs = 180_000

it(`everything, for ${minutes} minutes`, soak, minutes * 60_000 + 2 * afterwardsMs)

async function soak(): Promise<void> {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const wire = await startTcpProxy(redis.port)
  onTestFinished(() => wire.close())
  const fleet = await startFleet({ redisUrl: `redis://127.0.0.1:${wire.port}`, args: ['--lease', '8s'] })
  const random = chance('soak')
  const until = performance.now() + minutes * 60_000
  const failed = new AbortController()
  const isOver = () => failed.signal.aborted || performance.now() > until

  const uploads: Finished[] = []
  let exchanges = 0
  const happened = new Map<string, number>()
  const faults: Record<string, () => Promise<unknown>> = {
    'server killed': () => fleet.killAndRestart(random.between(0, 1)),
    'server restarted': () => fleet.restart(random.between(0, 1)),
    'both servers killed': () => Promise.all([0, 1].map((index) => fleet.killAndRestart(index))),
    'Redis killed': async () => {
      await redis.kill()
      await sleep(random.between(0, 5_000))
      await redis.restart()
    },
    'Redis set back': async () => {
      await redis.command('SAVE')
      await sleep(random.between(500, 3_000))
      await redis.kill()
      await redis.restart()
    },
    'Redis emptied': () => redis.command('FLUSHALL'),
    'Redis stopped': async () => {
      process.kill(redis.pid, 'SIGSTOP')
      await sleep(random.between(500, 8_000))
      process.kill(redis.pid, 'SIGCONT')
    },
    'Redis silent': async () => {
      wire.isSilent = true
      await sleep(random.between(500, 6_000))
      wire.isSilent = false
    },
    'Redis cut off': async () => wire.cut(),
  }

  await Promise.all([
    ...Array.from({ length: clients }, (_, index) => orFail(uploadOneAfterTheOther(index))),
    orFail(fightAgainAndAgain()),
    orFail(letThingsHappen()),
  ])
  console.log(summary())
  failed.signal.throwIfAborted()
  await expectAllWell(fleet, uploads, { patienceMs: 60_000 })

  async function uploadOneAfterTheOther(client: number): Promise<void> {
    const own = chance(`soak client ${client}`)
    for (let n = 0; !isOver(); n++) {
      const upload = await uploadWithLedger({
        urls: fleet.urls,
        seed: `soak ${client}.${n}`,
        bytes: own.between(0, 4 * MiB),
        bytesPerSecond: own.between(MiB / 4, MiB),
        deadlineMs: afterwardsMs,
      })
      exchanges += upload.ledger.length
      uploads.push({ ...upload, ledger: undefined } as Finished)
    }
  }

  async function fightAgainAndAgain(): Promise<void> {
    for (let n = 0; !isOver(); n++) {
      const name = `soak fight ${n}`
      const fought = await fight({ urls: fleet.urls, name, clients: 5, bytes: MiB, deadlineMs: afterwardsMs })
      const { content, ...upload } = fought
      uploads.push({ ...upload, sha256: createHash('sha256').update(content).digest('hex') })
    }
  }

  async function letThingsHappen(): Promise<void> {
    while (!isOver()) {
      await sleep(random.between(500, 5_000))
      const [name, fault] = random.pick(Object.entries(faults))
      await fault()
      happened.set(name, (happened.get(name) ?? 0) + 1)
    }
  }

  /** What fails first ends the rest: it says more than what follows from it. */
  async function orFail(work: Promise<void>): Promise<void> {
    await work.catch((error: unknown) => failed.abort(error))
  }

  function summary(): string {
    const bytes = uploads.reduce((sum, upload) => sum + upload.bytes, 0)
    const counts = [...happened].map(([name, count]) => `${count} x ${name}`).sort()
    return [
      `TEST_SEED=${seed}, ${minutes} minutes: ${uploads.length} uploads, ${Math.round(bytes / MiB)} MiB, ${exchanges} exchanges`,
      ...counts.map((line) => `  ${line}`),
    ].join('\n')
  }
}
