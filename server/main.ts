#!/usr/bin/env node
/**
 * The process: from arguments to a listening server, and from a signal to its end. The only file that touches
 * process.env and exit. What is not needed for an answer in words is loaded only after the settings were found good.
 *
 * Exit codes: 0 ended as asked; 1 could not start, failed, could not end in time, or a second signal; 2 wrong settings.
 */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import type { Logger } from 'pino'
import { asksFor, type Config, loadConfig, SettingError } from './config.ts'
import { checkFolder, listenError, removeStaleSocket, StartError, storeError } from './host/start-checks.ts'
import { withoutSecrets } from './setting-kinds.ts'

try {
  await main(process.argv.slice(2))
} catch (error) {
  const isExpected = error instanceof SettingError || error instanceof StartError
  process.stderr.write(`tidemark: ${isExpected ? error.message : String((error as Error)?.stack ?? error)}\n`)
  process.exit(error instanceof SettingError ? 2 : 1)
}

async function main(argv: readonly string[]): Promise<void> {
  const question = asksFor(argv)
  if (question !== undefined) return answer(question)

  const config = loadConfig(argv, process.env)
  const [{ makeLogger }, { assemble }, { buildApp, closeWithin }, { default: closeWithGrace }] =
    await Promise.all([
      import('./host/logger.ts'),
      import('./assemble.ts'),
      import('./app.ts'),
      import('close-with-grace'),
    ])
  await checkFolder(config)
  const logger = await makeLogger(config, process.stdout.isTTY)
  const uploads = await assemble(config, logger).catch((cause: unknown) => {
    throw storeError(config, cause)
  })
  const page = config.showPage ? await loadPage(config) : undefined
  const app = buildApp({ config, uploads, logger, ...(page && { page }) })
  await listen(app, config).catch(async (error: unknown) => {
    await app.close()
    throw error
  })

  closeWithGrace(
    {
      delay: config.shutdownTimeoutMs,
      logger: false,
      // A fault of the machine has no graceful end, and SIGUSR2 asks for no end at all.
      skip: ['SIGILL', 'SIGTRAP', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGSEGV', 'SIGUSR2'],
      onTimeout: () => logger.error('could not end in time'),
      onSecondSignal: (signal) => logger.warn(`second ${signal}: leaving at once`),
      onSecondError: (err) => logger.fatal({ err }, 'failed while ending'),
    },
    async ({ signal, err }) => {
      if (err) logger.fatal({ err }, 'failed unexpectedly; ending')
      else logger.info(`${signal}: ending; running uploads are kept as far as they came`)
      await closeWithin(app, config.shutdownTimeoutMs)
      logger.info('ended')
    },
  )
  sayWhere(app, config, logger)
}

function answer(question: 'help' | 'version'): Promise<void> | void {
  const version = readVersion()
  if (question === 'version') return void process.stdout.write(`${version}\n`)
  return import('./help.ts').then(({ helpText }) => void process.stdout.write(helpText(version)))
}

async function listen(app: FastifyInstance, config: Config): Promise<void> {
  const { host, port, unixSock } = config
  if (unixSock !== undefined) await removeStaleSocket(unixSock)
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
  const { basePath: endpoint, maxSizeBytes, disableDownload, disableTermination } = config
  const maxSize = maxSizeBytes > 0 ? { maxSize: maxSizeBytes } : {}
  const options = { root, endpoint, ...maxSize, disableDownload, disableTermination }
  return async (app) => void (await app.register(pages, options))
}

function sayWhere(app: FastifyInstance, config: Config, logger: Logger): void {
  const address = app.server.address()
  const port = typeof address === 'object' && address ? address.port : undefined
  const host = config.host.includes(':') ? `[${config.host}]` : config.host
  const where = config.unixSock ?? `http://${host}:${port}${config.basePath}`
  const uploadDir = resolve(config.uploadDir)
  const shared = config.redisUrl === undefined ? undefined : withoutSecrets(config.redisUrl)
  const coordination =
    shared === undefined ? 'embedded, without Redis' : `with locks and records in ${shared}`
  logger.info(
    { url: where, port, uploadDir, redis: shared },
    `Tidemark listens on ${where}, keeps uploads in ${uploadDir}, ${coordination}`,
  )
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
