// tus-js-client, as a test wants it: started, watched request by request, and awaited.

import { Upload, type UploadOptions } from 'tus-js-client'

export type Exchange = {
  method: string
  url: string
  status: number | undefined
  /** `Upload-Offset` of the request, and of the answer. */
  offset: number | undefined
  answeredOffset: number | undefined
}

export type RunningUpload = {
  upload: Upload
  /** Resolves with the URL of the finished upload. */
  done: Promise<string>
  /** Every request that was answered, in order. */
  exchanges: Exchange[]
}

/** Many attempts in quick succession: a server that starts again needs a second or two. */
const patientRetries = [0, 100, 200, 300, 500, ...Array<number>(40).fill(500)]

export function startUpload(
  source: ConstructorParameters<typeof Upload>[0],
  options: Partial<UploadOptions>,
): RunningUpload {
  const exchanges: Exchange[] = []
  let resolve: (url: string) => void = () => undefined
  let reject: (error: unknown) => void = () => undefined
  const done = new Promise<string>((yes, no) => {
    resolve = yes
    reject = no
  })
  const upload: Upload = new Upload(source, {
    retryDelays: patientRetries,
    ...options,
    onAfterResponse: async (req, res) => {
      exchanges.push({
        method: req.getMethod(),
        url: req.getURL(),
        status: res.getStatus(),
        offset: toNumber(req.getHeader('Upload-Offset')),
        answeredOffset: toNumber(res.getHeader('Upload-Offset')),
      })
      await options.onAfterResponse?.(req, res)
    },
    onSuccess: () => resolve(upload.url ?? ''),
    onError: reject,
  })
  upload.start()
  return { upload, done, exchanges }
}

function toNumber(header: string | undefined): number | undefined {
  return header === undefined ? undefined : Number(header)
}
