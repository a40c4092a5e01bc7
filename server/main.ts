#!/usr/bin/env node
/**
 * The process: from arguments to a listening server, and from a signal to its end. The only file that touches
 * process.env and exit. What is not needed for an answer in words is loaded only after the settings were found good.
 * With several workers it is started once more for each of them (server/workers/primary.ts).
 *
 * With the name of a command as its first argument it does that one thing, and ends (server/commands).
 *
 * Exit codes: 0 ended as asked; 1 could not start, failed, could not end in time, or a second signal; 2 wrong settings.
 */
import cluster from 'node:cluster'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import type { Logger } from 'pino'
import type { Gate } from './access/gate.ts'
import { isOpenToAll, openToAll } from './access/open-to-all.ts'
import { type Command, commandOf } from './commands/index.ts'
import { asksFor, type Config, loadConfig, SettingError } from './config.ts'
import {
  checkFolder,
  checkHooks,
  listenError,
  metricsListenError,
  removeStaleSocket,
  StartError,
  storeError,
} from './host/start-checks.ts'
import type { Uploads } from './open-uploads.ts'
import { withoutSecrets } from './setting-kinds.ts'
import { hasUploadsApi } from './settings/paths.ts'
import type { WorkerLink } from './workers/worker-link.ts'

const link = await linkToPrimary()
try {
  await main(process.argv.slice(2))
} catch (error) {
  const isExpected = error instanceof SettingError || error instanceof StartError
  const message = isExpected ? error.message : String((error as Error)?.stack ?? error)
  if (link) link.refuse(message)
  else {
    process.stderr.write(`tidemark: ${message}\n`)
    process.exit(error instanceof SettingError ? 2 : 1)
  }
}

async function main(argv: readonly string[]): Promise<void> {
  const command = link ? undefined : commandOf(argv)
  if (command !== undefined) return runCommand(command, argv.slice(1))
  const question = asksFor(argv)
  if (question !== undefined) return answer(question)

  const config = loadConfig(argv, process.env)
  const count = config.workers === 'auto' ? availableParallelism() : config.workers
  await (link === undefined && count > 1 ? leadWorkers(config, count) : serve(config))
}

async function runCommand(load: Command, argv: readonly string[]): Promise<void> {
  const { run } = await load()
  process.exitCode = await run(argv, {
    env: process.env,
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
  })
}

async function serve(config: Config): Promise<void> {
  const [
    { makeLogger },
    { assemble },
    { buildApp, closeWithin },
    { GateError, logGateEvent, openGate },
    { Metrics, textOf },
    { endOnSignal },
  ] = await Promise.all([
    import('./host/logger.ts'),
    import('./assemble.ts'),
    import('./app.ts'),
    import('./access/open-gate.ts'),
    import('./metrics/metrics.ts'),
    import('./host/leave.ts'),
  ])
  if (!link) await checkMachine(config)
  const logger = await makeLogger(config, process.stdout.isTTY, link?.number)
  const gate = await openGate(config, (event) => logGateEvent(logger, event)).catch((cause: unknown) => {
    throw cause instanceof GateError ? new StartError(cause.message, { cause }) : cause
  })
  const metrics = new Metrics({ version: readVersion(), hasRedis: config.redisUrl !== undefined })
  link?.onMeasure(() => metrics.measure())
  const read = async () => textOf(link ? await link.gather() : [await metrics.measure()])
  const uploads = await assemble(config, logger, { team: link, gate, metrics }).catch((cause: unknown) => {
    throw storeError(config, cause)
  })
  const page = config.showPage ? await loadPage(config) : undefined
  const uploadsApi = await loadUploadsApi(config, uploads, gate)
  const { exposeMetrics, metricsPath, metricsPort } = config
  const isOnOwnPort = metricsPort !== undefined
  const app = buildApp({
    ...{ config, uploads, logger, gate, uploadsApi, ...(page && { page }) },
    requests: metrics.requests,
    ...(exposeMetrics && !isOnOwnPort && { metrics: { path: metricsPath, read } }),
  })
  if (!link && config.unixSock !== undefined) await removeStaleSocket(config.unixSock)
  const listening = listen(app, config).then(() => (link ? undefined : openMetrics(config, logger, read)))
  // A signal may come before it listens, and is answered with an end in order too.
  const end = async () => {
    const closeMetrics = await listening.catch(() => undefined)
    await closeWithin(app, config.shutdownTimeoutMs)
    await closeMetrics?.()
  }
  // What all workers do together is told by their primary.
  const level = link ? 'debug' : 'info'
  const closing = endOnSignal({
    ...{ logger, level, delayMs: config.shutdownTimeoutMs, end },
    isBusy: () => uploads.isBusy(),
  })
  await listening.catch(async (error: unknown) => {
    await app.close()
    throw error
  })
  link?.onStop(() => closing.close())
  if (closing.isEnding) return
  const port = portOf(app)
  if (link) link.listening(port)
  else sayWhere(port, config, logger)
}

async function checkMachine(config: Config): Promise<void> {
  await checkFolder(config)
  await checkHooks(config)
}

async function leadWorkers(config: Config, count: number): Promise<void> {
  const [{ makeLogger }, { Primary }, { endOnSignal }] = await Promise.all([
    import('./host/logger.ts'),
    import('./workers/primary.ts'),
    import('./host/leave.ts'),
  ])
  await checkMachine(config)
  const logger = await makeLogger(config, process.stdout.isTTY)
  if (config.unixSock !== undefined) await removeStaleSocket(config.unixSock)
  const program = fileURLToPath(import.meta.url)
  const primary = await Primary.open({ config, count, logger, program }).catch((cause: unknown) => {
    throw storeError(config, cause)
  })
  let closeMetrics: (() => Promise<void>) | undefined
  const end = async () => {
    await closeMetrics?.()
    if (!(await primary.stop())) throw new Error('a worker did not end in order')
  }
  // The workers keep the time; those that do not are ended by the primary. One listens before the other does.
  endOnSignal({ logger, level: 'info', delayMs: config.shutdownTimeoutMs * 2 + 1000, end })
  if (!(await primary.listen())) return
  const read = async () => (await import('./metrics/metrics.ts')).textOf(await primary.gather())
  closeMetrics = await openMetrics(config, logger, read).catch(async (error: unknown) => {
    await primary.stop()
    throw error
  })
  sayWhere(primary.port, config, logger, count)
}

/** Where the metrics have a port of their own. Gives what closes it. */
async function openMetrics(
  config: Config,
  logger: Logger,
  read: () => Promise<string>,
): Promise<(() => Promise<void>) | undefined> {
  const { exposeMetrics, metricsHost: host, metricsPort: port, metricsPath: path } = config
  if (!exposeMetrics || port === undefined) return undefined
  const { openMetricsPort } = await import('./metrics/endpoint.ts')
  const own = await openMetricsPort({ host, port }, { path, read }).catch((cause: unknown) => {
    throw metricsListenError({ host, port }, cause)
  })
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${own.port}${path}`
  logger.info({ url, port: own.port }, `Metrics are at ${url}`)
  return own.close
}

/** Where this process is a worker of another one of this program. */
async function linkToPrimary(): Promise<WorkerLink | undefined> {
  if (!cluster.isWorker) return undefined
  const [{ WorkerLink }, { workerVariable }] = await Promise.all([
    import('./workers/worker-link.ts'),
    import('./workers/messages.ts'),
  ])
  const number = Number(process.env[workerVariable])
  return number > 0 ? new WorkerLink(number, process) : undefined
}

function answer(question: 'help' | 'version'): Promise<void> | void {
  const version = readVersion()
  if (question === 'version') return void process.stdout.write(`${version}\n`)
  return import('./help.ts').then(({ helpText }) => void process.stdout.write(helpText(version)))
}

async function listen(app: FastifyInstance, config: Config): Promise<void> {
  const { host, port, unixSock } = config
  // What a plugin fails with has nothing to do with addresses, and is not to be told as such.
  await app.ready()
  try {
    await app.listen(unixSock === undefined ? { host, port } : { path: unixSock })
  } catch (error) {
    throw listenError(config, error)
  }
}

async function loadPage(config: Config): Promise<FastifyPluginAsync> {
  const { pages } = await import('./host/pages.ts')
  // Beside the built server, or in dist/ while the sources run themselves.
  const isBuilt = import.meta.url.endsWith('.js')
  const root = fileURLToPath(new URL(isBuilt ? '../web' : '../dist/web', import.meta.url))
  const { basePath: endpoint, maxSizeBytes, disableDownload, disableTermination, auth } = config
  const maxSize = maxSizeBytes > 0 ? { maxSize: maxSizeBytes } : {}
  const disableProgress = !hasUploadsApi(config)
  const instantUpload = config.digest === 'never' ? 'off' : config.instantUpload
  const disabled = { disableDownload, disableTermination, disableProgress }
  const options = { root, endpoint, ...maxSize, ...disabled, auth, instantUpload }
  return async (app) => void (await app.register(pages, options))
}

async function loadUploadsApi(
  config: Config,
  uploads: Uploads,
  gate: Gate | undefined,
): Promise<FastifyPluginAsync | undefined> {
  if (!hasUploadsApi(config)) return undefined
  const [{ uploadsApi, hostCors }, { whoAsksBy }] = await Promise.all([
    import('./host/uploads-api.ts'),
    import('./access/who-asks.ts'),
  ])
  const { corsAllowOrigin } = config
  const options = {
    uploads,
    ...(gate && { whoAsks: whoAsksBy(gate) }),
    withoutLists: config.uploadsApi === 'named',
    corsHeaders: (origin: string | undefined) => hostCors(corsAllowOrigin, origin),
  }
  return async (app) => void (await app.register(uploadsApi, options))
}

/** Undefined for a UNIX socket. */
function portOf(app: FastifyInstance): number | undefined {
  const address = app.server.address()
  return typeof address === 'object' && address ? address.port : undefined
}

function sayWhere(port: number | undefined, config: Config, logger: Logger, workers?: number): void {
  const host = config.host.includes(':') ? `[${config.host}]` : config.host
  const where = config.unixSock ?? `http://${host}:${port}${config.basePath}`
  const uploadDir = resolve(config.uploadDir)
  const shared = config.redisUrl === undefined ? undefined : withoutSecrets(config.redisUrl)
  const coordination =
    shared === undefined ? 'embedded, without Redis' : `with locks and records in ${shared}`
  logger.info(
    { url: where, port, uploadDir, redis: shared, workers },
    `Tidemark listens on ${where}, keeps uploads in ${uploadDir}, ${coordination}`,
  )
  if (isOpenToAll(config)) logger.warn({ auth: config.auth, host: config.host }, openToAll)
}

/** package.json is one folder up from the sources, two from what was built of them. */
function readVersion(): string {
  for (const path of ['../package.json', '../../package.json']) {
    try {
      return (JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as { version: string }).version
    } catch {
      // The other one, then.
    }
  }
  return 'unknown'
}
