// `npm run soak -- --minutes 10 --seed 7`: the long fault test, by itself.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values } = parseArgs({ options: { minutes: { type: 'string' }, seed: { type: 'string' } } })
const minutes = Number(values.minutes ?? 10)
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31))
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  process.stderr.write('usage: npm run soak -- [--minutes 10] [--seed 7]\n')
  process.exit(1)
}

const vitest = fileURLToPath(new URL('../node_modules/vitest/vitest.mjs', import.meta.url))
const config = fileURLToPath(new URL('../test/faults/soak.config.ts', import.meta.url))
const child = spawn(process.execPath, [vitest, 'run', '--config', config, '--root', '.'], {
  cwd: fileURLToPath(new URL('..', import.meta.url)),
  env: { ...process.env, SOAK_MINUTES: `${minutes}`, TEST_SEED: `${seed}` },
  stdio: 'inherit',
})
child.once('close', (code) => process.exit(code ?? 1))
