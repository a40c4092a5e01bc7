// Loaded into the server under test: on SIGUSR2 it says what the process holds, after the garbage is gone.

process.on('SIGUSR2', () => {
  globalThis.gc?.()
  const resources = process.getActiveResourcesInfo()
  const count = (/** @type {string} */ kind) => resources.filter((resource) => resource === kind).length
  const { heapUsed, external, rss } = process.memoryUsage()
  const inside = {
    sockets: count('TCPSocketWrap'),
    timers: count('Timeout'),
    heapBytes: heapUsed + external,
    rssBytes: rss,
  }
  process.stdout.write(`${JSON.stringify({ inside })}\n`)
})
