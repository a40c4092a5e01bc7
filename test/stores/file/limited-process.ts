// Writes past the limit on the size of files that its parent set. Argument: the folder.

import { FileBytes } from '../../../stores/file/file-bytes.ts'

process.on('SIGXFSZ', () => {})
const store = new FileBytes({ directory: process.argv[2]! })
await store.start()
const appender = await store.create({ id: 'a', createdAt: 1, dialect: 'tus' }, 8 << 20)
await appender.write([Buffer.alloc(65_536)], 0)
const code = await appender.write([Buffer.alloc(4 << 20)], 65_536).then(
  () => 'written',
  (error: unknown) => (error as { code: string }).code,
)
const { mark } = await appender.commit({ offset: 65_536, last: true })
await appender.close()
process.stdout.write(`${code} ${mark.offset}\n`)
