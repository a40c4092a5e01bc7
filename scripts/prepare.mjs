// The command line of the preparation: `node scripts/prepare.mjs start|test|build`.

import { prepare } from './preparation.mjs'

try {
  await prepare(process.argv[2])
} catch (error) {
  process.stderr.write(`tidemark: ${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
}
