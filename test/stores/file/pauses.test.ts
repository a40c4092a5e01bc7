/**
 * Servers that are stopped between any two file operations, and wake up when their lock is long lost: what they were
 * acknowledged for must be part of what there is at the end, and nothing else of what they wrote. No lock is played at
 * all, and who opens is told that its lock is held: marks and openings alone must keep them apart.
 */
import { buffer } from 'node:stream/consumers'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Appender, StoreError } from '../../../stores/contracts.ts'
import { FileBytes } from '../../../stores/file/file-bytes.ts'
import { headOf } from '../../contracts/byte-store-values.ts'
import { makeFolder, temporaryFolder } from '../../support/folder.ts'
import { Steps } from './stepped.ts'
import { filesIn } from './support.ts'

const length = 24
const id = 'u'

interface Server {
  readonly by: number
  readonly store: FileBytes
  /** What answers said is kept, the latest last. */
  readonly acknowledged: Buffer[]
}

/** What a server does for one request; every one sends bytes of its own. */
const requests = {
  async append(server: Server) {
    await appending(server, async (appender, content) => {
      for (const bytes of [3, 4]) await send(server, appender, content, bytes)
    })
  },
  /** The last commit lets go; then nothing is left to be written by `close`. */
  async appendAndLetGo(server: Server) {
    await appending(server, (appender, content) => send(server, appender, content, 5, true))
  },
  async finish(server: Server) {
    await appending(server, async (appender, content) => {
      await send(server, appender, content, 2)
      const { offset } = appender.record.mark
      const rest = Buffer.alloc(length - offset, letterOf(server))
      await appender.write([rest], offset)
      await appender.finish(length)
      server.acknowledged.push(content())
    })
  },
}
type Request = keyof typeof requests
const appends = ['append', 'appendAndLetGo', 'finish'] as const

async function appending(
  server: Server,
  work: (appender: Appender, content: () => Buffer) => Promise<void>,
): Promise<void> {
  const appender = await unlessSuperseded(server.store.open(id))
  if (!appender) return
  let content = Buffer.alloc(0)
  for await (const bytes of appender.read(0, appender.record.mark.offset))
    content = Buffer.concat([content, bytes])
  const grow = () => {
    const { offset } = appender.record.mark
    content = Buffer.concat([content, Buffer.alloc(offset - content.length, letterOf(server))])
    return content
  }
  await unlessSuperseded(work(appender, grow))
  await appender.close()
}

async function send(
  server: Server,
  appender: Appender,
  content: () => Buffer,
  bytes: number,
  last = false,
): Promise<void> {
  const { offset } = appender.record.mark
  if (offset + bytes >= length) return
  await appender.write([Buffer.alloc(bytes, letterOf(server))], offset)
  await appender.commit({ offset: offset + bytes, last })
  server.acknowledged.push(content())
}

function letterOf({ by }: Server): string {
  return 'ABCD'[by]!
}

async function unlessSuperseded<T>(work: Promise<T>): Promise<T | undefined> {
  return work.catch((error: unknown) => {
    if (error instanceof StoreError && error.code === 'superseded') return undefined
    throw error
  })
}

/** An upload with a few bytes whose writer let go, and servers that wait to be stepped. */
async function upload(folder: string, servers: number, generation = 0) {
  const store = new FileBytes({ directory: folder, durability: 'none' })
  let first = await store.create(headOf(id), length)
  await first.write([Buffer.from('___')], 0)
  await first.commit({ offset: 3 })
  for (let n = 0; n < generation; n++) {
    const other = new FileBytes({ directory: folder, durability: 'none' })
    const next = (await other.open(id))!
    await first.close()
    first = next
  }
  await first.close()
  const steps = new Steps()
  const all = Array.from({ length: servers }, (_, by): Server => {
    const fileSystem = steps.fileSystemOf(by)
    return {
      by,
      store: new FileBytes({ directory: folder, durability: 'none', fileSystem }),
      acknowledged: [],
    }
  })
  return { steps, servers: all, store }
}

/** All that any answer said is kept is a beginning of what is there. */
async function expectKept(store: FileBytes, servers: readonly Server[], isRemoved = false): Promise<void> {
  const record = await store.look(id)
  if (isRemoved && record === undefined) return
  const kept = await buffer(await store.read(record!, 0, record!.mark.offset))
  for (const { acknowledged } of servers)
    for (const content of acknowledged)
      expect(kept.subarray(0, content.length).toString()).toBe(content.toString())
  expect(kept.toString()).toMatch(/^___/)
}

describe('a server that is stopped before any file operation, and wakes up late', () => {
  for (const generation of [0, 2]) {
    it.each(appends)(
      `in generation ${generation}: %s`,
      async (request) => {
        for (const meanwhile of appends) {
          for (const isAlive of [false, true]) {
            let isOver = false
            for (let pause = 0; !isOver; pause++) {
              const folder = await makeFolder()
              const { steps, servers, store } = await upload(folder.path, 3, generation)
              const [paused, other, third] = servers as [Server, Server, Server]
              const late = requests[request](paused)
              for (let n = 0; n < pause && !isOver; n++) isOver = !(await steps.step(paused.by))
              // The other one is done when the paused one wakes up, or in the middle of its own request.
              const work = requests[meanwhile](other)
              for (let n = 0; n < (isAlive ? 16 : 1000) && (await steps.step(other.by)); n++);
              await steps.finish(paused.by, late)
              await steps.finish(other.by, work)
              await expectKept(store, servers)
              await steps.finish(third.by, requests.finish(third))
              await expectKept(store, servers)
              expect((await store.look(id))!.mark.state).toBe('finished')
              await store.remove(id)
              for (let n = 0; n < 3; n++) await store.sweepOrphans(-1)
              expect(await filesIn(folder.path)).toEqual([])
              await folder.remove()
            }
          }
        }
      },
      60_000,
    )
  }

  it('and two at once, in any places', async () => {
    for (let first = 0; first < 26; first++) {
      for (let second = 0; second < 26; second += 1) {
        const folder = await makeFolder()
        const { steps, servers, store } = await upload(folder.path, 3)
        const late = servers.slice(0, 2).map((server) => requests.appendAndLetGo(server))
        for (let n = 0; n < first; n++) await steps.step(0)
        for (let n = 0; n < second; n++) await steps.step(1)
        await steps.finish(2, requests.appendAndLetGo(servers[2]!))
        const order = (first + second) % 2 ? [0, 1] : [1, 0]
        for (const by of order) await steps.finish(by, late[by]!)
        await expectKept(store, servers)
        await folder.remove()
      }
    }
  }, 60_000)

  it('cannot bring an upload back that was removed meanwhile, nor can who removes it late take anything away', async () => {
    for (const generation of [0, 1]) {
      let isOver = false
      for (let pause = 0; !isOver; pause++) {
        const folder = await makeFolder()
        const { steps, servers, store } = await upload(folder.path, 3, generation)
        const late = requests.append(servers[0]!)
        for (let n = 0; n < pause && !isOver; n++) isOver = !(await steps.step(0))
        expect(await steps.finish(1, servers[1]!.store.remove(id))).toBe(true)
        await steps.finish(0, late)
        expect(await store.look(id)).toBeUndefined()
        for (let n = 0; n < 3; n++) await store.sweepOrphans(-1)
        expect(await filesIn(folder.path)).toEqual([])
        await folder.remove()
      }
      isOver = false
      for (let pause = 0; !isOver; pause++) {
        const folder = await makeFolder()
        const { steps, servers, store } = await upload(folder.path, 3, generation)
        const [remover, other] = servers as [Server, Server]
        let isHeld = true
        const late = unlessSuperseded(remover.store.remove(id, () => isHeld))
        for (let n = 0; n < pause && !isOver; n++) isOver = !(await steps.step(0))
        isHeld = false
        await steps.finish(1, requests.append(other))
        await steps.finish(0, late)
        // Bytes that were acknowledged after the removal had begun outlive it.
        await expectKept(store, servers, other.acknowledged.length === 0)
        await folder.remove()
      }
    }
  }, 60_000)
})

it('whatever the order of the file operations of three servers without a lock, what was acknowledged is kept', async () => {
  const folder = await temporaryFolder()
  let turn = 0
  const plan = fc.record({
    requests: fc.array(fc.constantFrom<Request>(...appends), { minLength: 3, maxLength: 3 }),
    // Whose turn it is, and for how many operations.
    order: fc.array(fc.tuple(fc.nat(2), fc.integer({ min: 1, max: 12 })), { minLength: 5, maxLength: 40 }),
    generation: fc.nat(1),
  })
  const property = fc.asyncProperty(plan, async ({ requests: asked, order, generation }) => {
    const own = `${folder}/${turn++}`
    const made = new FileBytes({ directory: own, durability: 'none' })
    await made.start()
    const { steps, servers, store } = await upload(own, 3, generation)
    const running = asked.map((request, by) => requests[request](servers[by]!))
    for (const [by, count] of order) for (let n = 0; n < count && (await steps.step(by)); n++);
    for (const by of [0, 1, 2]) await steps.finish(by, running[by]!)
    await expectKept(store, servers)
  })
  await fc.assert(property, { numRuns: 400, interruptAfterTimeLimit: 20_000 })
}, 60_000)
