import { afterAll, beforeAll } from 'vitest'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { describeLocker } from './locker-contract.ts'

describeLocker('LocalLocker', async () => {
  const locker = new LocalLocker()
  await locker.start()
  return { servers: [locker, locker], remains: async () => locker.size, stop: () => locker.close() }
})

let redis: RedisServer
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(async () => {
  await redis.stop()
})

describeLocker('RedisLocker', async () => {
  const keyPrefix = `t${Math.random().toString(36).slice(2)}:`
  const connections = [0, 1].map(() => new RedisConnection({ url: redis.url, keyPrefix }))
  const lockers = connections.map((connection) => new RedisLocker({ connection }))
  for (const locker of lockers) await locker.start()
  const one = lockers[0]!
  const two = lockers[1]!
  let scriptsBefore = 0
  return {
    servers: [one, two],
    async remains() {
      const left = await connections[0]!.run((client) => client.keys(`${keyPrefix}*`))
      // A fence is remembered for an hour, so that it grows.
      return one.size + two.size + left.filter((key) => !key.startsWith(`${keyPrefix}fence:`)).length
    },
    async requests() {
      const calls = await countScripts(connections[0]!)
      const since = calls - scriptsBefore
      scriptsBefore = calls
      return since
    },
    async stop() {
      for (const locker of lockers) await locker.close()
      for (const connection of connections) await connection.close()
    },
  }
})

async function countScripts(connection: RedisConnection): Promise<number> {
  const info = await connection.run((client) => client.info('commandstats'))
  return Number(/^cmdstat_evalsha:calls=(\d+)/m.exec(info)?.[1] ?? 0)
}
