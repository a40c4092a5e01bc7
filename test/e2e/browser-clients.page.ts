// Runs in the browser: two tus clients, each as a function that uploads what the test's own server gives as /content.

import { getTusEnhancer, type TusOptions } from '@rpldy/tus-sender'
import { createUploader, UPLOADER_EVENTS } from '@rpldy/uploader'
import { DefaultHttpStack, type HttpStack, Upload } from 'tus-js-client'

const chunkSize = 2 * 1024 * 1024

/** Says every method but GET and POST in a header. tus-js-client by itself does so for PATCH alone. */
class OnlyPost implements HttpStack {
  readonly #inner = new DefaultHttpStack({})

  createRequest(method: string, url: string) {
    const request = this.#inner.createRequest('POST', url)
    if (method === 'POST') return request
    request.setHeader('X-HTTP-Method-Override', method)
    request.getMethod = () => method
    return request
  }

  getName(): string {
    return 'OnlyPost'
  }
}

async function contentFile(): Promise<File> {
  const response = await fetch('/content')
  return new File([await response.blob()], 'größe.bin', { type: 'application/octet-stream', lastModified: 1 })
}

/** Gives the URL of the upload; with `terminates`, an upload that was terminated in the middle. */
async function uploadWithTus({ onlyPost = false, terminates = false }): Promise<string> {
  const file = await contentFile()
  return new Promise((resolve, reject) => {
    const upload = new Upload(file, {
      endpoint: '/files/',
      chunkSize,
      metadata: { filename: file.name },
      retryDelays: [100, 200, 500, 500, 500],
      ...(onlyPost && { httpStack: new OnlyPost() }),
      onChunkComplete: () => {
        const { url } = upload
        if (terminates) upload.abort(true).then(() => resolve(url ?? ''), reject)
      },
      onError: reject,
      onSuccess: () => resolve(upload.url ?? ''),
    })
    upload.start()
  })
}

/** react-uploady's own implementation of the protocol. Gives how it ended: finished, error ... */
async function uploadWithUploady(options: TusOptions): Promise<string> {
  const file = await contentFile()
  return new Promise((resolve) => {
    const uploader = createUploader({
      enhancer: getTusEnhancer({ chunkSize, retries: 0, featureDetection: true, ...options }),
      destination: { url: '/files', params: { filename: 'of uploady' } },
    })
    uploader.on(UPLOADER_EVENTS.ITEM_FINALIZE, ({ state }: { state: string }) => resolve(state))
    uploader.add(file)
  })
}

Object.assign(globalThis, { uploadWithTus, uploadWithUploady })
