import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { alias: { tidemark: new URL('./server/index.ts', import.meta.url).pathname } },
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Two cores carry the tests, the servers they start and a browser; more files at once only makes them wait for each other.
    maxWorkers: 2,
  },
})
