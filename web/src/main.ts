/** The page at `/` of a Tidemark server: the parts are made here, and put together. */
import '@uppy/core/css/style.min.css'
import '@uppy/dashboard/css/style.min.css'
import './style.css'
import './uppy.css'
import { ConnectionBanner } from './connection.ts'
import { uploadDeleter } from './deletion.ts'
import { readSettings } from './settings.ts'
import { type Account, SignIn } from './sign-in.ts'
import { SignedDownloads } from './signed-downloads.ts'
import { takeTabSlot } from './tab-slot.ts'
import { UploadFeed } from './upload-feed.ts'
import { UploadTable } from './upload-table.ts'
import { startUploader } from './uploader.ts'
import { WaitingList } from './waiting-list.ts'

const settings = readSettings()
const signIn = new SignIn(settings)
const account = await signIn.start()
const downloads = account === null ? null : new SignedDownloads(signIn)
const canDownload = settings.canDownload && mayRead(account)
const table = new UploadTable({ canDownload, downloads }, new UploadFeed(settings, signIn))
table.start()

const tabSlot = await takeTabSlot()
const deleteOnServer = uploadDeleter(settings, signIn)
const deleteUpload = (url: string) => {
  table.forget(url)
  deleteOnServer(url)
}
const waiting = new WaitingList((files) => {
  for (const file of files) addFile(file)
}, deleteUpload)
const banner = new ConnectionBanner()
const uppy = startUploader(settings, {
  ...{ tabSlot, banner, table, waiting, deleteUpload, signIn, account },
})
signIn.onAgain(() => void uppy.retryAll())
waiting.start()

function mayRead(account: Account | null): boolean {
  return account === null || account.scopes.includes('read')
}

function addFile(file: File): void {
  try {
    uppy.addFile({ name: file.name, type: file.type, data: file, source: 'Dashboard' })
  } catch {
    // Too large, or chosen twice: Uppy has told people already.
  }
}
