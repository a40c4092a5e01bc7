// One Redis server for the whole run. Tests get its address by `inject('redisUrl')` and keep apart by key prefixes;
// a test that stops or kills Redis starts its own (support/redis.ts).

import type { TestProject } from 'vitest/node'
import { startRedis } from './redis.ts'

declare module 'vitest' {
  interface ProvidedContext {
    redisUrl: string
  }
}

export default async function startSharedRedis(project: TestProject): Promise<() => Promise<void>> {
  const redis = await startRedis()
  project.provide('redisUrl', redis.url)
  return () => redis.stop()
}
