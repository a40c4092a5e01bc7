/**
 * The primaries of a Redis Cluster: one connection each, and a map from slots to them.
 *
 * A command goes to the owner of its key, at once or not at all. It is sent again only when a node said that it did not
 * execute it (MOVED, ASK, TRYAGAIN), and never after a lost connection, which is why this is not ioredis's own Cluster:
 * that one queues commands for a node that is not there. When a primary is lost or says that a slot has moved, the map
 * is asked for anew; while a slot has no primary, several times a second.
 */
import { type Command, Redis } from 'ioredis'
import { type ClientOptions, closeClient, firstConnection, makeClient, placeOf } from './redis-client.ts'
import { describe, isTimeout, RedisFailure } from './redis-failure.ts'
import type { HomeEvents, RedisHome } from './redis-home.ts'
import { readSlots, type SlotRange } from './redis-slots.ts'
import type { RedisNode } from './redis-url.ts'

const SLOTS = 16_384
const MAX_REDIRECTIONS = 5
const TRY_AGAIN_MS = 25
const ASK_AGAIN_MS = 200
const START_TIMEOUT_MS = 1_500

export class RedisCluster implements RedisHome {
  readonly commands: Redis
  readonly #options: ClientOptions
  readonly #events: HomeEvents
  /** Connections to all primaries, by place. */
  readonly #clients = new Map<string, Redis>()
  /** The place of the primary of every slot. */
  #owners: (string | undefined)[] = []
  /** A node said that the Cluster as a whole is down. */
  #isDown = false
  #isAvailable = false
  readonly #firstAvailable = makeGate()
  #isClosed = false
  #reason = 'no node answers'
  #refreshing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(options: ClientOptions, events: HomeEvents) {
    this.#options = options
    this.#events = events
    this.commands = new Router((command) => this.#send(command))
  }

  /** Each command finds out by itself whether its server is there. */
  get isUsable(): boolean {
    return !this.#isClosed
  }

  get primaries(): readonly Redis[] {
    return [...this.#clients.values()]
  }

  async start(): Promise<Error | undefined> {
    let timer: NodeJS.Timeout | undefined
    const tooLate = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, START_TIMEOUT_MS)
    })
    const ready = this.#refresh().then(async () => {
      await Promise.all(this.primaries.map((client) => untilSettled(client, START_TIMEOUT_MS)))
      // Somebody answers: a node that has just come back may call the Cluster down for a moment more than others do.
      if (this.#owners.length > 0 && !this.#isAvailable) await this.#firstAvailable.promise
    })
    await Promise.race([ready, tooLate])
    clearTimeout(timer)
    if (this.#isAvailable) return undefined
    return new Error(this.#reason)
  }

  /** Whoever sends a command knows which connection it was. */
  onFailure(): void {}

  makeSubscriber(): Redis {
    const live = this.#nodes().filter((node) => this.#clients.get(placeOf(node))?.status === 'ready')
    const candidates = live.length > 0 ? live : this.#nodes()
    return makeClient(this.#options, candidates[Math.floor(Math.random() * candidates.length)]!, false)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    const clients = this.primaries
    this.#clients.clear()
    await Promise.all(clients.map(closeClient))
  }

  #send(command: Command): void {
    const reject = command.reject
    let redirections = 0
    let client: Redis | undefined
    let hasFailed = false
    const fail = (error: Error) => {
      hasFailed = true
      reject.call(command, error)
    }
    const sendTo = (to: Redis | undefined, isAsking = false) => {
      // Its time may have been over while it waited for another node: then nobody wants it done any more.
      if (hasFailed) return
      client = to
      if (to?.status !== 'ready') return fail(this.#away())
      if (isAsking) to.asking().catch(() => {})
      to.sendCommand(command)
    }
    const later = (to: Redis, isAsking: boolean) =>
      void untilSettled(to, this.#options.commandTimeoutMs).then(() => sendTo(to, isAsking))

    command.reject = (error) => {
      const [word, slot, place] = error.message.split(' ', 3) as [string, string?, string?]
      const isRefused = error.name === 'ReplyError' && redirections++ < MAX_REDIRECTIONS
      if (isTimeout(error)) client?.stream?.destroy()
      if (word === 'CLUSTERDOWN') this.#noticeDown()
      if (isRefused && word === 'MOVED') {
        const owner = this.#connectTo(nodeOf(place!, client!))
        this.#owners[Number(slot)] = keyOf(owner)
        void this.#refresh()
        return later(owner, false)
      }
      if (isRefused && word === 'ASK') return later(this.#connectTo(nodeOf(place!, client!)), true)
      if (isRefused && word === 'TRYAGAIN') return void setTimeout(() => sendTo(client), TRY_AGAIN_MS)
      fail(error)
    }
    const slot = command.getSlot()
    sendTo(slot === null ? this.#anyReady() : this.#clients.get(this.#owners[slot] ?? ''))
  }

  #away(): RedisFailure {
    const message = `Redis at ${this.#options.target.shown} is away: ${this.#reason}`
    return new RedisFailure('unavailable', message, { cause: undefined, mayHaveRun: false })
  }

  #anyReady(): Redis | undefined {
    const ready = this.primaries.filter(({ status }) => status === 'ready')
    return ready[Math.floor(Math.random() * ready.length)]
  }

  /** Every address that is known: the ones of the URL, and those that the Cluster named. */
  #nodes(): RedisNode[] {
    const known = this.primaries.map(({ options }) => ({ host: options.host!, port: options.port! }))
    const all = [...known, ...this.#options.target.nodes]
    return [...new Map(all.map((node) => [placeOf(node), node])).values()]
  }

  #connectTo(node: RedisNode): Redis {
    const place = placeOf(node)
    const known = this.#clients.get(place)
    if (known !== undefined) return known
    const client = makeClient(this.#options, node)
    this.#clients.set(place, client)
    const isCurrent = () => !this.#isClosed && this.#clients.get(place) === client
    let last: Error | undefined
    client.on('error', (error) => {
      last = error
    })
    client.on('ready', () => {
      last = undefined
      if (!isCurrent()) return
      this.#judge()
      this.#events.onReady(client)
    })
    client.on('close', () => {
      if (!isCurrent()) return
      this.#reason = `${place}: ${last === undefined ? 'the connection was closed' : describe(last)}`
      this.#judge()
    })
    client.connect().catch(() => {})
    return client
  }

  #noticeDown(): void {
    if (this.#isClosed) return
    this.#isDown = true
    this.#reason = 'the Cluster is down'
    this.#judge()
  }

  /** Asks a node for the map of slots; one question at a time. */
  #refresh(): Promise<void> {
    this.#refreshing ??= this.#ask()
      .then(
        (map) => {
          if (!this.#isClosed) this.#apply(map)
        },
        (error: unknown) => {
          this.#reason = describe(error)
        },
      )
      .then(() => {
        this.#refreshing = undefined
        if (!this.#isClosed) this.#judge()
      })
    return this.#refreshing
  }

  async #ask(): Promise<ClusterMap> {
    const ready = this.#anyReady()
    if (ready !== undefined) {
      const map = await readMap(ready).catch(() => undefined)
      if (map !== undefined) return map
    }
    // Nobody is left whom to ask first: whoever answers first, on a connection of its own.
    const asked = this.#nodes().map(async (node) => {
      const client = makeClient(this.#options, node, false)
      try {
        const failure = await firstConnection(client)
        if (failure !== undefined) throw failure
        return await readMap(client)
      } catch (error) {
        throw new Error(`${placeOf(node)}: ${describe(error)}`)
      } finally {
        client.disconnect()
      }
    })
    return await Promise.any(asked)
  }

  #apply({ ranges, isDown }: ClusterMap): void {
    const owners: (string | undefined)[] = new Array(SLOTS)
    const places = new Set<string>()
    for (const { first, last, node } of ranges) {
      const place = keyOf(this.#connectTo(node))
      places.add(place)
      owners.fill(place, first, last + 1)
    }
    this.#owners = owners
    this.#isDown = isDown
    if (isDown) this.#reason = 'the Cluster is down'
    for (const [place, client] of this.#clients) {
      if (places.has(place)) continue
      this.#clients.delete(place)
      client.disconnect()
    }
  }

  /** Whether every slot has a primary that is connected. */
  #judge(): void {
    const isAvailable = !this.#isDown && this.#hasAllSlots()
    if (isAvailable !== this.#isAvailable) {
      this.#isAvailable = isAvailable
      if (isAvailable) this.#firstAvailable.open()
      if (isAvailable) this.#events.onAvailable()
      else this.#events.onAway(this.#reason)
    }
    clearTimeout(this.#timer)
    this.#timer = isAvailable ? undefined : setTimeout(() => void this.#refresh(), ASK_AGAIN_MS)
  }

  #hasAllSlots(): boolean {
    const isReady = new Map([...this.#clients].map(([place, { status }]) => [place, status === 'ready']))
    for (let slot = 0; slot < SLOTS; slot++) {
      const place = this.#owners[slot]
      if (place !== undefined && isReady.get(place)) continue
      if (place === undefined && this.#owners.length > 0) this.#reason = `slot ${slot} has no primary`
      return false
    }
    return true
  }
}

/** Has all of ioredis's commands, and hands each one on instead of sending it. */
class Router extends Redis {
  readonly #send: (command: Command) => void

  constructor(send: (command: Command) => void) {
    super({ lazyConnect: true })
    this.#send = send
  }

  override sendCommand(command: Command): unknown {
    this.#send(command)
    return command.promise
  }
}

interface ClusterMap {
  readonly ranges: readonly SlotRange[]
  readonly isDown: boolean
}

async function readMap(client: Redis): Promise<ClusterMap> {
  const [slots, info] = await Promise.all([client.cluster('SLOTS'), client.cluster('INFO')])
  return {
    ranges: readSlots(slots, client.options.host!),
    isDown: !String(info).includes('cluster_state:ok'),
  }
}

/** `host:port`, or `:port` on the host of the node that says so. */
function nodeOf(place: string, sayer: Redis): RedisNode {
  const colon = place.lastIndexOf(':')
  return { host: place.slice(0, colon) || sayer.options.host!, port: Number(place.slice(colon + 1)) }
}

function keyOf({ options }: Redis): string {
  return placeOf({ host: options.host!, port: options.port! })
}

function makeGate(): { readonly promise: Promise<void>; open(): void } {
  let open = () => {}
  const promise = new Promise<void>((resolve) => {
    open = resolve
  })
  return { promise, open }
}

/** Returns when the connection is ready or has failed, or after `withinMs`. */
function untilSettled(client: Redis, withinMs: number): Promise<void> {
  return new Promise((resolve) => {
    if (client.status === 'ready' || client.status === 'end') return resolve()
    const settle = () => {
      clearTimeout(timer)
      client.off('ready', settle)
      client.off('close', settle)
      resolve()
    }
    const timer = setTimeout(settle, withinMs)
    client.once('ready', settle)
    client.once('close', settle)
  })
}
