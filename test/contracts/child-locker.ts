// A process of its own with a RedisLocker: takes the lock of one upload and holds it whoever wants it, until it is ended.
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { RedisLocker } from '../../stores/redis/redis-locker.ts'

const [url, keyPrefix, leaseMs, id] = process.argv.slice(2) as [string, string, string, string]
const connection = new RedisConnection({ url, keyPrefix, commandTimeoutMs: Number(leaseMs) / 5 })
const locker = new RedisLocker({ connection, leaseMs: Number(leaseMs) })
const lock = await locker.acquire(id, { timeoutMs: 10_000, onWanted: () => console.log('wanted') })
lock.lost.addEventListener('abort', () => console.log(`lost ${lock.isHeld()}`))
console.log(`took ${lock.fence}`)
