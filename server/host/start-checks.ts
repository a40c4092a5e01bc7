/**
 * What the machine must give before a server can start: a folder, a port, a Redis. When one is missing the start ends
 * at once, with a sentence that names the setting and its value; not with a stack, and not after a minute of retries.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, rm, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { StoreError } from '../../stores/contracts.ts'
import { RedisFailure } from '../../stores/redis/redis-failure.ts'
import type { Config } from '../config.ts'
import { withoutSecrets } from '../setting-kinds.ts'

/** The message is a whole sentence for whoever starts the server. */
export class StartError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'StartError'
  }
}

/** Makes the folder when it is not there, and proves that a file can be made in it. */
export async function checkFolder({ uploadDir }: Pick<Config, 'uploadDir'>): Promise<void> {
  const probe = join(uploadDir, `.probe-${randomUUID()}`)
  try {
    await makeFolder(resolve(uploadDir))
    await writeFile(probe, '', { flag: 'wx' })
    await rm(probe)
  } catch (cause) {
    throw new StartError(`--upload-dir "${uploadDir}" can not be used: ${inWords(cause)}`, { cause })
  }
}

/** Programs that are not there are not asked: were the folder misspelt, nobody would be. */
export async function checkHooks({ hooksDir }: Pick<Config, 'hooksDir'>): Promise<void> {
  if (hooksDir === undefined) return
  const why = await stat(hooksDir).then(
    (found) => (found.isDirectory() ? undefined : 'it is not a folder'),
    (error: unknown) => (codeOf(error) === 'ENOENT' ? 'it is not there' : inWords(error)),
  )
  if (why !== undefined) throw new StartError(`--hooks-dir "${hooksDir}" can not be used: ${why}`)
}

/** Not `mkdir` with `recursive`: of Node 20 it spins for ever where the system says ENOENT below a folder that is there. */
async function makeFolder(path: string): Promise<void> {
  const made = await mkdir(path).catch((error: unknown) => error)
  if (codeOf(made) === 'ENOENT' && dirname(path) !== path) {
    await makeFolder(dirname(path))
    await mkdir(path)
  } else if (made !== undefined && codeOf(made) !== 'EEXIST') {
    throw made
  }
}

/** A socket file that a killed server left behind would keep its successor from listening; one in use stays. */
export async function removeStaleSocket(path: string): Promise<void> {
  const isStale = await new Promise<boolean>((resolve) => {
    const probe = connect(path)
    probe
      .once('connect', () => resolve(false))
      .once('error', (error) => resolve(codeOf(error) === 'ECONNREFUSED'))
    probe.once('connect', () => probe.destroy())
  })
  if (isStale) await rm(path, { force: true })
}

/**
 * What the stores could not be opened with, in terms of the settings: Redis does not answer, the folder is in use, or
 * its records are damaged.
 */
export function storeError(
  { uploadDir, redisUrl }: Pick<Config, 'uploadDir' | 'redisUrl'>,
  cause: unknown,
): unknown {
  if (!(cause instanceof StoreError)) return cause
  if (cause instanceof RedisFailure && redisUrl !== undefined) {
    const why = inWords(cause.cause ?? cause)
    return new StartError(`--redis-url ${withoutSecrets(redisUrl)} can not be used: ${why}`, { cause })
  }
  return new StartError(`--upload-dir "${uploadDir}" can not be used: ${cause.message}`, { cause })
}

/** What `listen` failed with, in terms of the settings. */
export function listenError(config: Pick<Config, 'host' | 'port' | 'unixSock'>, cause: unknown): StartError {
  const { host, port, unixSock } = config
  const why = inWords(cause)
  if (unixSock !== undefined)
    return new StartError(`--unix-sock "${unixSock}" can not be used: ${why}`, { cause })
  const isHost = ['EADDRNOTAVAIL', 'ENOTFOUND', 'EAI_AGAIN', 'EINVAL'].includes(codeOf(cause) ?? '')
  return isHost
    ? new StartError(`--host "${host}" can not be used: ${why}`, { cause })
    : new StartError(`--port ${port} can not be used on ${host}: ${why}`, { cause })
}

/** The same for a port that is for metrics alone. */
export function metricsListenError(
  { host, port }: { host: string; port: number },
  cause: unknown,
): StartError {
  return new StartError(`--metrics-port ${port} can not be used on ${host}: ${inWords(cause)}`, { cause })
}

const words: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOTDIR: 'it is not a folder',
  EEXIST: 'it is not a folder',
  ENOENT: 'there is no such place, and it can not be made',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the quota is used up',
  EADDRINUSE: 'it is in use by another process',
  EADDRNOTAVAIL: 'it is not an address of this machine',
  ENOTFOUND: 'there is no such host',
  EAI_AGAIN: 'its name can not be looked up now',
  ECONNREFUSED: 'nothing listens there',
  ETIMEDOUT: 'no answer in time',
}

function inWords(error: unknown): string {
  const code = codeOf(error)
  if (code !== undefined) return words[code] ?? code
  const message = error instanceof Error ? error.message : String(error)
  if (/WRONGPASS|NOAUTH|invalid password/i.test(message)) return 'it refuses the user or the password'
  return message.split('\n', 1)[0]!
}

function codeOf(error: unknown): string | undefined {
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  return typeof code === 'string' ? code : undefined
}
