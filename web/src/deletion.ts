/**
 * Deletes cancelled uploads on the server, in Uppy's place. Uppy's own DELETE keeps its place in the queue for ever
 * when it has to be tried again (the server was away): after a few of those no upload begins any more. And when the
 * server refuses it, nobody hears of it but the console.
 */

import type Uppy from '@uppy/core'
import type { Body, Meta, UppyFile } from '@uppy/core'
import type Tus from '@uppy/tus'
import { defaultOptions } from 'tus-js-client'
import { isPassing, retryDelaysMs } from './patience.ts'
import type { SignIn } from './sign-in.ts'

type PageFile = UppyFile<Meta, Body>

/** Asks until it is answered, as long as this page is open; what is left then, the server lets expire. */
export type DeleteUpload = (url: string) => void

export function uploadDeleter({ canDelete }: { canDelete: boolean }, signIn: SignIn): DeleteUpload {
  return (url) => {
    void forgetUrl(url)
    if (canDelete) void untilAnswered(url, signIn)
  }
}

/** From now on, uploads that are cancelled or removed before they were finished are deleted by `deleteUpload`. */
export function deleteCancelled(uppy: Uppy<Meta, Body>, deleteUpload: DeleteUpload): void {
  const tus = uppy.getPlugin<Tus<Meta, Body>>('Tus')
  // Without a URL, Uppy has nothing to delete.
  const silence = (file: PageFile) => {
    const upload = tus?.uploaders[file.id]
    if (upload) upload.url = null
  }
  uppy.on('cancel-all', () => uppy.getFiles().forEach(silence))
  uppy.on('file-removed', (file) => {
    silence(file)
    const url = file.tus?.uploadUrl
    // A ghost goes on as soon as its file is chosen again.
    if (url && !file.progress.uploadComplete && !file.isGhost) deleteUpload(url)
  })
}

async function untilAnswered(url: string, signIn: SignIn): Promise<void> {
  for (const delayMs of retryDelaysMs) {
    await new Promise((resolve) => setTimeout(resolve, delayMs))
    const headers = { 'Tus-Resumable': '1.0.0', ...signIn.headers }
    const answer = await fetch(url, { method: 'DELETE', headers }).catch(() => undefined)
    if (answer === undefined || isPassing(answer.status)) continue
    signIn.answered(answer.status)
    // Who signs in again may want it gone, too.
    if (answer.status !== 401) return
  }
}

/** Otherwise the same file, chosen again, would go on with the cancelled upload. */
async function forgetUrl(url: string): Promise<void> {
  const { urlStorage } = defaultOptions
  const known = (await urlStorage?.findAllUploads()) ?? []
  for (const { uploadUrl, urlStorageKey } of known) {
    if (uploadUrl === url) await urlStorage?.removeUpload(urlStorageKey)
  }
}
