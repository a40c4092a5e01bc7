// Loaded into the server under test: on SIGUSR2 it says what the process holds, after the garbage is gone.

process.on('SIGUSR2', () => {
  globalThis.gc()
  const held = {}
  for (const kind of process.getActiveResourcesInfo()) held[kind] = (held[kind] ?? 0) + 1
  const { heapUsed, external, rss: rssBytes } = process.memoryUsage()
  process.stdout.write(`${JSON.stringify({ inside: { held, heapBytes: heapUsed + external, rssBytes } })}\n`)
})
