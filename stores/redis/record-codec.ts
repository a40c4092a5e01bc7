/**
 * How a record stands in Redis: as arguments of the scripts that put it, and as entries of the indexes.
 */
import { StoreError, type UploadRecord } from '../contracts.ts'
import { digestEntriesOf } from '../digest-index.ts'
import { isListed } from '../listed.ts'
import type { RedisConnection } from './redis-connection.ts'
import type { Script } from './scripts.ts'

/** generation, sequence, expiresAt, body: the first arguments of every script that puts a record. */
export function putArgs(record: UploadRecord, expiresAt: number | undefined): (string | number)[] {
  const { generation, sequence } = record.mark
  return [generation, sequence, expiresAt ?? '', JSON.stringify(record)]
}

export function decodeRecord(id: string, body: string): UploadRecord {
  try {
    const record = JSON.parse(body) as UploadRecord
    if (typeof record.head.id === 'string' && typeof record.mark.offset === 'number') return record
  } catch {
    // Told below, as for any other text.
  }
  throw new StoreError('damaged', `The record of upload ${id} in Redis cannot be read.`)
}

/**
 * Runs a script that puts a record, with its index entries sent before it in the same write. The entries are hints:
 * when they fail alone, the walk of the uploads puts them back.
 */
export async function putWithHints(
  connection: RedisConnection,
  put: { script: Script; keys: string[]; args: (string | number)[] },
  record: UploadRecord,
  expiresAt: number | undefined,
): Promise<void> {
  const reply = await connection.batch(() => {
    void putHints(connection, record, expiresAt)
    return connection.runScript(put.script, put.keys, put.args)
  })
  const [isPut, newerExpiresAt] = reply as [number, string?]
  if (isPut === 1) connection.news.feed.tell({ is: 'put', record })
  else await putExpiry(connection, record.head.id, newerExpiresAt ? Number(newerExpiresAt) : undefined)
}

/** Sends the index entries of an upload. Never fails. */
export async function putHints(
  connection: RedisConnection,
  record: UploadRecord,
  expiresAt: number | undefined,
): Promise<void> {
  const { head } = record
  const { recent } = connection.keys
  const indexes = [
    recent,
    ...(head.owner !== undefined && isListed(head) ? [connection.keys.owned(head.owner)] : []),
    ...digestEntriesOf(record).map((entry) => connection.keys.digest(entry)),
  ]
  const added = indexes.map((index) =>
    connection.run((redis) => redis.zadd(index, head.createdAt, head.id)).catch(() => {}),
  )
  await Promise.all([...added, putExpiry(connection, head.id, expiresAt)])
}

async function putExpiry(
  connection: RedisConnection,
  id: string,
  expiresAt: number | undefined,
): Promise<void> {
  const { expiry } = connection.keys
  await connection
    .run<unknown>((redis) =>
      expiresAt === undefined ? redis.zrem(expiry, id) : redis.zadd(expiry, expiresAt, id),
    )
    .catch(() => {})
}
