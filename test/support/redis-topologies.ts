// Redis as it is run where it must not go away: a primary with a replica and three sentinels, or a Cluster of three
// primaries with a replica each. Real processes on free loopback ports; every server can be killed and started again.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { programPath } from '../../scripts/test-programs.mjs'
import { type Child, startChild, stopChild } from './child.ts'
import { makeFolder } from './folder.ts'
import { freePort } from './free-port.ts'
import { type RedisServer, startRedis } from './redis.ts'

/** Long enough that two busy cores do not make a failover by themselves. */
const downAfterMs = 1_000
const nodeTimeoutMs = 1_500
export const primaryName = 'tide-primary'

export type Sentinels = {
  /** `redis+sentinel://...`, with all three. */
  url: string
  servers: RedisServer[]
  sentinels: Sentinel[]
  /** The one that the sentinels name now. */
  primary: () => Promise<RedisServer>
  /** Resolves when the sentinels name another one than `old`. */
  untilFailover: (old: RedisServer) => Promise<RedisServer>
  stop: () => Promise<void>
}

type Sentinel = { port: number; child: Child }

export async function startSentinels({ replicas = 1 } = {}): Promise<Sentinels> {
  const first = await startRedis()
  const replicaOf = ['--replicaof', '127.0.0.1', String(first.port), ...quickSync]
  const others = await Promise.all(Array.from({ length: replicas }, () => startRedis({ args: replicaOf })))
  const servers = [first, ...others]
  const folder = await makeFolder()
  const sentinels: Sentinel[] = []
  for (let n = 0; n < 3; n++) {
    const port = await freePort()
    const file = join(folder.path, `sentinel-${n}.conf`)
    await writeFile(file, sentinelSettings(port, folder.path, first.port))
    const child = startChild(programPath('redis'), [file, '--sentinel'])
    sentinels.push({ port, child })
  }
  const named = () => askSentinels(sentinels)
  const knowAll = new RegExp(`status=ok.*slaves=${replicas},sentinels=3`)
  await until('three sentinels that know each other and the replicas', async () => {
    const states = await Promise.all(sentinels.map(({ port }) => ask(port, ['INFO', 'sentinel'])))
    return states.every((state) => knowAll.test(state))
  })
  return {
    url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${primaryName}`,
    servers,
    sentinels,
    primary: async () => byPort(servers, await named()),
    async untilFailover(old) {
      await until('another primary', async () => {
        const port = await named().catch(() => old.port)
        if (port === old.port) return false
        return /^role:master/m.test(await ask(port, ['INFO', 'replication']))
      })
      return byPort(servers, await named())
    },
    async stop() {
      await Promise.all(sentinels.map(({ child }) => stopChild(child, 1_000)))
      await Promise.all(servers.map((server) => server.stop()))
      await folder.remove()
    },
  }
}

export type Cluster = {
  /** `redis+cluster://...`, with two of its nodes. */
  url: string
  nodes: RedisServer[]
  /** The node that answers for `key` now, as a live node sees it. */
  ownerOf: (key: string) => Promise<RedisServer>
  /** Resolves when another node than `old` answers for `key`, and the Cluster is well. */
  untilFailover: (old: RedisServer, key: string) => Promise<RedisServer>
  /** Resolves when every node says that all is well: one that came back says so later than the others. */
  untilWell: () => Promise<void>
  stop: () => Promise<void>
}

export type ClusterOptions = {
  /** Of each primary; none when nobody is to be killed: it starts sooner then. */
  replicas?: 0 | 1
  /** Further settings of node `n`. */
  argsOf?: (n: number) => string[]
}

export async function startCluster({ replicas = 1, argsOf }: ClusterOptions = {}): Promise<Cluster> {
  const folders = await Promise.all(Array.from({ length: 3 + 3 * replicas }, () => makeFolder()))
  const nodes = await Promise.all(
    folders.map(async ({ path }, n) =>
      startRedis({
        persistIn: path,
        args: [...clusterSettings(await freePort()), ...quickSync, ...(argsOf?.(n) ?? [])],
      }),
    ),
  )
  const ports = nodes.map(({ port }) => port)
  await join3(nodes)
  for (const [n, node] of nodes.slice(3).entries()) {
    const id = await ask(nodes[n % 3]!.port, ['CLUSTER', 'MYID'])
    await until('a node that knows its primary', async () =>
      (await ask(node.port, ['CLUSTER', 'NODES'])).includes(id),
    )
    await ask(node.port, ['CLUSTER', 'REPLICATE', id])
  }
  const untilWell = () =>
    until('a Cluster that is well', async () => {
      const states = await Promise.all(ports.map((port) => clusterState(port)))
      return states.every((state) => state.isOk && state.size === nodes.length)
    })
  await untilWell()
  await until('replicas that are connected', async () => {
    const roles = await Promise.all(ports.slice(3).map((port) => ask(port, ['INFO', 'replication'])))
    return roles.every((info) => /master_link_status:up/.test(info))
  })
  const owner = async (key: string, without?: RedisServer): Promise<RedisServer | undefined> => {
    for (const node of nodes) {
      if (node === without) continue
      const port = await ownerPort(node.port, key).catch(() => undefined)
      if (port !== undefined) return byPort(nodes, port)
    }
    return undefined
  }
  return {
    url: `redis+cluster://${ports
      .slice(0, 2)
      .map((port) => `127.0.0.1:${port}`)
      .join(',')}`,
    nodes,
    untilWell,
    async ownerOf(key) {
      return (await owner(key))!
    },
    async untilFailover(old, key) {
      const others = ports.filter((port) => port !== old.port)
      await until('another owner', async () => {
        const now = await owner(key, old)
        if (now === undefined || now === old) return false
        const states = await Promise.all(others.map((port) => clusterState(port)))
        return states.every(({ isOk }) => isOk)
      })
      return (await owner(key, old))!
    },
    async stop() {
      await Promise.all(nodes.map((node) => node.stop()))
      await Promise.all(folders.map((folder) => folder.remove()))
    },
  }
}

const quickSync = ['--repl-diskless-sync-delay', '0']

function sentinelSettings(port: number, dir: string, primaryPort: number): string {
  return `port ${port}
bind 127.0.0.1
dir ${dir}
sentinel monitor ${primaryName} 127.0.0.1 ${primaryPort} 2
sentinel down-after-milliseconds ${primaryName} ${downAfterMs}
sentinel failover-timeout ${primaryName} 2000
sentinel parallel-syncs ${primaryName} 1
`
}

function clusterSettings(busPort: number): string[] {
  return [
    ...['--cluster-enabled', 'yes', '--cluster-node-timeout', String(nodeTimeoutMs)],
    ...['--cluster-port', String(busPort), '--cluster-config-file', 'nodes.conf'],
    ...['--cluster-replica-validity-factor', '0'],
  ]
}

async function join3(nodes: RedisServer[]): Promise<void> {
  const [first] = nodes
  const bounds = [0, 5461, 10_923, 16_384]
  for (const [n, { port }] of nodes.entries()) {
    // Without an epoch of its own each begins with the same one, and they settle it between them later.
    await ask(port, ['CLUSTER', 'SET-CONFIG-EPOCH', String(n + 1)])
    if (n < 3) {
      await ask(port, ['CLUSTER', 'ADDSLOTSRANGE', String(bounds[n]), String(bounds[n + 1]! - 1)])
    }
  }
  const busPort = (await ask(first!.port, ['CONFIG', 'GET', 'cluster-port'])).split(',')[1]!
  for (const { port } of nodes.slice(1)) {
    await ask(port, ['CLUSTER', 'MEET', '127.0.0.1', String(first!.port), busPort])
  }
}

async function clusterState(port: number): Promise<{ isOk: boolean; size: number }> {
  const info = await ask(port, ['CLUSTER', 'INFO'])
  return {
    isOk: info.includes('cluster_state:ok'),
    size: Number(/cluster_known_nodes:(\d+)/.exec(info)?.[1]),
  }
}

async function ownerPort(port: number, key: string): Promise<number | undefined> {
  const client = makeClient(port)
  try {
    const slot = (await client.cluster('KEYSLOT', key)) as number
    const rows = (await client.cluster('SLOTS')) as unknown as [number, number, [string, number]][]
    return rows.find(([first, last]) => first <= slot && slot <= last)?.[2][1]
  } finally {
    client.disconnect()
  }
}

async function askSentinels(sentinels: Sentinel[]): Promise<number> {
  for (const { port, child } of sentinels) {
    if (child.hasExited()) continue
    const [, primary] = (await ask(port, ['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', primaryName])).split(',')
    return Number(primary)
  }
  throw new Error('no sentinel is left')
}

/** One question on a connection of its own; lists come as words with commas between. */
async function ask(port: number, [command, ...words]: string[]): Promise<string> {
  const client = makeClient(port)
  try {
    return String(await client.call(command!, ...words))
  } catch {
    return ''
  } finally {
    client.disconnect()
  }
}

function makeClient(port: number): Redis {
  const client = new Redis({
    port,
    enableReadyCheck: false,
    maxRetriesPerRequest: 0,
    commandTimeout: 1_000,
    retryStrategy: () => null,
  })
  return client.on('error', () => {})
}

function byPort(servers: RedisServer[], port: number): RedisServer {
  const server = servers.find((one) => one.port === port)
  if (server === undefined) throw new Error(`nobody of the test's own listens on ${port}`)
  return server
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await sleep(50)
  }
}
