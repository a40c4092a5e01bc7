// Runs in the browser: tus-js-client and Uppy as they are, with a digest in the metadata of the file that they upload.

import Uppy from '@uppy/core'
import Tus from '@uppy/tus'
import { Upload } from 'tus-js-client'

interface Wish {
  readonly endpoint: string
  readonly sha256: string
  readonly uploadDataDuringCreation: boolean
}

async function contentFile(): Promise<File> {
  return new File([await (await fetch('/content')).blob()], 'a.bin', { lastModified: 1 })
}

async function withTus({ endpoint, sha256, uploadDataDuringCreation }: Wish): Promise<string> {
  const file = await contentFile()
  return new Promise((resolve, reject) => {
    const upload: Upload = new Upload(file, {
      ...{ endpoint, uploadDataDuringCreation, metadata: { filename: file.name, sha256 } },
      retryDelays: [0, 100, 500],
      onError: reject,
      onSuccess: () => resolve(upload.url ?? ''),
    })
    upload.start()
  })
}

async function withUppy({ endpoint, sha256, uploadDataDuringCreation }: Wish): Promise<string> {
  const uppy = new Uppy().use(Tus, { endpoint, uploadDataDuringCreation, retryDelays: [0, 100, 500] })
  uppy.addFile({ name: 'a.bin', data: await contentFile(), meta: { sha256 } })
  const result = await uppy.upload()
  const [file] = result?.successful ?? []
  if (!file) throw new Error(JSON.stringify(result?.failed?.map(({ error }) => error)))
  return file.uploadURL ?? ''
}

Object.assign(globalThis, { withTus, withUppy })
