// A process of its own that takes the folder of its first argument, says how that went, and stays until it is ended.
import { FolderOwner } from '../../stores/local/folder-owner.ts'

try {
  await FolderOwner.take(process.argv[2]!, { describe: process.argv[3] ?? 'a test' })
  console.log('took it')
  setInterval(() => {}, 60_000)
} catch (error) {
  console.log(`refused: ${(error as Error).message}`)
}
