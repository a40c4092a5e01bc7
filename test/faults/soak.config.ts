import { defineConfig } from 'vitest/config'

/** The soak runs by itself: `npm run soak -- --minutes 10`. */
export default defineConfig({
  test: {
    include: ['test/faults/soak.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    pool: 'forks',
    teardownTimeout: 15_000,
  },
})
