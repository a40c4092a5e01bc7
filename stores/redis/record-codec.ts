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

/** Runs a script that puts a record, with its index entries in the same write. */
export async function putWithHints(
  connection: RedisConnection,
  put: { script: Script; keys: string[]; args: (string | number)[] },
  record: UploadRecord,
  expiresAt: number | undefined,
): Promise<void> {
  const reply = await connection.batch(() => {
    putHints(connection, record, expiresAt)
    return connection.runScript(put.script, put.keys, put.args)
  })
  const [isPut, newerExpiresAt] = reply as [number, string?]
  if (isPut === 1) connection.news.feed.tell({ is: 'put', record })
  else await correctExpiry(connection, record.head.id, newerExpiresAt ? Number(newerExpiresAt) : undefined)
}

/** Sends the index entries of an upload at the end of this turn. */
export function putHints(
  connection: RedisConnection,
  record: UploadRecord,
  expiresAt: number | undefined,
): void {
  const { head } = record
  const { recent, expiry } = connection.keys
  connection.hint(recent, head.id, head.createdAt)
  if (head.owner !== undefined && isListed(head))
    connection.hint(connection.keys.owned(head.owner), head.id, head.createdAt)
  for (const entry of digestEntriesOf(record))
    connection.hint(connection.keys.digest(entry), head.id, head.createdAt)
  connection.hint(expiry, head.id, expiresAt)
}

/** What was hinted is older than what is there. */
async function correctExpiry(
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
