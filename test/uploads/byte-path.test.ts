import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Ended, Receiver, type ReceiverOptions } from '../../server/uploads/byte-path.ts'
import { Pulse } from '../../server/uploads/pulse.ts'
import { deferred } from '../support/deferred.ts'

const MiB = 1024 * 1024

/** A store in memory that remembers how it was written to, and a clock that tests move by hand. */
function receiving(options: Partial<ReceiverOptions> = {}) {
  const source = new PassThrough({ highWaterMark: 64 * MiB })
  const clock = { now: 0 }
  const pulse = new Pulse({ now: () => clock.now, everyMs: 3_600_000 })
  const written = Buffer.alloc(16 * MiB)
  const writes: { position: number; bytes: number; buffers: number }[] = []
  const marks: number[] = []
  const receiver = new Receiver({
    source,
    pulse,
    offset: 0,
    endLimit: Number.POSITIVE_INFINITY,
    idleMs: 60_000,
    leastBytesPerSecond: 0,
    write: async (buffers, position) => {
      const content = Buffer.concat(buffers)
      content.copy(written, position)
      writes.push({ position, bytes: content.length, buffers: buffers.length })
    },
    checkpoint: async (offset) => void marks.push(offset),
    ...options,
  })
  const beat = (ms: number) => {
    clock.now += ms
    pulse.beat()
  }
  return { source, receiver, pulse, beat, written, writes, marks }
}

/** Lets what is ready in the event loop run. */
const settle = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))

describe('a body', () => {
  it('is stored byte for byte, whatever its chunks are', async () => {
    const chunk = fc.uint8Array({ minLength: 0, maxLength: 9000 })
    await fc.assert(
      fc.asyncProperty(fc.array(chunk, { maxLength: 60 }), fc.nat(5000), async (chunks, offset) => {
        const { source, receiver, written } = receiving({ offset })
        for (const bytes of chunks) source.write(bytes)
        source.end()
        const whole = Buffer.concat(chunks)
        expect(await receiver.done).toEqual({ why: 'complete', offset: offset + whole.length })
        expect(written.subarray(offset, offset + whole.length).equals(whole)).toBe(true)
      }),
      { numRuns: 60 },
    )
  })

  it('is written in batches of about 1 MiB', async () => {
    const { source, receiver, writes } = receiving()
    for (let i = 0; i < 80; i++) source.write(Buffer.alloc(64 * 1024))
    source.end()
    await receiver.done
    expect(writes.map(({ bytes }) => bytes)).toEqual([MiB, MiB, MiB, MiB, MiB])
  })

  it('reaches the store in the buffers in which it came, none of them copied', async () => {
    const memory = new Set<unknown>()
    const copied: number[] = []
    const { source, receiver } = receiving({
      write: async (buffers) => {
        for (const buffer of buffers) if (!memory.has(buffer.buffer)) copied.push(buffer.length)
      },
    })
    for (let i = 0; i < 80; i++) {
      const chunk = Buffer.allocUnsafeSlow(64 * 1024)
      memory.add(chunk.buffer)
      source.write(chunk)
    }
    source.end()
    expect(await receiver.done).toMatchObject({ offset: 5 * MiB })
    expect(copied).toEqual([])
  })

  it('of one-byte chunks is copied together before it is written', async () => {
    const { source, receiver, writes } = receiving()
    for (let i = 0; i < 20_000; i++) source.write(Buffer.from([i % 251]))
    source.end()
    await receiver.done
    expect(writes).toEqual([{ position: 0, bytes: 20_000, buffers: 3 }])
  })

  it('waits for a slow store with two batches at the most', async () => {
    const open = deferred()
    let largest = 0
    const { source, receiver } = receiving({
      write: async (buffers) => {
        largest = Math.max(largest, Buffer.concat(buffers).length)
        await open.promise
      },
    })
    for (let i = 0; i < 256; i++) source.write(Buffer.alloc(64 * 1024))
    await settle()
    // One batch is being written, one is full; the rest has to wait in the source.
    expect(receiver.receivedBytes).toBe(2 * MiB)
    source.end()
    open.resolve()
    expect(await receiver.done).toEqual({ why: 'complete', offset: 16 * MiB })
    expect(largest).toBeLessThanOrEqual(2 * MiB)
  })
})

describe('the mark', () => {
  it('moves after 8 MiB', async () => {
    const { source, receiver, marks } = receiving()
    for (let i = 0; i < 9; i++) {
      source.write(Buffer.alloc(MiB))
      await settle()
    }
    expect(marks).toEqual([8 * MiB])
    source.end()
    await receiver.done
  })

  it('moves after a second, also for a few bytes', async () => {
    const { source, receiver, marks, beat } = receiving()
    source.write(Buffer.from('slow'))
    await settle()
    beat(999)
    await settle()
    expect(marks).toEqual([])
    beat(1)
    await settle()
    expect(marks).toEqual([4])
    source.end()
    await receiver.done
  })

  it('never moves beyond what was written, in whatever order writes and marks return', async () => {
    let written = 0
    const { source, receiver, marks } = receiving({
      write: async (buffers, position) => {
        await settle()
        written = position + Buffer.concat(buffers).length
      },
      checkpoint: async (offset) => {
        expect(offset).toBeLessThanOrEqual(written)
        await settle()
        marks.push(offset)
      },
    })
    for (let i = 0; i < 16; i++) source.write(Buffer.alloc(MiB))
    source.end()
    expect(await receiver.done).toEqual({ why: 'complete', offset: 16 * MiB })
  })
})

describe('a body ends', () => {
  it('at its limit when it is longer, and nothing beyond is written', async () => {
    const { source, receiver, written } = receiving({ endLimit: 5 })
    source.write(Buffer.from('1234567'))
    expect(await receiver.done).toEqual({ why: 'overflow', offset: 5 })
    expect(written.subarray(0, 7).toString('latin1')).toBe('12345\0\0')
  })

  it('when no byte came for the idle time, with what came', async () => {
    const { source, receiver, beat } = receiving({ idleMs: 10_000 })
    source.write(Buffer.from('abc'))
    await settle()
    beat(9_999)
    source.write(Buffer.from('d'))
    await settle()
    beat(9_999)
    expect(receiver.receivedBytes).toBe(4)
    beat(1)
    expect(await receiver.done).toEqual({ why: 'idle', offset: 4 })
  })

  it('when it is slower than allowed on average, though it never falls silent', async () => {
    const { source, receiver, beat } = receiving({ idleMs: 10_000, leastBytesPerSecond: 2 })
    let ended: Ended | undefined
    void receiver.done.then((value) => {
      ended = value
    })
    for (let second = 0; second < 10 && !ended; second++) {
      source.write(Buffer.from('x'))
      await settle()
      beat(1000)
      await settle()
    }
    expect(ended).toMatchObject({ why: 'idle' })
  })

  it('not for silence while the store keeps the client waiting', async () => {
    const open = deferred()
    const { source, receiver, beat } = receiving({ idleMs: 1000, write: () => open.promise })
    for (let i = 0; i < 64; i++) source.write(Buffer.alloc(64 * 1024))
    await settle()
    beat(5000)
    beat(5000)
    source.end()
    open.resolve()
    expect(await receiver.done).toEqual({ why: 'complete', offset: 4 * MiB })
  })

  it('when the client is gone, with what came', async () => {
    const { source, receiver } = receiving()
    source.write(Buffer.from('half'))
    await settle()
    source.destroy()
    expect(await receiver.done).toEqual({ why: 'client-gone', offset: 4 })
  })

  it('when it is displaced, with what came', async () => {
    const { source, receiver, written } = receiving()
    source.write(Buffer.from('mine'))
    await settle()
    receiver.stop('displaced')
    source.write(Buffer.from('late'))
    expect(await receiver.done).toEqual({ why: 'stopped', reason: 'displaced', offset: 4 })
    expect(written.subarray(0, 8).toString('latin1')).toBe('mine\0\0\0\0')
  })

  it('without another write when the lease is lost', async () => {
    const { source, receiver, writes } = receiving()
    source.write(Buffer.from('not mine any more'))
    await settle()
    receiver.stop('lease-lost')
    expect(await receiver.done).toEqual({ why: 'stopped', reason: 'lease-lost', offset: 0 })
    expect(writes).toEqual([])
  })

  it('at the last write that returned when the store fails', async () => {
    let count = 0
    const full = new Error('full')
    const { source, receiver } = receiving({
      write: async () => {
        if (++count === 3) throw full
      },
    })
    for (let i = 0; i < 5; i++) {
      source.write(Buffer.alloc(MiB))
      await settle()
    }
    expect(await receiver.done).toEqual({ why: 'failed', error: full, offset: 2 * MiB })
  })

  it('with the failure of a mark that could not move', async () => {
    const superseded = new Error('superseded')
    const { source, receiver } = receiving({ checkpoint: () => Promise.reject(superseded) })
    for (let i = 0; i < 9; i++) {
      source.write(Buffer.alloc(MiB))
      await settle()
    }
    expect(await receiver.done).toMatchObject({ why: 'failed', error: superseded })
  })
})

it('leaves no listener and no timer behind', async () => {
  const { source, receiver, pulse } = receiving()
  expect(pulse.isBeating).toBe(true)
  const own = source.listenerCount('end')
  source.end(Buffer.from('x'))
  await receiver.done
  expect(source.listenerCount('data')).toBe(0)
  expect(source.listenerCount('end')).toBe(own - 1)
  expect(pulse.isBeating).toBe(false)
})
