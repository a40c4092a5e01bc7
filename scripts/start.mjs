// `npm start`: prepares what is missing, then is the server itself. One process for both, because starting another one
// would take a tenth of the second in which a server is to be listening, and would stand between it and signals.

import { prepare } from './preparation.mjs'

try {
  await prepare('start')
} catch (error) {
  process.stderr.write(`tidemark: ${error instanceof Error ? error.message : error}\n`)
  process.exit(1)
}
await import(new URL('../dist/server/main.js', import.meta.url).href)
