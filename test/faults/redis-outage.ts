// A Redis of a test's own, and what servers say and do while it is away.

import { expect, onTestFinished, vi } from 'vitest'
import { type RedisServer, startRedis } from '../support/redis.ts'
import type { Fleet } from './fleet.ts'
import { send } from './wire-request.ts'

const MiB = 1024 * 1024
export const twenty = { uploads: 20, bytes: 2 * MiB, bytesPerSecond: MiB / 2, deadlineMs: 90_000 }
export const patience = { timeout: 15_000, interval: 50 }

export async function ownRedis(): Promise<RedisServer> {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  return redis
}

/** Every server says that it is not ready, and refuses in words that clients wait for. */
export async function expectAway(fleet: Fleet): Promise<void> {
  for (const url of fleet.urls) {
    await vi.waitFor(
      async () => expect(await send('GET', `${url}/health/ready`)).toMatchObject({ status: 503 }),
      patience,
    )
    const creation = await send('POST', `${url}/files/`, { headers: { 'Upload-Length': 1 } })
    expect(creation).toMatchObject({ status: 503, retryAfter: '1' })
  }
}

export async function expectBack(fleet: Fleet): Promise<void> {
  for (const url of fleet.urls)
    await vi.waitFor(
      async () => expect(await send('GET', `${url}/health/ready`)).toMatchObject({ status: 200 }),
      patience,
    )
}

/**
 * Beside the line of each request, a server says when Redis goes away and when it is back, and nothing more. On a machine
 * that has no time for it, Redis may go away once more than it was made to.
 */
export function expectFewWords(fleet: Fleet, outages: number): void {
  for (const server of fleet.servers) {
    const lines = server.logs().filter(({ msg }) => msg !== 'request')
    const changes = lines.filter(({ msg }) => /^Redis (?:answers|can not be reached)/.test(String(msg)))
    const aways = changes.filter(({ level }) => level === 'error')
    expect(aways.length).toBeGreaterThanOrEqual(outages)
    // Each is said once: the one follows the other.
    expect(changes.map(({ level }) => level)).toEqual(['info', ...aways.flatMap(() => ['error', 'info'])])
    const others = lines.filter(({ level, msg }) => level !== 'info' && !/Redis/.test(String(msg)))
    expect(others).toEqual([])
  }
}
