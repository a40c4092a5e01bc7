import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { bootClock, follow, followedAtOnceMs, steadyClock } from '../../stores/clock.ts'
import { Lease } from '../../stores/redis/lease.ts'
import { RedisClock } from '../../stores/redis/redis-clock.ts'
import { RedisConnection } from '../../stores/redis/redis-connection.ts'
import { startRedis } from '../support/redis.ts'

const minuteMs = 60_000
const hourMs = 60 * minuteMs

describe('the told time', () => {
  const moments = fc.array(
    fc.record({
      passedMs: fc.integer({ min: -5_000, max: 10 * hourMs }),
      jumpMs: fc.oneof(
        fc.constant(0),
        fc.integer({ min: -3_000, max: 3_000 }),
        fc.integer({ min: -hourMs, max: hourMs }),
      ),
    }),
    { minLength: 1, maxLength: 100 },
  )

  it('never goes back, and never faster or slower than a tenth but for what is followed at once', () => {
    fc.assert(
      fc.property(moments, (steps) => {
        let bootMs = 1_000
        let referenceMs = 1_000_000
        let told = { timeMs: referenceMs, bootMs }
        for (const { passedMs, jumpMs } of steps) {
          bootMs = Math.max(0, bootMs + passedMs)
          referenceMs += passedMs + jumpMs
          const next = follow(told, bootMs, referenceMs)
          const wentMs = next.timeMs - told.timeMs
          const realMs = Math.max(0, bootMs - told.bootMs)
          expect(wentMs).toBeGreaterThanOrEqual(Math.max(0, realMs * 0.9 - followedAtOnceMs) - 1e-3)
          expect(wentMs).toBeLessThanOrEqual(realMs * 1.1 + followedAtOnceMs + 1e-3)
          told = next
        }
      }),
    )
  })

  it('meets its reference however far that jumped, ten times as long as that was', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -48 * hourMs, max: 48 * hourMs }),
        fc.integer({ min: 1_000, max: minuteMs }),
        (jumpMs, everyMs) => {
          let told = { timeMs: 1e12, bootMs: 0 }
          const neededMs = 10 * Math.abs(jumpMs) + everyMs
          for (let bootMs = everyMs; bootMs < neededMs + everyMs; bootMs += everyMs)
            told = follow(told, bootMs, 1e12 + bootMs + jumpMs)
          expect(Math.abs(told.timeMs - (1e12 + told.bootMs + jumpMs))).toBeLessThan(1e-3)
        },
      ),
      { numRuns: 20 },
    )
  })

  it('takes ten hours to believe an hour, and none of it at once', () => {
    const { machine, wallAhead } = machineOf()
    const now = steadyClock(machine.wallMs, bootClock(machine))
    const before = now()
    wallAhead(hourMs)
    expect(now() - before).toBe(0)
    machine.pass(minuteMs)
    expect(now() - before).toBe(1.1 * minuteMs)
    wallAhead(-2 * hourMs)
    machine.pass(minuteMs)
    expect(now() - before).toBe(2 * minuteMs)
  })

  it('does not believe all of it when nobody asked for the time for long', () => {
    const { machine, wallAhead } = machineOf()
    const now = steadyClock(machine.wallMs, bootClock(machine))
    const before = now()
    machine.pass(24 * hourMs)
    wallAhead(hourMs)
    expect(now() - before).toBe(24 * hourMs + 0.1 * minuteMs)
  })

  it('follows at once what is set right by little, but stands still instead of going back', () => {
    const { machine, wallAhead } = machineOf()
    const now = steadyClock(machine.wallMs, bootClock(machine))
    const before = now()
    wallAhead(1_500)
    expect(now() - before).toBe(1_500)
    wallAhead(-1_000)
    machine.pass(400)
    expect(now() - before).toBe(1_500)
    machine.pass(1_000)
    expect(now() - before).toBe(1_900)
  })
})

describe('the boot clock', () => {
  it('goes on while the machine is suspended', () => {
    const { machine } = machineOf()
    const boot = bootClock(machine)
    const before = boot()
    machine.pass(1_000)
    machine.suspend(8 * hourMs)
    machine.pass(1_000)
    expect(boot() - before).toBe(8 * hourMs + 2_000)
  })

  it('is not moved by who sets the wall clock, and reads the uptime only then', () => {
    const { machine, wallAhead } = machineOf()
    const boot = bootClock(machine)
    const before = boot()
    const reads = machine.uptimeReads
    for (let n = 0; n < 100; n++) {
      machine.pass(1_000)
      boot()
    }
    expect(machine.uptimeReads).toBe(reads)
    wallAhead(hourMs)
    expect(boot() - before).toBe(100_000)
    wallAhead(-2 * hourMs)
    expect(boot() - before).toBe(100_000)
    expect(machine.uptimeReads).toBe(reads + 2)
  })

  it('agrees with this machine', async () => {
    const boot = bootClock()
    const [bootMs, monotonicMs] = [boot(), performance.now()]
    await new Promise((resolve) => setTimeout(resolve, 100))
    const passedMs = boot() - bootMs - (performance.now() - monotonicMs)
    expect(Math.abs(passedMs)).toBeLessThan(50)
  })
})

describe('a lease', () => {
  const leaseOn = (machine: ReturnType<typeof machineOf>['machine']) => {
    const bootMs = bootClock(machine)
    const clock = () => ({ monotonicMs: machine.monotonicMs(), bootMs: bootMs() })
    return new Lease(clock, clock(), 10_000, 1_000)
  }

  it('stands while the wall clock is set, ahead or back, and ends in its own time', () => {
    const { machine, wallAhead } = machineOf()
    const lease = leaseOn(machine)
    wallAhead(hourMs)
    expect(lease.remainingMs()).toBe(9_000)
    wallAhead(-2 * hourMs)
    machine.pass(8_000)
    expect(lease.remainingMs()).toBe(1_000)
    machine.pass(1_000)
    expect(lease.stands()).toBe(false)
  })

  it('is over when the machine was suspended for as long', () => {
    const { machine } = machineOf()
    const lease = leaseOn(machine)
    machine.pass(100)
    expect(lease.stands()).toBe(true)
    machine.suspend(9_000)
    expect(lease.stands()).toBe(false)
  })
})

describe('servers of one Redis', () => {
  it('agree with it, whatever their own wall clocks say, and go on while it is away', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const connection = new RedisConnection({ url: redis.url })
    await connection.connect()
    onTestFinished(() => connection.close())
    const { machine, wallAhead } = machineOf()
    wallAhead(5 * hourMs)
    const clock = await RedisClock.start({ connection, askEveryMs: 20, boot: bootClock(machine) })
    onTestFinished(() => clock.close())
    // This machine's Redis has this machine's time.
    expect(Math.abs(clock.now() - Date.now())).toBeLessThan(1_000)

    const asked = async () =>
      Number(/cmdstat_time:calls=(\d+)/.exec(await redis.command('INFO', 'commandstats'))?.[1])
    const before = await asked()
    await expect.poll(asked).toBeGreaterThan(before + 2)

    await redis.kill()
    const told = clock.now()
    machine.pass(10 * minuteMs)
    expect(clock.now() - told).toBeGreaterThanOrEqual(10 * minuteMs)
    expect(clock.now() - told).toBeLessThan(10 * minuteMs + 1_000)
  })

  it('are not told when there is no answer to the first question', async () => {
    const connection = new RedisConnection({ url: 'redis://127.0.0.1:1' })
    await expect(RedisClock.start({ connection })).rejects.toMatchObject({ code: 'unavailable' })
  })
})

function machineOf() {
  let monotonicMs = 50_000
  let suspendedMs = 0
  let wallMs = 1_700_000_000_000
  const machine = {
    uptimeReads: 0,
    monotonicMs: () => monotonicMs,
    uptimeMs: () => {
      machine.uptimeReads += 1
      return 7 * hourMs + monotonicMs + suspendedMs
    },
    wallMs: () => wallMs,
    pass(ms: number) {
      monotonicMs += ms
      wallMs += ms
    },
    suspend(ms: number) {
      suspendedMs += ms
      wallMs += ms
    },
  }
  const wallAhead = (ms: number) => {
    wallMs += ms
  }
  return { machine, wallAhead }
}
