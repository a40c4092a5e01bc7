/**
 * Hashes one file at a time, beside the page, so that the page stays quick. A slice is read, hashed and let go: however
 * large the file is, no more than one slice of it is in memory.
 */
import { createSHA256 } from 'hash-wasm'

export type DigestNews =
  | { is: 'read'; bytes: number }
  | { is: 'done'; sha256: string }
  /** The file could not be read: it was changed, moved or taken away. */
  | { is: 'unreadable' }
  /** No file can be hashed here. */
  | { is: 'broken' }

const sliceBytes = 4 * 1024 * 1024

addEventListener('message', ({ data }: MessageEvent<Blob>) => void hash(data))

async function hash(file: Blob): Promise<void> {
  const hasher = await createSHA256().catch(() => undefined)
  if (hasher === undefined) return tell({ is: 'broken' })
  try {
    for (let at = 0; at < file.size; at += sliceBytes) {
      const slice = await file.slice(at, at + sliceBytes).arrayBuffer()
      hasher.update(new Uint8Array(slice))
      tell({ is: 'read', bytes: at + slice.byteLength })
    }
    tell({ is: 'done', sha256: hasher.digest('hex') })
  } catch {
    tell({ is: 'unreadable' })
  }
}

function tell(news: DigestNews): void {
  postMessage(news)
}
