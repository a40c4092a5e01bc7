import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { alias: { tidemark: new URL('./server/index.ts', import.meta.url).pathname } },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    // Processes, not threads: each file has its own signals and native handles (LMDB), and one that dies takes no other along.
    pool: 'forks',
    // Two cores carry the tests, the servers they start and a browser; more files at once only makes them wait for each
    // other. Where a failure costs most they have the machine for themselves: it takes twice as long.
    maxWorkers: process.env.CI ? 1 : 2,
    // No test is about these times; they end what hangs.
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 15_000,
  },
})
