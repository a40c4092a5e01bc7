/**
 * SHA-256 of files, in a worker that is started with the first of them. Nobody has to have a digest: what can not be
 * hashed is undefined, and no error.
 */
import type { DigestNews } from './digest-worker.ts'

export class Digester {
  #worker: Worker | undefined
  #isBroken = false

  /** False when no worker can be had here: then there is no sense in handing it another file. */
  get isOfUse(): boolean {
    return !this.#isBroken
  }

  /** Ends early, and with it the reading of the file, when `signal` does. */
  sha256(file: Blob, signal: AbortSignal, onRead: (bytes: number) => void): Promise<string | undefined> {
    if (signal.aborted || this.#isBroken) return Promise.resolve(undefined)
    return new Promise((resolve) => {
      const worker = this.#started()
      const end = (sha256?: string) => {
        signal.removeEventListener('abort', stop)
        resolve(sha256)
      }
      const stop = () => {
        this.close()
        end()
      }
      const fail = () => {
        this.#isBroken = true
        stop()
      }
      signal.addEventListener('abort', stop)
      if (worker === undefined) return fail()
      worker.onerror = fail
      worker.onmessage = ({ data }: MessageEvent<DigestNews>) => {
        if (data.is === 'read') onRead(data.bytes)
        else if (data.is === 'broken') fail()
        else end(data.is === 'done' ? data.sha256 : undefined)
      }
      worker.postMessage(file)
    })
  }

  close(): void {
    this.#worker?.terminate()
    this.#worker = undefined
  }

  #started(): Worker | undefined {
    try {
      this.#worker ??= new Worker(new URL('./digest-worker.ts', import.meta.url), { type: 'module' })
    } catch {
      // A browser without module workers.
    }
    return this.#worker
  }
}
