// A server that writes to one upload until it is told otherwise, or ends. For tests that stop and kill it.
// Arguments: folder, id, mode (`write`: on and on; `commit` | `finish`: waits for SIGUSR2 after two marks, then does it).

import { once } from 'node:events'
import { FileBytes } from '../../../stores/file/file-bytes.ts'

const [directory, id, mode] = process.argv.slice(2) as [string, string, 'write' | 'commit' | 'finish']
const block = 64 * 1024
const store = new FileBytes({ directory })
await store.start()
const appender = (await store.open(id))!
const fill = (offset: number) => Buffer.alloc(block, 1 + ((offset / block) % 250))
const say = (line: string) => process.stdout.write(`${line}\n`)

let offset = appender.record.mark.offset
const step = async () => {
  await appender.write([fill(offset)], offset)
  offset += block
  await appender.commit({ offset })
  say(`marked ${offset}`)
}
if (mode === 'write') for (;;) await step()

await step()
await step()
const goOn = once(process, 'SIGUSR2')
say('waiting')
const keepAlive = setInterval(() => {}, 1000)
await goOn
clearInterval(keepAlive)
const { length } = appender.record.mark
try {
  const late = Buffer.alloc(length! - offset, 'L')
  await appender.write([late], offset)
  await appender.write([Buffer.alloc(block, 'L')], 0)
  if (mode === 'finish') await appender.finish(length!)
  else await appender.commit({ offset: length! - 1 })
  say('acknowledged')
} catch (error) {
  say(`failed ${(error as { code: string }).code}`)
}
await appender.close()
