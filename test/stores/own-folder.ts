// A process of its own that takes the folder of its first argument, or is a guest in it, says how that went, and stays until
// it is ended.
import { FolderGuest, FolderOwner } from '../../stores/local/folder-owner.ts'

try {
  const [folder, who] = process.argv.slice(2) as [string, string?]
  const options = { describe: 'a test' }
  await (who === 'guest' ? FolderGuest.enter(folder, options) : FolderOwner.take(folder, options))
  console.log('took it')
  setInterval(() => {}, 60_000)
} catch (error) {
  console.log(`refused: ${(error as Error).message}`)
}
